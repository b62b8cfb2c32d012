"""What an evaluation looks like: one picture a question, told apart by colour-blind readers too."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

from arbitrage.core.errors import MissingExtra
from arbitrage.core.types import Source
from arbitrage.evaluation.figures.frontier import pareto
from arbitrage.evaluation.figures.metrics import Row
from arbitrage.evaluation.figures.summary import Evidence
from arbitrage.evaluation.running.entry import TARGET, Entry
from arbitrage.evaluation.running.solutions import Graded, Solution
from arbitrage.policies.table import Standing
from arbitrage.report.markup import role_colours
from arbitrage.report.words import duration

try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, NullFormatter
except ImportError as error:
    raise MissingExtra("report") from error

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F4FC9", "#8A6D00")
"""Okabe and Ito's, with a violet and a brown for their black and yellow, which are ink and too pale here."""
MARKERS: Final = "osD^vPX<>*"
INK: Final = "#222222"
FIXED_LOOK: Final[Mapping[str, Mapping[str, Any]]] = {
    "target": {"color": INK, "marker": "s"},
    "draft": {"color": "#777777", "marker": "o"},
    "random": {"color": "#999999", "marker": ".", "linestyle": "--"},
}
"""What one compares with is grey."""
LINES: Final = ("-", "--", ":", "-.")
MIN_STEPS: Final = 10
"""A share of fewer steps is not drawn: it would be noise."""

Looks = Mapping[Entry, Mapping[str, Any]]
"""By method without its threshold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A picture with what it says."""

    name: str
    title: str
    caption: str
    figure: Figure

    def svg(self) -> str:
        """The picture as an SVG element, with ids of its own, so that many fit on one page."""
        buffer = io.StringIO()
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": self.name}):
            self.figure.savefig(buffer, format="svg", metadata={"Date": None})
        text = buffer.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r'\bid="', f'id="{self.name}-', text)
        text = re.sub(r"url\(#", f"url(#{self.name}-", text)
        return re.sub(r'href="#', f'href="#{self.name}-', text)

    def png(self, path: Any) -> None:
        """Write the picture as PNG."""
        self.figure.savefig(path, dpi=200)


def plots_of(solutions: Graded, evidence: Evidence) -> list[Plot]:
    """Every picture that the solutions have figures for.

    Args:
        solutions: Of all problems, by entry.
        evidence: Their figures.
    """
    rows, looks = evidence.rows, looks_of([row.entry for row in evidence.rows])
    shown = shown_entries(evidence, solutions)
    made = [
        accuracy_by_acceptance(rows, looks),
        accuracy_by_seconds(rows, looks, evidence.summary.margin),
        waste_by_escalation(rows, looks),
        time_by_role(rows, shown),
        advantages(solutions, looks),
        router_reliability(solutions, looks),
        acceptance_by_level(solutions, shown, looks),
        acceptance_by_step(solutions, shown, looks),
    ]
    return [plot for plot in made if plot is not None]


def shown_entries(evidence: Evidence, solutions: Graded) -> list[Entry]:
    """One entry of each policy, where a picture has no room for all thresholds.

    It is the fastest one at the target's accuracy, or where none reaches it, the most accurate one.
    """
    chosen: dict[Entry, Entry] = {}
    for row in evidence.rows:
        group = row.entry.group
        known, best = chosen.get(group), evidence.summary.vs_target.get(group.policy)
        if best:
            chosen[group] = best.entry
        elif known is None or (row.accuracy or 0.0) > (_row(evidence.rows, known).accuracy or 0.0):
            chosen[group] = row.entry
    return [entry for entry in chosen.values() if entry in solutions]


def accuracy_by_acceptance(rows: Sequence[Row], looks: Looks) -> Plot | None:
    """Accuracy over the share of steps that the draft wrote."""
    found = _curves(rows, lambda row: row.acceptance_rate)
    if not found:
        return None
    figure, axes = _axes("share of steps accepted from the draft", "problems solved")
    for group, points in found.items():
        _line(axes, looks[group], [(x, row.accuracy) for x, row in points], group.policy)
    _percent(axes, "xy")
    _legend(figure, axes)
    return Plot(
        name="accuracy-acceptance",
        title="Accuracy at equal acceptance",
        caption="Each point is a threshold. Higher at the same share of accepted steps means that the right steps were "
        "given to the target. Random escalation is what any rule must beat.",
        figure=figure,
    )


