"""Who is faster at the target's accuracy."""

from collections import deque
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from arbitrage.evaluation.figures.frontier import pareto, seconds_at
from arbitrage.evaluation.figures.intervals import Interval, percentiles, randomization_p
from arbitrage.evaluation.figures.paired import Paired
from arbitrage.evaluation.running.entry import TARGET, Entry

MARGIN: Final = 0.015
"""So much accuracy below target-only counts as matched: 1.5 points, the non-inferiority margin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """One threshold of a policy beside target-only in accuracy, and beside a reference in speed."""

    entry: Entry
    reference: Entry
    accuracy_gap: float
    """Accuracy minus target-only's."""
    gap_interval: Interval
    lowest_gap: float
    """What the gap is at least: see :class:`arbitrage.evaluation.figures.paired.Paired`."""
    p_value: float
    """Of "as accurate as target-only", two-sided."""
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


def fastest_matched(paired: Paired, group: Entry, reference: Entry, *, margin: float = MARGIN) -> Matched | None:
    """Compare a policy's fastest threshold whose accuracy is at most ``margin`` below the target's.

    The threshold is chosen on the same problems that the interval is computed on, so the interval does not
    cover the choice; that of :func:`matched_speedup` does.

    Returns:
        None if no threshold of the policy reaches the accuracy.

    Raises:
        KeyError: If target-only or the reference did not run.
    """
    floor = _floor(paired.accuracy(TARGET), margin)
    matching = [entry for entry in paired.of(group) if paired.accuracy(entry) >= floor]
    return beside(paired, _by_speed(paired, matching)[-1], reference) if matching else None


def fastest_noninferior(paired: Paired, group: Entry, *, margin: float = MARGIN) -> Entry | None:
    """Find a policy's fastest threshold that is shown to lose less accuracy than ``margin``.

    Thresholds are tested one after another, beginning with the slowest, until one is not shown: a fixed sequence, so
    that the error of all together is that of one test, 2.5 %. Who is right has no part in the order.

    Returns:
        None if the first is not shown already.

    Raises:
        KeyError: If target-only did not run.
    """
    shown = takewhile(lambda entry: paired.lowest_gap(entry, TARGET) > -margin, _by_speed(paired, paired.of(group)))
    return next(iter(deque(shown, maxlen=1)), None)


def beside(paired: Paired, entry: Entry, reference: Entry) -> Matched | None:
    """Compare one threshold with target-only in accuracy, and with a reference in speed.

    Returns:
        None if one of them has no times.

    Raises:
        KeyError: If one of the three did not run.
    """
    mine, theirs = paired.seconds(entry), paired.seconds(reference)
    if not mine or not theirs:
        return None
    gaps = zip(paired.accuracies(entry), paired.accuracies(TARGET), strict=True)
    ratios = zip(paired.times(reference), paired.times(entry), strict=True)
    return Matched(
        entry=entry,
        reference=reference,
        accuracy_gap=paired.accuracy(entry) - paired.accuracy(TARGET),
        gap_interval=percentiles([a - b for a, b in gaps if a is not None and b is not None]),
        lowest_gap=paired.lowest_gap(entry, TARGET),
        p_value=randomization_p(paired.differences(entry, TARGET)),
        speedup=theirs / mine,
        interval=percentiles([a / b for a, b in ratios if a and b]),
    )


def _by_speed(paired: Paired, entries: list[Entry]) -> list[Entry]:
    """The slowest first."""
    return sorted(entries, key=lambda entry: -(paired.seconds(entry) or 0.0))


def matched_speedup(paired: Paired, group: Entry, reference: Entry, *, margin: float = MARGIN) -> Speedup | None:
    """Compare two policies at the target's accuracy minus the margin, each on its own Pareto frontier.

    Args:
        paired: Solutions; target-only must be among them.
        group: The method whose speed is compared, without its threshold.
        reference: What it is compared with; ``target`` is a frontier of one point.
        margin: How much accuracy below target-only is to be reached.

    Returns:
        None if one of them does not reach the accuracy.
    """
    mine, theirs = paired.of(group), paired.of(reference.group)
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
        policy=group.policy,
        reference=reference.policy,
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
