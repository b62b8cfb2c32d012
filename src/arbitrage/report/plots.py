"""The plots of a report over thresholds and entries: accuracy, seconds, waste."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from arbitrage.evaluation.figures.frontier import pareto
from arbitrage.evaluation.figures.metrics import MethodFigures
from arbitrage.evaluation.figures.summary import Evidence
from arbitrage.evaluation.running.entry import TARGET, Entry
from arbitrage.evaluation.running.solutions import Graded
from arbitrage.report.drawing import INK, Looks, Plot, axes_of, in_percent, legend, line, looks_of
from arbitrage.report.highlights import LARGE_POINTS
from arbitrage.report.markup import role_colours
from arbitrage.report.step_plots import acceptance_by_level, acceptance_by_step, advantages, router_reliability
from arbitrage.report.words import duration, short_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plots_of(solutions: Graded, evidence: Evidence) -> list[Plot]:
    """Every plot for which the solutions have figures.

    Args:
        solutions: Of all problems, by entry.
        evidence: Their figures.
    """
    figures, looks = evidence.figures, looks_of([one.entry for one in evidence.figures])
    shown = shown_entries(evidence, solutions)
    plots = [
        accuracy_by_acceptance(figures, looks),
        accuracy_by_seconds(figures, looks, evidence.summary.margin),
        waste_by_escalation(figures, looks),
        time_by_role(figures, shown),
        advantages(solutions, looks),
        router_reliability(solutions, looks),
        acceptance_by_level(solutions, shown, looks),
        acceptance_by_step(solutions, shown, looks),
    ]
    return [plot for plot in plots if plot is not None]


def shown_entries(evidence: Evidence, solutions: Graded) -> list[Entry]:
    """One entry of each method, for plots without room for all thresholds.

    It is the method's fastest threshold at the target's accuracy, or its most accurate one if none reaches it.
    """
    chosen: dict[Entry, MethodFigures] = {}
    for one in evidence.figures:
        earlier, fastest = chosen.get(one.entry.group), evidence.summary.of(one.entry.group).fastest
        if earlier is None:
            is_chosen = True
        elif fastest:
            is_chosen = one.entry == fastest.entry
        else:
            is_chosen = (one.accuracy or 0.0) > (earlier.accuracy or 0.0)
        if is_chosen:
            chosen[one.entry.group] = one
    return [one.entry for one in chosen.values() if one.entry in solutions]


def accuracy_by_acceptance(figures: Sequence[MethodFigures], looks: Looks) -> Plot | None:
    """Accuracy over the share of steps that the draft wrote."""
    curves = _curves(figures, lambda one: one.acceptance_rate)
    if not curves:
        return None
    figure, axes = axes_of("share of steps accepted from the draft", "problems solved")
    for method, points in curves.items():
        line(axes, looks[method], [(x, one.accuracy) for x, one in points], method.policy)
    in_percent(axes, "xy")
    legend(figure, axes)
    return Plot(
        name="accuracy-acceptance",
        title="Accuracy at equal acceptance",
        caption="Each point is a threshold. A higher point at the same share of accepted steps means that the target "
        "wrote the right steps. Random escalation is the baseline of every rule.",
        figure=figure,
    )


def accuracy_by_seconds(figures: Sequence[MethodFigures], looks: Looks, margin: float) -> Plot | None:
    """Accuracy over seconds per problem, with the target's accuracy and each method's Pareto frontier as lines."""
    curves = _curves(figures, lambda one: one.seconds_per_problem)
    if not curves:
        return None
    figure, axes = axes_of("seconds per problem", "problems solved")
    for method, points in curves.items():
        look = looks[method]
        ends = [(x, one.accuracy or 0.0) for x, one in points]
        size = 90 if method.method in LARGE_POINTS else 24
        x, y = zip(*ends, strict=True)
        axes.scatter(x, y, label=method.policy, s=size, color=look["color"], marker=look["marker"], zorder=3)
        if len(frontier := pareto(ends)) > 1:
            axes.plot(*zip(*frontier, strict=True), **{**look, "marker": None})
    _draw_target(axes, figures, margin)
    axes.set_xlim(left=0.0)
    in_percent(axes, "y")
    legend(figure, axes)
    return Plot(
        name="accuracy-seconds",
        title="Accuracy for time",
        caption="Each point is a threshold. The line joins those that no other threshold of the policy beats in both. "
        f"Black line: target-only's accuracy. Grey band: the margin of {margin * 100:g} points below it that counts as "
        "matched. Further left in that band is faster at the target's accuracy.",
        figure=figure,
    )


def _draw_target(axes: "Axes", figures: Sequence[MethodFigures], margin: float) -> None:
    for one in figures:
        if one.entry.method == TARGET.method and one.accuracy is not None:
            axes.axhline(one.accuracy, color=INK, linewidth=1)
            axes.axhspan(one.accuracy - margin, one.accuracy, color=INK, alpha=0.1, linewidth=0)


def waste_by_escalation(figures: Sequence[MethodFigures], looks: Looks) -> Plot | None:
    """Share of steps escalated without gain over share of steps escalated."""
    audited = [one for one in figures if one.wasted_step_share is not None and one.acceptance_rate is not None]
    # An upper bound wastes no step by definition: the plot needs another method.
    if all(one.entry.is_bound for one in audited):
        return None
    figure, axes = axes_of("share of steps escalated to the target", "share of steps escalated without gain")
    for method in dict.fromkeys(one.entry.group for one in audited):
        own = [one for one in audited if one.entry.group == method]
        points = sorted((1.0 - (one.acceptance_rate or 0.0), one.wasted_step_share) for one in own)
        line(axes, looks[method], points, method.policy)
    limit = max(1.0 - (one.acceptance_rate or 0.0) for one in audited)
    axes.plot([0, limit], [0, limit], ":", color="#777777", linewidth=1)
    top = max(one.wasted_step_share or 0.0 for one in audited)
    axes.set_ylim(-0.02 * top, max(0.05, 1.25 * top))
    axes.set_xlim(0.0, min(1.0, 1.05 * limit))
    in_percent(axes, "xy")
    legend(figure, axes)
    return Plot(
        name="waste-escalation",
        title="Waste",
        caption="Escalations whose target step the PRM scored no higher than the draft's. Dotted line: every "
        "escalation wasted. Lower is better.",
        figure=figure,
    )


def time_by_role(figures: Sequence[MethodFigures], shown: Sequence[Entry]) -> Plot | None:
    """Seconds by role as stacked bars, for one entry of each method."""
    by_entry = {one.entry: one for one in figures}
    bars = {entry: by_entry[entry] for entry in shown if by_entry[entry].role_s}
    if not bars:
        return None
    ordered = sorted(bars, key=lambda entry: bars[entry].seconds_per_problem or 0.0, reverse=True)
    colours = role_colours(role for entry in ordered for role in bars[entry].role_s)
    figure, axes = axes_of("mean seconds per problem", "", height=0.8 + 0.34 * len(ordered))
    heights, lefts = range(len(ordered)), [0.0] * len(ordered)
    for role, colour in colours.items():
        spreads = [bars[entry].role_s.get(role) for entry in ordered]
        if not any(spreads):
            continue
        widths = [spread.mean if spread else 0.0 for spread in spreads]
        axes.barh(heights, widths, left=lefts, color=colour, label=role, edgecolor="white", linewidth=0.6)
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    for height, total in zip(heights, lefts, strict=True):
        axes.text(total, height, f" {duration(total)}", va="center", fontsize=9, color=INK)
    axes.set_yticks(heights, [short_label(entry) for entry in ordered])
    axes.set_xlim(0.0, 1.15 * max(lefts))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    legend(figure, axes)
    return Plot(
        name="time-role",
        title="Where the time goes",
        caption="One threshold of each policy: its fastest at the target's accuracy, or else its most accurate. "
        "Calls that only measure are left out; 'outside' is the time outside model calls.",
        figure=figure,
    )


def _curves(
    figures: Sequence[MethodFigures], x: Callable[[MethodFigures], float | None]
) -> dict[Entry, list[tuple[float, MethodFigures]]]:
    """Figures with an accuracy and ``x``, by method and in order of ``x``."""
    curves: dict[Entry, list[tuple[float, MethodFigures]]] = {}
    for one in figures:
        value = x(one)
        if value is not None and one.accuracy is not None:
            curves.setdefault(one.entry.group, []).append((value, one))
    return {method: sorted(points, key=lambda point: point[0]) for method, points in curves.items()}