def accuracy_by_seconds(rows: Sequence[Row], looks: Looks, margin: float) -> Plot | None:
    """Accuracy over seconds a problem, with the target's accuracy as a line and each policy's frontier."""
    found = _curves(rows, lambda row: row.seconds_per_problem)
    if not found:
        return None
    figure, axes = _axes("seconds per problem", "problems solved")
    for group, points in found.items():
        look = looks[group]
        ends = [(x, row.accuracy or 0.0) for x, row in points]
        size = 90 if group.method.name in ("target", "speculative") else 24
        x, y = zip(*ends, strict=True)
        axes.scatter(x, y, label=group.policy, s=size, color=look["color"], marker=look["marker"], zorder=3)
        if len(frontier := pareto(ends)) > 1:
            axes.plot(*zip(*frontier, strict=True), **{**look, "marker": None})
    for row in rows:
        if row.entry.method == TARGET.method and row.accuracy is not None:
            axes.axhline(row.accuracy, color=INK, linewidth=1)
            axes.axhspan(row.accuracy - margin, row.accuracy, color=INK, alpha=0.1, linewidth=0)
    axes.set_xlim(left=0.0)
    _percent(axes, "y")
    _legend(figure, axes)
    return Plot(
        name="accuracy-seconds",
        title="Accuracy for time",
        caption="Each point is a threshold; the line joins those that no other threshold of the policy beats in both. "
        f"Black: target-only's accuracy, and the margin of {margin * 100:g} points below it that counts "
        "as matched. Further left on that band is faster at the target's accuracy.",
        figure=figure,
    )


def waste_by_escalation(rows: Sequence[Row], looks: Looks) -> Plot | None:
    """Steps regenerated without gain over steps regenerated."""
    audited = [row for row in rows if row.wasted_step_share is not None and row.acceptance_rate is not None]
    # The oracle wastes nothing by definition: alone it says nothing.
    if all(row.entry.method.standing is Standing.BOUND for row in audited):
        return None
    figure, axes = _axes("share of steps escalated to the target", "share of steps escalated without gain")
    groups = dict.fromkeys(row.entry.group for row in audited)
    for group in groups:
        members = [row for row in audited if row.entry.group == group]
        points = sorted((1.0 - (row.acceptance_rate or 0.0), row.wasted_step_share) for row in members)
        _line(axes, looks[group], points, group.policy)
    limit = max(1.0 - (row.acceptance_rate or 0.0) for row in audited)
    axes.plot([0, limit], [0, limit], ":", color="#777777", linewidth=1)
    top = max(row.wasted_step_share or 0.0 for row in audited)
    axes.set_ylim(-0.02 * top, max(0.05, 1.25 * top))
    axes.set_xlim(0.0, min(1.0, 1.05 * limit))
    _percent(axes, "xy")
    _legend(figure, axes)
    return Plot(
        name="waste-escalation",
        title="Waste",
        caption="Escalations whose target step scored no better than the draft's, by the PRM. Dotted: every escalation "
        "wasted. Lower is better.",
        figure=figure,
    )


def time_by_role(rows: Sequence[Row], shown: Sequence[Entry]) -> Plot | None:
    """Where the seconds go: stacked bars of one entry a policy."""
    bars = {entry: row for entry in shown if (row := _row(rows, entry)).role_s}
    if not bars:
        return None
    ordered = sorted(bars, key=lambda entry: bars[entry].seconds_per_problem or 0.0, reverse=True)
    colours = role_colours(role for entry in ordered for role in bars[entry].role_s)
    figure, axes = _axes("mean seconds per problem", "", height=0.8 + 0.34 * len(ordered))
    places, lefts = range(len(ordered)), [0.0] * len(ordered)
    for role, colour in colours.items():
        spreads = [bars[entry].role_s.get(role) for entry in ordered]
        if not any(spreads):
            continue
        widths = [spread.mean if spread else 0.0 for spread in spreads]
        axes.barh(places, widths, left=lefts, color=colour, label=role, edgecolor="white", linewidth=0.6)
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    for place, total in zip(places, lefts, strict=True):
        axes.text(total, place, f" {duration(total)}", va="center", fontsize=9, color=INK)
    axes.set_yticks(places, [entry.label for entry in ordered])
    axes.set_xlim(0.0, 1.15 * max(lefts))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    _legend(figure, axes)
    return Plot(
        name="time-role",
        title="Where the time goes",
        caption="One threshold of each policy: its fastest at the target's accuracy, or else its most accurate. "
        "Calls that only measure are left out; 'outside' is what no model call explains.",
        figure=figure,
    )


