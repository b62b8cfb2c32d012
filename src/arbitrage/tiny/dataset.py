"""The tiny world's splits as problems."""

from typing import Final

from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Problem
from arbitrage.tiny.world import SPLITS, generate
from arbitrage.tiny.world_problem import WorldProblem

DEFAULT_COUNT: Final = 200


def as_problem(made: WorldProblem) -> Problem:
    """The question and its gold answer, without the solution."""
    return Problem(
        id=made.id,
        question=made.question,
        answer=made.answer,
        metadata={"family": made.family, "level": str(made.level)},
    )


def problems(split: str, count: int = DEFAULT_COUNT, *, seed: int = 0) -> list[Problem]:
    """The first problems of a split; levels and families are balanced in any prefix.

    Args:
        split: A key of :data:`arbitrage.tiny.world.SPLITS`.
        count: How many.
        seed: Another seed gives other problems; those of ``train`` with seeds 0 and 1 taught the language models.

    Raises:
        ConfigError: If there is no such split.
    """
    if split not in SPLITS:
        raise ConfigError(f"the tiny world's splits are {', '.join(SPLITS)}, got {split!r}")
    return [as_problem(generate(split, index, seed=seed)) for index in range(count)]
