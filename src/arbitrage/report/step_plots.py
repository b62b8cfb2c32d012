"""The plots of a report over single steps: advantages, the router's reliability, acceptance by level and by step."""

import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Final

from arbitrage.core.types import Source
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.solutions import Graded, Solution
from arbitrage.report.drawing import (
    INK,
    Looks,
    Plot,
    axes_of,
    few_ticks,
    in_logarithmic_percent,
    in_percent,
    legend,
    line,
)
from arbitrage.report.highlights import WITH_ADVANTAGES
from arbitrage.report.words import short_label

MIN_STEPS: Final = 10
"""A share of fewer steps is too noisy to be drawn."""
MOST_TICKS: Final = 12
"""Labels for which an axis has room."""


def advantages(solutions: Graded, looks: Looks) -> Plot | None:
    """Histogram of s_t - s_d, over steps where one scorer scored both candidates."""
    values_of: dict[Entry, list[float]] = {}
    for entry, of_entry in solutions.items():
        if entry.group.method not in WITH_ADVANTAGES or values_of.get(entry.group):
            continue  # One threshold of each method: others hold many of the same steps.
        values = [step.advantage for solution in of_entry for step in solution.steps if step.advantage is not None]
        if len(values) >= MIN_STEPS:
            values_of[entry.group] = values
    if not values_of:
        return None
    figure, axes = axes_of("advantage of the target's step, s_t − s_d", "share of scored steps")
    edges = [-1.0 + 0.05 * i for i in range(41)]
    for method, values in values_of.items():
        weights, colour = [1.0 / len(values)] * len(values), looks[method]["color"]
        axes.hist(values, edges, weights=weights, histtype="step", label=method.policy, color=colour, linewidth=1.6)
    axes.axvline(0.0, color=INK, linewidth=0.8, linestyle=":")
    few_ticks(axes, 5)
    in_logarithmic_percent(axes)
    legend(figure, axes)
    return Plot(
        name="advantage",
        title="What a target step gains",
        caption="Scored by the PRM, at each policy's first threshold, on a logarithmic scale. For the oracle all "
        "steps; for the others the escalated steps, since only these have both candidates. Right of zero the target's "
        "step is better.",
        figure=figure,
    )


def router_reliability(solutions: Graded, looks: Looks) -> Plot | None:
    """Share of audited escalations with gain over the router's probability of a gain."""
    lines: dict[Entry, list[tuple[float, float, int]]] = {}
    routers = [entry for entry in solutions if entry.method.is_router and not entry.method.solver]
    for method in dict.fromkeys(entry.group for entry in routers):
        thresholds = [entry for entry in routers if entry.group == method]
        entry = min(thresholds, key=lambda entry: -1.0 if entry.threshold is None else entry.threshold)
        pairs = [
            (step.decided_on, step.advantage > 0.0)
            for solution in solutions[entry]
            for step in solution.steps
            if step.decided_on is not None and step.advantage is not None and step.source is Source.TARGET
        ]
        if bins := _bins(pairs):
            lines[entry] = bins
    if not lines:
        return None
    figure, axes = axes_of("the router's probability that the target is better", "share where it is better")
    axes.plot([0, 1], [0, 1], ":", color="#777777", linewidth=1)
    for entry, bins in lines.items():
        predicted, observed, counts = zip(*bins, strict=True)
        colour, areas = looks[entry.group]["color"], [20 + 300 * count / sum(counts) for count in counts]
        axes.plot(predicted, observed, color=colour, linewidth=1.5, label=short_label(entry))
        axes.scatter(predicted, observed, s=areas, color=colour, alpha=0.6)
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(-0.03, 1.03)
    in_percent(axes, "xy")
    legend(figure, axes)
    return Plot(
        name="router-reliability",
        title="Is the router's probability calibrated?",
        caption="Audited escalations at each router's lowest threshold, in tenths of the probability; the area of a "
        "dot is its number of steps. On the dotted line a probability equals the observed share. Steps at or below "
        "the threshold were not escalated, so they are missing. A router trained with a margin predicts 'better by "
        "more than the margin'.",
        figure=figure,
    )


