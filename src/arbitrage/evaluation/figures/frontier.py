"""The Pareto frontier of one method's thresholds in seconds and accuracy."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from arbitrage.evaluation.figures.curves import common_means

Point = tuple[float, float]
"""(Seconds, accuracy)."""


def pareto(points: Iterable[Point]) -> list[Point]:
    """The points that no other point beats in both seconds and accuracy, in order of seconds."""
    frontier: list[Point] = []
    for seconds, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not frontier or accuracy > frontier[-1][1]:
            frontier.append((seconds, accuracy))
    return frontier


def seconds_at(frontier: Sequence[Point], accuracy: float) -> float | None:
    """Seconds at which a frontier reaches an accuracy, interpolated linearly between its points.

    A method that chooses between two thresholds at random for each problem has mean seconds and accuracy on the
    straight line between theirs, so an interpolated point is attainable.

    Args:
        frontier: As :func:`pareto` returns it.
        accuracy: The accuracy to reach.

    Returns:
        The fastest point's seconds if it is accurate enough; None if no point is.
    """
    if not frontier or frontier[-1][1] < accuracy:
        return None
    if frontier[0][1] >= accuracy:
        return frontier[0][0]
    for (fast, low), (slow, high) in pairwise(frontier):
        if low < accuracy <= high:
            return fast + (slow - fast) * (accuracy - low) / (high - low)
    raise AssertionError("accuracy must rise along a frontier")


def mean_gap(first: Sequence[Point], second: Sequence[Point]) -> float | None:
    """Mean accuracy difference of two frontiers at equal seconds, over the seconds that both cover.

    Args:
        first: A frontier.
        second: The frontier that it is compared with.

    Returns:
        How much more accurate the first is on average; None if they share no range.
    """
    means = common_means([list(first), list(second)])
    return None if means is None else means[0] - means[1]
