"""Figures read off curves over the acceptance rate, where thresholds of different policies do not compare."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from arbitrage.evaluation.figures.metrics import Row

Curve = list[tuple[float, float]]
"""Points (acceptance rate, figure), sorted."""


def curve(rows: Sequence[Row], figure: str) -> Curve:
    """A figure of :class:`Row` over the acceptance rate; rows without it are left out."""
    points = ((row.acceptance_rate, getattr(row, figure)) for row in rows)
    return sorted((x, y) for x, y in points if x is not None and y is not None)


def common_means(curves: Sequence[Curve], num_points: int = 50) -> list[float] | None:
    """Mean of each curve over the acceptance rates where all are defined, interpolated linearly.

    Returns:
        None if they share no range.
    """
    if not all(curves):
        return None
    low, high = max(c[0][0] for c in curves), min(c[-1][0] for c in curves)
    if high <= low:
        return None
    points = [low + (high - low) * i / (num_points - 1) for i in range(num_points)]
    return [fmean(_interpolate(c, x) for x in points) for c in curves]


def gain_share(router: Sequence[Row], oracle: Sequence[Row], chance: Sequence[Row]) -> float | None:
    """Share of the oracle's accuracy gain over chance that the router captures, averaged over acceptance rates.

    Args:
        router: Its rows at several thresholds.
        oracle: Likewise.
        chance: Rows of random escalation, with draft-only and target-only as its ends.

    Returns:
        The area between router and chance over the area between oracle and chance; None without such an area.
    """
    means = common_means([curve(rows, "accuracy") for rows in (router, oracle, chance)])
    if means is None or means[1] <= means[2]:
        return None
    return (means[0] - means[2]) / (means[1] - means[2])


def waste_ratio(router: Sequence[Row], rsd: Sequence[Row]) -> float | None:
    """Escalations without gain, router over RSD, averaged over equal acceptance rates; None without overlap."""
    means = common_means([curve(rows, "wasted_escalation_rate") for rows in (router, rsd)])
    return means[0] / means[1] if means and means[1] else None


def _interpolate(points: Curve, x: float) -> float:
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x <= x1:
            return y0 if x1 == x0 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1] if x > points[-1][0] else points[0][1]