def acceptance_by_level(solutions: Graded, shown: Sequence[Entry], looks: Looks) -> Plot | None:
    """Share of steps accepted over the difficulty of the problem."""
    levels = sorted({s.level for group in solutions.values() for s in group if s.level is not None}, key=_by_number)
    if len(levels) < 2:
        return None
    shares = {
        entry: [
            _accepted([step.source for s in solutions[entry] if s.level == level for step in s.steps])
            for level in levels
        ]
        for entry in shown
        if _has_both(solutions[entry])
    }
    return _acceptance(
        shares, looks, "level of the problem", levels, "acceptance-level", "Who writes at which difficulty"
    )


def acceptance_by_step(solutions: Graded, shown: Sequence[Entry], looks: Looks) -> Plot | None:
    """Share of steps accepted over the number of the step in its solution."""
    longest = max((len(s.steps) for entry in shown for s in solutions[entry]), default=0)
    shares = {
        entry: [
            _accepted([s.steps[index].source for s in solutions[entry] if index < len(s.steps)])
            for index in range(longest)
        ]
        for entry in shown
        if _has_both(solutions[entry])
    }
    drawn = [i for i in range(longest) if any(of_entry[i] is not None for of_entry in shares.values())]
    labels = [str(i + 1) for i in drawn]
    shares = {entry: [of_entry[i] for i in drawn] for entry, of_entry in shares.items()}
    return _acceptance(shares, looks, "number of the step", labels, "acceptance-step", "Who writes at which step")


def _acceptance(
    shares: Mapping[Entry, Sequence[float | None]], looks: Looks, x: str, labels: Sequence[str], name: str, title: str
) -> Plot | None:
    if not any(share is not None for of_entry in shares.values() for share in of_entry):
        return None
    figure, axes = axes_of(x, "share of steps accepted")
    for entry, of_entry in shares.items():
        points = [(float(number), share) for number, share in enumerate(of_entry) if share is not None]
        line(axes, looks[entry.group], points, short_label(entry))
    axes.set_xlim(-0.3, len(labels) - 0.7)
    axes.set_xticks(range(len(labels)), labels)
    if len(labels) > MOST_TICKS:
        few_ticks(axes, MOST_TICKS, integer=True)
        axes.xaxis.set_major_formatter(lambda value, _: labels[int(value)] if 0 <= value < len(labels) else "")
    axes.set_ylim(-0.03, 1.03)
    in_percent(axes, "y")
    legend(figure, axes)
    return Plot(
        name=name,
        title=title,
        caption="One threshold of each policy: its fastest at the target's accuracy, or else its most accurate. "
        f"Shares of fewer than {MIN_STEPS} steps are left out.",
        figure=figure,
    )


def _has_both(solutions: Sequence[Solution]) -> bool:
    """Whether both models wrote steps: the share of a single author is constant."""
    return len({step.source for solution in solutions for step in solution.steps}) > 1


def _accepted(sources: Sequence[Source]) -> float | None:
    return fmean(source is Source.DRAFT for source in sources) if len(sources) >= MIN_STEPS else None


def _bins(pairs: Sequence[tuple[float, bool]], num: int = 10) -> list[tuple[float, float, int]]:
    """(Mean probability, share of gains, number of steps) of each tenth of the probability with enough steps."""
    groups: dict[int, list[tuple[float, bool]]] = {}
    for probability, is_gain in pairs:
        groups.setdefault(min(num - 1, int(probability * num)), []).append((probability, is_gain))
    return [
        (fmean(probability for probability, _ in group), fmean(is_gain for _, is_gain in group), len(group))
        for _, group in sorted(groups.items())
        if len(group) >= MIN_STEPS
    ]


def _by_number(text: str) -> tuple[float, str]:
    return (float(text), "") if re.fullmatch(r"\d+(\.\d+)?", text) else (float("inf"), text)
