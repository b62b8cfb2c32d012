"""A comparison in words, for terminals and reports."""

import math

from arbitrage.evaluation.figures.intervals import Interval
from arbitrage.evaluation.figures.matched import Matched, Speedup
from arbitrage.evaluation.figures.summary import Summary
from arbitrage.evaluation.running.entry import TARGET


def summary_lines(summary: Summary) -> list[str]:
    """A comparison in words; nothing for what it lacks."""
    pairs = [(policy, "target-only", matched) for policy, matched in summary.vs_target.items()]
    if summary.router_vs_rsd:
        pairs.append(("router", "rsd", summary.router_vs_rsd))
    lines = [
        f"{name} (threshold {number(m.entry.threshold, 'g')}) is {m.speedup:.2f}× as fast as {other} "
        f"[{m.interval.low:.2f}, {m.interval.high:.2f}] at {m.accuracy_gap * 100:+.1f} points of target-only's "
        f"accuracy [{m.gap_interval.low * 100:+.1f}, {m.gap_interval.high * 100:+.1f}], p = {m.p_value:.2g}"
        for name, other, m in pairs
    ]
    lines += _noninferior_lines(summary)
    lines += [
        speedup_line(speedup, summary.margin) for policy, speedup in summary.speedups.items() if policy != "draft"
    ]
    lines += [speedup_line(speedup, summary.margin) for speedup in summary.router_vs.values()]
    lines += [
        f"the router is {abs(gap) * 100:.1f} points {'less' if gap < 0 else 'more'} accurate than {rival} at equal "
        "seconds, on average"
        for rival, gap in summary.router_mean_gap.items()
    ]
    if summary.gain_share is not None:
        lines.append(f"the router captures {summary.gain_share:.0%} of the oracle's accuracy gain over chance")
    if summary.waste_ratio is not None:
        lines.append(
            f"at equal acceptance the router wastes {summary.waste_ratio:.2f} times as many escalations as rsd"
        )
    return lines


def _noninferior_lines(summary: Summary) -> list[str]:
    """What is shown of routers: that they lose less than the margin, and how fast they are then."""
    lines, within = [], f"less than {summary.margin * 100:g} points below target-only's accuracy"
    for policy, found in summary.noninferior.items():
        if policy not in summary.routers:
            continue
        if not found:
            lines.append(f"{policy}: no threshold is shown to be {within}")
            continue
        speeds = ", ".join(
            f"{m.speedup:.2f}× [{interval_text(m.interval)}] as fast as {m.reference.label}" for m in found.values()
        )
        matched = found[TARGET.policy]
        gap = f"{gap_text(matched)}, with 97.5 % confidence at least {matched.lowest_gap * 100:+.1f}"
        lines.append(f"{matched.entry.label} is shown to be {within}: {gap}; it is {speeds}")
    return lines


def gap_text(matched: Matched) -> str:
    """An accuracy gap with its interval, in points."""
    low, high = matched.gap_interval.low * 100, matched.gap_interval.high * 100
    return f"{matched.accuracy_gap * 100:+.1f} points [{low:+.1f}, {high:+.1f}]"


def speedup_line(speedup: Speedup, margin: float) -> str:
    """A speed-up at matched accuracy in words."""
    name = "target-only" if speedup.reference == "target" else speedup.reference
    line = (
        f"{speedup.policy}, its thresholds interpolated, is {speedup.speedup:.2f}× as fast as {name} "
        f"[{interval_text(speedup.interval)}] at {margin * 100:g} points below target-only's accuracy"
    )
    missed = 1.0 - speedup.reached_share
    return line + (f"; {missed:.0%} of draws miss that accuracy" if missed > 0.0 else "")


def interval_text(interval: Interval) -> str:
    """An interval of ratios: ``not reached`` where the policy misses the accuracy, ``no limit`` where its rival."""
    low = "not reached" if interval.low == 0.0 else f"{interval.low:.2f}"
    return f"{low}, " + (f"{interval.high:.2f}" if math.isfinite(interval.high) else "no limit")


def duration(seconds: float | None) -> str:
    """Seconds as one says them: milliseconds below one, and no more digits than mean something."""
    if seconds is None:
        return "–"
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1.0 else f"{seconds:.3g} s"


def number(value: float | None, form: str) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else format(value, form)
