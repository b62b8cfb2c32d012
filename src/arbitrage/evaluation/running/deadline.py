"""A deadline for a comparison that shall stay paired."""

import time
from collections.abc import Callable

from arbitrage.core.types import Problem
from arbitrage.evaluation.running.entry import Entry


class Deadline:
    """An ``is_done`` of :func:`arbitrage.evaluation.running.sweep.sweep` that leaves out problems after a deadline.

    The time starts at the first call, which comes after the warm-up. A problem that one method has begun is solved by
    all methods, so that the comparison stays paired.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Set the deadline.

        Args:
            seconds: No problem is begun after this many seconds.
            clock: Returns seconds.
        """
        self._seconds, self._clock = seconds, clock
        self._end: float | None = None
        self._begun: set[str] = set()

    def __call__(self, entry: Entry, problem: Problem, attempt: int) -> bool:
        """Whether to leave out a problem."""
        now = self._clock()
        if self._end is None:
            self._end = now + self._seconds
        if now < self._end:
            self._begun.add(problem.id)
        return problem.id not in self._begun
