"""Who is faster at the target's accuracy."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from arbitrage.core.trace import Trace
from arbitrage.evaluation.grading import Grade, is_correct
from arbitrage.evaluation.metrics import Interval, bootstrap
from arbitrage.evaluation.run import Entry, Results


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """A policy's fastest threshold whose accuracy is at most ``margin`` below the target's."""

    entry: Entry
    accuracy_gap: float
    """Accuracy minus target-only's."""
    gap_interval: Interval
    speedup: float
    """Mean seconds of the reference over mean seconds of this policy."""
    interval: Interval


def fastest_matched(
    results: Results,
    policy: str,
    reference: Entry,
    *,
    margin: float = 0.015,
    rng: random.Random,
    grade: Grade = is_correct,
) -> Matched | None:
    """Find the fastest entry of ``policy`` at matched accuracy and compare it with ``reference``.

    The threshold is chosen on the same problems that the interval is computed on, so the interval does not
    cover the choice.

    Returns:
        None if no threshold of the policy reaches the accuracy.

    Raises:
        KeyError: If target-only or the reference did not run.
    """
    target_right = _right(results[Entry("target")], grade)
    floor = fmean(target_right) - margin
    matching = [e for e, found in results.items() if e.policy == policy and fmean(_right(found, grade)) >= floor]
    if not matching:
        return None
    entry = min(matching, key=lambda e: fmean(_seconds(results[e])))
    mine, theirs = _seconds(results[entry]), _seconds(results[reference])
    right, num = _right(results[entry], grade), len(mine)
    return Matched(
        entry=entry,
        accuracy_gap=fmean(right) - fmean(target_right),
        gap_interval=bootstrap(lambda s: fmean(right[i] - target_right[i] for i in s), num, rng=rng),
        speedup=sum(theirs) / sum(mine),
        interval=bootstrap(lambda s: sum(theirs[i] for i in s) / sum(mine[i] for i in s), num, rng=rng),
    )


def _right(traces: Sequence[Trace], grade: Grade) -> list[bool]:
    return [grade(trace) is True for trace in traces]


def _seconds(traces: Sequence[Trace]) -> list[float]:
    return [trace.latency_s for trace in traces]
