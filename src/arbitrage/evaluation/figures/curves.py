"""Figures from curves over the acceptance rate, which make thresholds of different methods comparable."""

from collections.abc import Sequence
from statistics import fmean
from typing import Final

from arbitrage.core.interpolation import interpolated
from arbitrage.evaluation.figures.metrics import MethodFigures

Curve = list[tuple[float, float]]
"""Points (acceptance rate, figure), sorted."""
NUM_POINTS: Final = 50
"""Acceptance rates at which curves are averaged."""


def curve(figures: Sequence[MethodFigures], name: str) -> Curve:
    """One figure over the acceptance rate.

    Args:
        figures: Of one method at several thresholds; those without the figure are left out.
        name: A field of :class:`MethodFigures`.
    """
    points = ((one.acceptance_rate, getattr(one, name)) for one in figures)
    return sorted((x, y) for x, y in points if x is not None and y is not None)


def common_means(curves: Sequence[Curve]) -> list[float] | None:
    """Mean of each curve over the acceptance rates where all are defined, interpolated linearly.

    Returns:
        None if they share no range.
    """
    if not all(curves):
        return None
    low, high = max(c[0][0] for c in curves), min(c[-1][0] for c in curves)
    if high <= low:
        return None
    points = [low + (high - low) * i / (NUM_POINTS - 1) for i in range(NUM_POINTS)]
    return [fmean(interpolated(c, x) for x in points) for c in curves]


def gain_share(
    method: Sequence[MethodFigures], bound: Sequence[MethodFigures], chance: Sequence[MethodFigures]
) -> float | None:
    """Share of an upper bound's accuracy gain over chance that a method captures, averaged over acceptance rates.

    Args:
        method: Figures of the method at several thresholds.
        bound: Figures of the upper bound, likewise.
        chance: Figures of random escalation, with draft-only and target-only as the ends of its curve.

    Returns:
        The area between method and chance over the area between bound and chance; None without such an area.
    """
    means = common_means([curve(figures, "accuracy") for figures in (method, bound, chance)])
    if means is None or means[1] <= means[2]:
        return None
    return (means[0] - means[2]) / (means[1] - means[2])


def waste_ratio(method: Sequence[MethodFigures], reference: Sequence[MethodFigures]) -> float | None:
    """Rate of escalations without gain, method over reference, averaged over equal acceptance rates.

    Returns:
        None if the curves share no range, or the reference wastes no escalation.
    """
    means = common_means([curve(figures, "wasted_escalation_rate") for figures in (method, reference)])
    return means[0] / means[1] if means and means[1] else None
