"""Speed at the target's accuracy."""

from collections import deque
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from arbitrage.evaluation.figures.frontier import seconds_at
from arbitrage.evaluation.figures.intervals import Estimate, percentiles
from arbitrage.evaluation.figures.paired import Paired, floor_of
from arbitrage.evaluation.running.entry import TARGET, Entry

MARGIN: Final = 0.015
"""Non-inferiority margin: an accuracy at most 1.5 points below target-only's counts as matched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """One entry: its accuracy compared with target-only's, its speed with a reference's."""

    entry: Entry
    reference: Entry
    gap: Estimate
    """Accuracy minus target-only's."""
    lowest_gap: float
    """Lower 97.5 % bound of the gap; see :class:`arbitrage.evaluation.figures.paired.Paired`."""
    p_value: float
    """Of "as accurate as target-only", two-sided."""
    speedup: Estimate
    """Mean seconds of the reference over mean seconds of the entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """Speed of a method compared with a reference where both reach the same accuracy, thresholds interpolated."""

    accuracy: float
    """The accuracy to reach: target-only's minus the margin."""
    seconds: float
    reference_seconds: float
    speedup: Estimate
    """Seconds of the reference over seconds of the method. Each resample has its own frontiers and its own accuracy to
    reach, so the interval covers the choice of the threshold. A resample in which the method misses the accuracy counts
    as 0, one in which only the reference misses it as infinite."""
    reached_share: float
    """Share of the resamples in which the method reaches the accuracy."""


def fastest_matched(paired: Paired, method: Entry, *, margin: float = MARGIN) -> Entry | None:
    """A method's fastest threshold whose accuracy is at most ``margin`` below the target's.

    The threshold is chosen on the same problems that intervals are computed on, so the interval of a comparison at
    this threshold does not cover the choice; that of :func:`matched_speedup` does.

    Returns:
        None if no threshold of the method reaches the accuracy.

    Raises:
        KeyError: If target-only did not run.
    """
    floor = floor_of(paired.accuracy(TARGET), margin)
    matching = [entry for entry in paired.of(method) if paired.accuracy(entry) >= floor]
    return slowest_first(paired, matching)[-1] if matching else None


def fastest_noninferior(paired: Paired, method: Entry, *, margin: float = MARGIN) -> Entry | None:
    """A method's fastest threshold that is shown to lose less accuracy than ``margin``.

    Thresholds are tested from the slowest on until a test fails. In such a fixed sequence the error of all tests
    together is that of one test, 2.5 %. The order depends on seconds only, not on answers.

    Returns:
        None if the first test fails.

    Raises:
        KeyError: If target-only did not run.
    """
    ordered = slowest_first(paired, paired.of(method))
    shown = takewhile(lambda entry: paired.lowest_gap(entry, TARGET) > -margin, ordered)
    return next(iter(deque(shown, maxlen=1)), None)


def beside(paired: Paired, entry: Entry, reference: Entry) -> Matched | None:
    """Compare an entry with target-only in accuracy, and with a reference in speed.

    Returns:
        None if the entry or the reference has no seconds.

    Raises:
        KeyError: If one of the three did not run.
    """
    speedup = paired.speedup(entry, reference)
    if speedup is None:
        return None
    return Matched(
        entry=entry,
        reference=reference,
        gap=paired.gap(entry, TARGET),
        lowest_gap=paired.lowest_gap(entry, TARGET),
        p_value=paired.p_value(entry, TARGET),
        speedup=speedup,
    )


def slowest_first(paired: Paired, entries: list[Entry]) -> list[Entry]:
    """Entries in order of their seconds, the slowest first."""
    return sorted(entries, key=lambda entry: -(paired.seconds(entry) or 0.0))


def matched_speedup(paired: Paired, method: Entry, reference: Entry, *, margin: float = MARGIN) -> Speedup | None:
    """Compare two methods at the target's accuracy minus the margin, each on its own Pareto frontier.

    Args:
        paired: Solutions; target-only must be among them.
        method: The method whose speed is compared, without its threshold.
        reference: The method that it is compared with; target-only is a frontier of one point.
        margin: How far below target-only's accuracy the accuracy to reach lies.

    Returns:
        None if one of them does not reach the accuracy.
    """
    accuracy = floor_of(paired.accuracy(TARGET), margin)
    seconds = seconds_at(paired.frontier(method), accuracy)
    reference_seconds = seconds_at(paired.frontier(reference), accuracy)
    if not seconds or not reference_seconds:
        return None
    own, other = (paired.seconds_at(one, TARGET, margin) for one in (method, reference))
    return Speedup(
        accuracy=accuracy,
        seconds=seconds,
        reference_seconds=reference_seconds,
        speedup=Estimate(
            value=reference_seconds / seconds,
            interval=percentiles([_ratio(b, a) for a, b in zip(own, other, strict=True)]),
        ),
        reached_share=sum(value is not None for value in own) / len(own),
    )


def _ratio(reference: float | None, own: float | None) -> float:
    if own is None:
        return 0.0
    return float("inf") if reference is None or not own else reference / own
