"""The tiny world's splits as problems."""

from typing import Final

from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Problem
from arbitrage.tiny.world import SPLITS, generate
from arbitrage.tiny.world_problem import WorldProblem

DEFAULT_COUNT: Final = 200


def as_problem(world_problem: WorldProblem) -> Problem:
    """The question and its gold answer, without the solution."""
    return Problem(
        id=world_problem.id,
        question=world_problem.question,
        answer=world_problem.answer,
        metadata={"family": world_problem.family, "level": str(world_problem.level)},
    )


def problems(split: str, count: int = DEFAULT_COUNT, *, seed: int = 0) -> list[Problem]:
    """Generate the first problems of a split; levels and families rotate, so any prefix is balanced.

    Args:
        split: A key of :data:`arbitrage.tiny.world.SPLITS`.
        count: The number of problems.
        seed: Another seed gives other problems. The language models were trained on ``train`` with the seeds 0 and 1.

    Raises:
        ConfigError: If the split is unknown.
    """
    if split not in SPLITS:
        raise ConfigError(f"the split must be one of {', '.join(SPLITS)}, got {split!r}")
    return [as_problem(generate(split, index, seed=seed)) for index in range(count)]