def advantages(solutions: Graded, looks: Looks) -> Plot | None:
    """Histogram of s_t - s_d where one scorer has seen both candidates."""
    values_of: dict[Entry, list[float]] = {}
    for entry, solved in solutions.items():
        if entry.method.name not in ("oracle", "router", "rsd", "random") or values_of.get(entry.group):
            continue  # One threshold of each method: the same steps come again at others.
        values = [step.advantage for solution in solved for step in solution.steps if step.advantage is not None]
        if len(values) >= MIN_STEPS:
            values_of[entry.group] = values
    if not values_of:
        return None
    figure, axes = _axes("advantage of the target's step, s_t − s_d", "share of scored steps")
    edges = [-1.0 + 0.05 * i for i in range(41)]
    for group, values in values_of.items():
        weights, colour = [1.0 / len(values)] * len(values), looks[group]["color"]
        axes.hist(values, edges, weights=weights, histtype="step", label=group.policy, color=colour, linewidth=1.6)
    axes.set_yscale("log")
    axes.axvline(0.0, color=INK, linewidth=0.8, linestyle=":")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(_as_percent)
    axes.yaxis.set_minor_formatter(NullFormatter())
    _legend(figure, axes)
    return Plot(
        name="advantage",
        title="What a target step gains",
        caption="By the PRM, at each policy's first threshold, on a logarithmic scale. For the oracle all steps; for "
        "the others those that they escalated, since only there both candidates exist. Right of zero the target was "
        "better.",
        figure=figure,
    )


def router_reliability(solutions: Graded, looks: Looks) -> Plot | None:
    """Share of audited escalations with gain over the router's probability of it."""
    lines: dict[Entry, list[tuple[float, float, int]]] = {}
    routers = [entry for entry in solutions if entry.method.is_router and not entry.method.solver]
    for group in dict.fromkeys(entry.group for entry in routers):
        members = [entry for entry in routers if entry.group == group]
        entry = min(members, key=lambda entry: -1.0 if entry.threshold is None else entry.threshold)
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
    figure, axes = _axes("the router's probability that the target is better", "share where it is better")
    axes.plot([0, 1], [0, 1], ":", color="#777777", linewidth=1)
    for entry, bins in lines.items():
        said, shown, counts = zip(*bins, strict=True)
        look = looks[entry.group]
        axes.plot(said, shown, color=look["color"], linewidth=1.5, label=entry.label)
        axes.scatter(
            said, shown, s=[20 + 300 * count / sum(counts) for count in counts], color=look["color"], alpha=0.6
        )
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(-0.03, 1.03)
    _percent(axes, "xy")
    _legend(figure, axes)
    return Plot(
        name="router-reliability",
        title="Does the router's probability mean what it says?",
        caption="Audited escalations at each router's lowest threshold, in tenths of the probability; the area of a "
        "dot is its number of steps. On the dotted line it does. Steps at or below the threshold were not escalated, "
        "so nothing is known of them. A router that was trained with a margin means 'better by more than that'.",
        figure=figure,
    )


def acceptance_by_level(solutions: Graded, shown: Sequence[Entry], looks: Looks) -> Plot | None:
    """Share of steps accepted over the difficulty of the problem."""
    levels = sorted({s.level for group in solutions.values() for s in group if s.level is not None}, key=_by_number)
    if len(levels) < 2:
        return None
    found = {
        entry: [
            _accepted([step.source for s in solutions[entry] if s.level == level for step in s.steps])
            for level in levels
        ]
        for entry in shown
        if _has_both(solutions[entry])
    }
    return _acceptance(
        found, looks, "level of the problem", levels, "acceptance-level", "Who writes at which difficulty"
    )


def acceptance_by_step(solutions: Graded, shown: Sequence[Entry], looks: Looks) -> Plot | None:
    """Share of steps accepted over the place of the step in the solution."""
    counts = [len(s.steps) for entry in shown for s in solutions[entry]]
    longest = max(counts, default=0)
    found = {
        entry: [
            _accepted([s.steps[index].source for s in solutions[entry] if index < len(s.steps)])
            for index in range(longest)
        ]
        for entry in shown
        if _has_both(solutions[entry])
    }
    known = [i for i in range(longest) if any(shares[i] is not None for shares in found.values())]
    labels = [str(i + 1) for i in known]
    found = {entry: [shares[i] for i in known] for entry, shares in found.items()}
    return _acceptance(found, looks, "number of the step", labels, "acceptance-step", "Who writes at which step")


