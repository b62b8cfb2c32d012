"""Plots as values, and how methods look in them; colours are distinct for colour-blind readers too."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from arbitrage.core.errors import MissingExtra
from arbitrage.evaluation.running.entry import Entry
from arbitrage.report.highlights import GREY, SUBJECT

try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, NullFormatter
except ImportError as error:
    raise MissingExtra("report") from error

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F4FC9", "#8A6D00")
"""Okabe and Ito's palette, with violet and brown in place of black (used for text) and yellow (too pale on white)."""
MARKERS: Final = "osD^vPX<>*"
INK: Final = "#222222"
LINES: Final = ("-", "--", ":", "-.")

Looks = Mapping[Entry, Mapping[str, Any]]
"""Colour, marker and line by method, without its threshold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A plot with its title and caption."""

    name: str
    title: str
    caption: str
    figure: Figure

    def svg(self) -> str:
        """The plot as an SVG element; its ids are prefixed by its name, so that a page can hold many."""
        buffer = io.StringIO()
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": self.name}):
            self.figure.savefig(buffer, format="svg", metadata={"Date": None})
        text = buffer.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r'\bid="', f'id="{self.name}-', text)
        text = re.sub(r"url\(#", f"url(#{self.name}-", text)
        return re.sub(r'href="#', f'href="#{self.name}-', text)

    def write(self, folder: Path) -> None:
        """Write the plot as SVG and PNG under its name."""
        (folder / f"{self.name}.svg").write_text(self.svg())
        self.figure.savefig(folder / f"{self.name}.png", dpi=200)


def looks_of(entries: Sequence[Entry]) -> Looks:
    """Colour, marker and line of each method, the same in all plots of a page.

    The subject's line is wide, and baselines are grey. A method has the same colour in all runs; each run has a line
    style of its own.
    """
    methods = list(dict.fromkeys(entry.group.method for entry in entries))
    coloured = [method for method in methods if method not in GREY]
    coloured.sort(key=lambda method: method != SUBJECT.method)  # The subject has the first colour; the sort is stable.
    numbers = {method: number for number, method in enumerate(coloured)}
    runs = list(dict.fromkeys(entry.run for entry in entries))
    looks: dict[Entry, dict[str, Any]] = {}
    for group in dict.fromkeys(entry.group for entry in entries):
        number = numbers.get(group.method, 0)
        looks[group] = {
            "linewidth": 2.6 if group.method == SUBJECT.method else 1.3,
            "linestyle": LINES[runs.index(group.run) % len(LINES)],
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
            **GREY.get(group.method, {}),
        }
    return looks


def line(axes: Axes, look: Mapping[str, Any], points: Sequence[tuple[float, float | None]], label: str) -> None:
    """Draw a method's line; a point without a value leaves a gap."""
    x, y = [point[0] for point in points], [float("nan") if point[1] is None else point[1] for point in points]
    axes.plot(x, y, markersize=5, label=label, **look)


def axes_of(x: str, y: str, height: float = 3.4) -> tuple[Figure, Axes]:
    """An empty figure with the names of its axes."""
    figure = Figure(figsize=(5.4, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def in_percent(axes: Axes, which: str) -> None:
    """Label the ticks of the axes named in ``which`` (``x``, ``y`` or ``xy``) in percent."""
    for name in which:
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_major_formatter(percent)


def in_logarithmic_percent(axes: Axes) -> None:
    """Scale the y axis logarithmically and label its ticks in percent."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(percent)
    axes.yaxis.set_minor_formatter(NullFormatter())


def few_ticks(axes: Axes, most: int, *, integer: bool = False) -> None:
    """Limit the ticks of the x axis."""
    axes.xaxis.set_major_locator(MaxNLocator(most, integer=integer))


def percent(value: float, _: object = None) -> str:
    """A share as a tick's label; six digits hide rounding errors of the tick's position."""
    return f"{100 * value:.6g}%"


def legend(figure: Figure, axes: Axes) -> None:
    """Add a legend beside the plot, where it hides no point."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
