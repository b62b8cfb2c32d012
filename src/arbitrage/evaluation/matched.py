"""Who is faster at the target's accuracy."""

from dataclasses import dataclass
from typing import Final

from arbitrage.evaluation.frontier import pareto, seconds_at
from arbitrage.evaluation.intervals import Interval, percentiles, randomization_p
from arbitrage.evaluation.paired import Paired
from arbitrage.evaluation.run import TARGET, Entry

MARGIN: Final = 0.015
"""So much accuracy below target-only counts as matched: 1.5 points, the non-inferiority margin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """A policy's fastest threshold whose accuracy is at most ``margin`` below the target's."""

    entry: Entry
    accuracy_gap: float
    """Accuracy minus target-only's."""
    gap_interval: Interval
    p_value: float
    """Of "as accurate as target-only", two-sided."""
    is_noninferior: bool
    """Whether the whole interval of the gap lies above minus the margin."""
    speedup: float
    """Mean seconds of the reference over mean seconds of this policy."""
    interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """How much faster a policy is than another one where both reach the same accuracy, thresholds interpolated."""

    policy: str
    reference: str
    accuracy: float
    """The accuracy to reach: target-only's minus the margin."""
    seconds: float
    reference_seconds: float
    speedup: float
    interval: Interval
    """From problems drawn anew with the frontier and the accuracy to reach found anew each time, so it covers the
    choice of the threshold. A draw in which the policy misses the accuracy counts as 0, one in which only the
    reference does as infinite."""
    reached_share: float
    """Of the draws, those in which the policy reaches the accuracy."""


def fastest_matched(paired: Paired, policy: str, reference: Entry, *, margin: float = MARGIN) -> Matched | None:
    """Find the fastest entry of ``policy`` at matched accuracy and compare it with ``reference``.

    The threshold is chosen on the same problems that the interval is computed on, so the interval does not
    cover the choice; that of :func:`matched_speedup` does.

    Returns:
        None if no threshold of the policy reaches the accuracy, or the reference has no times.

    Raises:
        KeyError: If target-only or the reference did not run.
    """
    floor = _floor(paired.accuracy(TARGET), margin)
    matching = {e: paired.seconds(e) for e in paired.of(policy) if paired.accuracy(e) >= floor}
    theirs = paired.seconds(reference)
    if not matching or not theirs:
        return None
    entry, mine = min(matching.items(), key=lambda item: item[1] or 0.0)
    gaps = zip(paired.accuracies(entry), paired.accuracies(TARGET), strict=True)
    ratios = zip(paired.times(reference), paired.times(entry), strict=True)
    gap_interval = percentiles([a - b for a, b in gaps if a is not None and b is not None])
    return Matched(
        entry=entry,
        accuracy_gap=paired.accuracy(entry) - paired.accuracy(TARGET),
        gap_interval=gap_interval,
        p_value=randomization_p(paired.differences(entry, TARGET)),
        is_noninferior=gap_interval.low > -margin,
        speedup=theirs / mine if mine else float("inf"),
        interval=percentiles([a / b for a, b in ratios if a and b]),
    )


def matched_speedup(paired: Paired, policy: str, reference: str, *, margin: float = MARGIN) -> Speedup | None:
    """Compare two policies at the target's accuracy minus the margin, each on its own Pareto frontier.

    Args:
        paired: Solutions; target-only must be among them.
        policy: Whose speed is wanted.
        reference: What it is compared with; ``target`` is a frontier of one point.
        margin: How much accuracy below target-only is to be reached.

    Returns:
        None if one of them does not reach the accuracy.
    """
    mine, theirs = paired.of(policy), paired.of(reference)
    wanted = _floor(paired.accuracy(TARGET), margin)
    seconds, reference_seconds = (
        seconds_at(pareto((paired.seconds(e) or 0.0, paired.accuracy(e)) for e in entries), wanted)
        for entries in (mine, theirs)
    )
    if not seconds or not reference_seconds:
        return None
    levels = [_floor(accuracy, margin) for accuracy in paired.accuracies(TARGET) if accuracy is not None]
    own, other = _resampled(paired, mine, levels), _resampled(paired, theirs, levels)
    return Speedup(
        policy=policy,
        reference=reference,
        accuracy=wanted,
        seconds=seconds,
        reference_seconds=reference_seconds,
        speedup=reference_seconds / seconds,
        interval=percentiles([_ratio(b, a) for a, b in zip(own, other, strict=True)]),
        reached_share=sum(value is not None for value in own) / len(own),
    )


def _floor(accuracy: float, margin: float) -> float:
    """The accuracy to reach; what equals it but for rounding reaches it."""
    return accuracy - margin - 1e-9


def _resampled(paired: Paired, entries: list[Entry], levels: list[float]) -> list[float | None]:
    """Seconds at the accuracy to reach, in each resample."""
    columns = [zip(paired.times(entry), paired.accuracies(entry), strict=True) for entry in entries]
    found: list[float | None] = []
    for level, *points in zip(levels, *columns, strict=True):
        known = [(s, a) for s, a in points if s is not None and a is not None]
        found.append(seconds_at(pareto(known), level))
    return found


def _ratio(reference: float | None, own: float | None) -> float:
    if own is None:
        return 0.0
    return float("inf") if reference is None or not own else reference / own