def _acceptance(
    found: Mapping[Entry, Sequence[float | None]], looks: Looks, x: str, labels: Sequence[str], name: str, title: str
) -> Plot | None:
    if not any(share is not None for shares in found.values() for share in shares):
        return None
    figure, axes = _axes(x, "share of steps accepted")
    for entry, shares in found.items():
        points = [(place, share) for place, share in enumerate(shares) if share is not None]
        _line(axes, looks[entry.group], points, entry.label)
    axes.set_xlim(-0.3, len(labels) - 0.7)
    axes.set_xticks(range(len(labels)), labels)
    if len(labels) > 12:
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        axes.xaxis.set_major_formatter(lambda value, _: labels[int(value)] if 0 <= value < len(labels) else "")
    axes.set_ylim(-0.03, 1.03)
    _percent(axes, "y")
    _legend(figure, axes)
    return Plot(
        name=name,
        title=title,
        caption="One threshold of each policy: its fastest at the target's accuracy, or else its most accurate. "
        f"Shares of fewer than {MIN_STEPS} steps are left out.",
        figure=figure,
    )


def _has_both(solutions: Sequence[Solution]) -> bool:
    """Whether both models wrote steps: where one wrote all, a share says nothing."""
    return len({step.source for solution in solutions for step in solution.steps}) > 1


def _accepted(sources: Sequence[Source]) -> float | None:
    return fmean(source is Source.DRAFT for source in sources) if len(sources) >= MIN_STEPS else None


def _bins(pairs: Sequence[tuple[float, bool]], num: int = 10) -> list[tuple[float, float, int]]:
    """(Mean probability, share of truths, count) of each tenth that has enough of both."""
    groups: dict[int, list[tuple[float, bool]]] = {}
    for value, truth in pairs:
        groups.setdefault(min(num - 1, int(value * num)), []).append((value, truth))
    return [
        (fmean(value for value, _ in group), fmean(truth for _, truth in group), len(group))
        for _, group in sorted(groups.items())
        if len(group) >= MIN_STEPS
    ]


def _curves(rows: Sequence[Row], x: Callable[[Row], float | None]) -> dict[Entry, list[tuple[float, Row]]]:
    """Rows with an accuracy and ``x``, by policy and in order of ``x``."""
    found: dict[Entry, list[tuple[float, Row]]] = {}
    for row in rows:
        value = x(row)
        if value is not None and row.accuracy is not None:
            found.setdefault(row.entry.group, []).append((value, row))
    return {group: sorted(points, key=lambda point: point[0]) for group, points in found.items()}


def _row(rows: Sequence[Row], entry: Entry) -> Row:
    return next(row for row in rows if row.entry == entry)


def _by_number(text: str) -> tuple[float, str]:
    return (float(text), "") if re.fullmatch(r"\d+(\.\d+)?", text) else (float("inf"), text)


def looks_of(entries: Sequence[Entry]) -> Looks:
    """Colour, marker and line of each method, the same in all pictures of a page.

    The router stands out, and baselines are grey. A method has one colour in all runs, and each run a line of its own.
    """
    names = list(dict.fromkeys(entry.method.name for entry in entries))
    coloured = [name for name in ("router", *names) if name in names and name not in FIXED_LOOK]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(coloured))}
    runs = list(dict.fromkeys(entry.run for entry in entries))
    looks: dict[Entry, dict[str, Any]] = {}
    for entry in entries:
        name = entry.method.name
        number = numbers.get(name, 0)
        plain = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        dashes = LINES[runs.index(entry.run) % len(LINES)]
        width = 2.6 if name == "router" else 1.3
        looks[entry.group] = {"linewidth": width, "linestyle": dashes, **plain, **FIXED_LOOK.get(name, {})}
    return looks


def _line(axes: Axes, look: Mapping[str, Any], points: Sequence[tuple[float, float | None]], label: str) -> None:
    x, y = [point[0] for point in points], [float("nan") if point[1] is None else point[1] for point in points]
    axes.plot(x, y, markersize=5, label=label, **look)


def _axes(x: str, y: str, height: float = 3.4) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.4, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _percent(axes: Axes, which: str) -> None:
    for name in which:
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_major_formatter(_as_percent)


def _as_percent(value: float, _: object = None) -> str:
    """A share as a tick is labelled: rounded only where the sum that made it was not exact."""
    return f"{100 * value:.6g}%"


def _legend(figure: Figure, axes: Axes) -> None:
    """Beside the picture, where it hides no point."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
