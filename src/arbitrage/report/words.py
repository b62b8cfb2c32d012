"""Figures and comparisons as text, for terminals and pages."""

import math

from arbitrage.evaluation.figures.compare import Difference
from arbitrage.evaluation.figures.intervals import Estimate, Interval
from arbitrage.evaluation.figures.matched import Matched
from arbitrage.evaluation.figures.summary import Comparison, Summary
from arbitrage.evaluation.running.entry import TARGET, Entry
from arbitrage.evaluation.running.folder import Run
from arbitrage.report.columns import NONE
from arbitrage.report.highlights import ORACLE, RSD, SUBJECT, UNSAID


def summary_lines(summary: Summary) -> list[str]:
    """A run's comparisons in sentences; a sentence without its figures is left out."""
    with_target = [summary.of(method) for method in summary.methods]
    by_subject = [summary.of(SUBJECT, reference) for reference in summary.references(SUBJECT) if reference.is_product]
    fastest = [*(one.fastest for one in with_target), summary.of(SUBJECT, RSD).fastest]
    return [
        *(_fastest_line(matched) for matched in fastest if matched),
        *(
            line
            for method in summary.methods
            if method.method.is_router
            for line in _noninferior_lines(summary, method)
        ),
        *(
            interpolated_line(one, summary.margin)
            for one in with_target
            if one.interpolated and one.method not in UNSAID
        ),
        *(interpolated_line(one, summary.margin) for one in by_subject if one.interpolated),
        *(_gap_line(one) for one in by_subject if one.mean_gap is not None),
        *_shares_lines(summary),
    ]


def _fastest_line(matched: Matched) -> str:
    return (
        f"{name_of(matched.entry)} is {ratio_text(matched.speedup)} as fast as {name_of(matched.reference)}; "
        f"accuracy gap to target-only {points_text(matched.gap)}, p = {matched.p_value:.2g}"
    )


def _noninferior_lines(summary: Summary, method: Entry) -> list[str]:
    """Whether a method is shown to lose less accuracy than the margin, and its speed where it is."""
    within = f"less than {summary.margin * 100:g} points below target-only's accuracy"
    matched = summary.of(method).noninferior
    if matched is None:
        return [f"{method.policy}: no threshold is shown to be {within}"]
    rivals = [summary.of(method, one).noninferior for one in summary.references(method) if is_plain_product(one)]
    speeds = ", ".join(
        f"{ratio_text(one.speedup)} as fast as {name_of(one.reference)}" for one in (matched, *rivals) if one
    )
    return [
        f"{name_of(matched.entry)} is shown to be {within}: gap {points_text(matched.gap)}, with 97.5 % confidence at "
        f"least {matched.lowest_gap * 100:+.1f}; it is {speeds}"
    ]


def is_plain_product(method: Entry) -> bool:
    """Whether one would serve the method and no trained router decides in it: a rival of all routers."""
    return method.is_product and not method.method.is_router


def interpolated_line(comparison: Comparison, margin: float) -> str:
    """A speed-up at the target's accuracy in words; the comparison must have one."""
    speedup = comparison.interpolated
    assert speedup is not None
    missed = 1.0 - speedup.reached_share
    return (
        f"{comparison.method.policy}, its thresholds interpolated, is {ratio_text(speedup.speedup)} as fast as "
        f"{name_of(comparison.reference)} at {margin * 100:g} points below target-only's accuracy"
        + (f"; {missed:.0%} of resamples miss that accuracy" if missed > 0.0 else "")
    )


def _gap_line(comparison: Comparison) -> str:
    gap = comparison.mean_gap or 0.0
    return (
        f"{comparison.method.policy} is {abs(gap) * 100:.1f} points {'less' if gap < 0 else 'more'} accurate than "
        f"{comparison.reference.policy} at equal seconds, on average"
    )


def _shares_lines(summary: Summary) -> list[str]:
    lines = []
    if (share := summary.of(SUBJECT, ORACLE).gain_share) is not None:
        lines.append(f"{SUBJECT.policy} captures {share:.0%} of the accuracy gain of {ORACLE.policy} over chance")
    if (ratio := summary.of(SUBJECT, RSD).waste_ratio) is not None:
        lines.append(
            f"at equal acceptance {SUBJECT.policy} wastes {ratio:.2f} times as many escalations as {RSD.policy}"
        )
    return lines


def difference_line(difference: Difference) -> str:
    """The difference between two runs in words."""
    line = (
        f"{difference.entry.label}: {difference.second} {points_text(difference.gap)} against {difference.first}, "
        f"p = {difference.p_value:.2g}"
    )
    return f"{line}; {ratio_text(difference.speedup)} as fast" if difference.speedup else line


def name_of(entry: Entry) -> str:
    """An entry of a run in a sentence."""
    return "target-only" if entry == TARGET else short_label(entry)


def short_label(entry: Entry) -> str:
    """An entry of a run with its threshold in at most six digits."""
    return entry.method.name if entry.threshold is None else f"{entry.method.name}@{entry.threshold:g}"


def points_text(gap: Estimate, unit: str = " points") -> str:
    """An accuracy difference with its interval, in points."""
    low, high = gap.interval.low * 100, gap.interval.high * 100
    return f"{gap.value * 100:+.1f}{unit} [{low:+.1f}, {high:+.1f}]"


def ratio_text(ratio: Estimate) -> str:
    """A speed-up with its interval."""
    return f"{ratio.value:.2f}× {interval_text(ratio.interval)}"


def interval_text(interval: Interval) -> str:
    """The interval of a speed-up.

    An end is ``not reached`` where the method misses the accuracy, and ``no limit`` where only its reference does.
    """
    low = "not reached" if interval.low == 0.0 else f"{interval.low:.2f}"
    return f"[{low}, " + (f"{interval.high:.2f}]" if math.isfinite(interval.high) else "no limit]")


def duration(seconds: float | None) -> str:
    """Seconds in three digits; milliseconds below one second."""
    if seconds is None:
        return NONE
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1.0 else f"{seconds:.3g} s"


def number(value: float | None, form: str) -> str:
    """A figure, or a dash without one."""
    return NONE if value is None else format(value, form)


def run_line(run: Run) -> str:
    """The run in one sentence: its pair, dataset, problems and protocol."""
    settings = run.settings
    dataset = f"{settings['pair']} on {settings['dataset']}, " if settings else ""
    samples = f", {settings['samples']} attempts each" if settings.get("samples", 1) > 1 else ""
    return f"{dataset}{len(run.problems)} problems{samples}; {run.protocol}."
