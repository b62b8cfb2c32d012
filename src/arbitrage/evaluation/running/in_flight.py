"""How many solutions in flight a pair's models take before their throughput stops growing."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final

from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Problem
from arbitrage.runtime.pool import each

AUTO: Final = 0
"""In place of a number of solutions in flight: find it."""
MAX_IN_FLIGHT: Final = 256
MIN_GAIN: Final = 1.1
"""Twice as many solutions in flight must give so many times the tokens a second."""
ROUNDS: Final = 3
"""Solutions of a trial, for each one in flight: while the last ones end, not all places are in use."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A measured throughput."""

    in_flight: int
    tokens_per_s: float


def parse_in_flight(text: str | int) -> int:
    """A number of solutions in flight, or :data:`AUTO` for ``auto``.

    Raises:
        ConfigError: If it is neither ``auto`` nor a number above 0.
    """
    if str(text) == "auto":
        return AUTO
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ConfigError(f"jobs must be at least 1, got {text}", hint="give a number, or auto to find one")
    return number


async def trials(
    solve: Callable[[Problem], Awaitable[int]],
    problems: Sequence[Problem],
    *,
    most: int = MAX_IN_FLIGHT,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Trial]:
    """Measure the throughput at 1, 2, 4, … solutions in flight until it stops growing.

    Args:
        solve: Solves a problem and returns the number of its tokens.
        problems: The problems to solve, in turn.
        most: The largest number to try.
        clock: Returns seconds.

    Returns:
        The trials. All but the last one gained on the one before, and the last one too if it is of ``most``.
    """
    measured = list[Trial]()
    in_flight, endless_problems = 1, cycle(problems)
    while in_flight <= most:
        num_tokens = 0

        async def count(problem: Problem) -> None:
            nonlocal num_tokens
            of_solution = await solve(problem)  # The sum is read behind it: others add to it meanwhile.
            num_tokens += of_solution

        started = clock()
        await each(list(islice(endless_problems, ROUNDS * in_flight)), count, max_in_flight=in_flight)
        measured.append(Trial(in_flight, num_tokens / max(clock() - started, 1e-9)))
        if not _has_gained(measured):
            break
        in_flight *= 2
    return measured


def best_in_flight(measured: Sequence[Trial]) -> int:
    """The number of solutions in flight with which the throughput last grew."""
    return measured[-1].in_flight if _has_gained(measured) else measured[-2].in_flight


def _has_gained(measured: Sequence[Trial]) -> bool:
    return len(measured) < 2 or measured[-1].tokens_per_s >= MIN_GAIN * measured[-2].tokens_per_s
