"""What a judgement looks like: how much gain at which escalation rate, and whether probabilities mean what they say."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from arbitrage.core.errors import MissingExtra
from arbitrage.training.judge import reliability
from arbitrage.training.replay import Scores, advantages, replay
from arbitrage.training.rows import Row

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingExtra("train") from error

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
"""Okabe and Ito's, told apart by colour-blind readers too; the router has the first."""


def gain_curve(rows: Sequence[Row], scores: Mapping[str, Scores]) -> Figure:
    """Mean PRM score over the share of steps escalated, one line a rule, and chance as the straight line.

    Args:
        rows: Held-out rows.
        scores: By name of the rule; the router first.
    """
    figure, axes = _axes("share of steps by the target", "mean PRM score of the kept steps")
    for number, (name, values) in enumerate(scores.items()):
        curve = replay(rows, values)
        style: dict[str, Any] = {"linewidth": 2.5, "zorder": 3} if number == 0 else {"linewidth": 1.2}
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(curve.escalation_rate, curve.score, label=name, color=colour, **style)
    draft = float(np.mean([row.draft.score for row in rows]))
    axes.plot(
        [0, 1], [draft, draft + float(advantages(rows).mean())], "--", color="#777777", label="chance", linewidth=1.2
    )
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def reliability_diagram(rows: Sequence[Row], scores: Scores, *, margin: float = 0.0) -> Figure:
    """Share of rows with gain over the router's probability; on the diagonal it means what it says."""
    bins = reliability(scores, (advantages(rows) > margin).astype(np.int64))
    figure, axes = _axes("the router's probability of a better step by the target", "share of steps where it is better")
    axes.plot([0, 1], [0, 1], "--", color="#777777", linewidth=1.2)
    said, shown, counts = (np.array(column) for column in zip(*bins, strict=True))
    axes.plot(said, shown, color=COLOURS[0], linewidth=1.5)
    axes.scatter(said, shown, s=20 + 300 * counts / counts.sum(), color=COLOURS[0], alpha=0.7)
    for x, y, count in bins:
        axes.annotate(f"{count}", (x, y), textcoords="offset points", xytext=(6, -10), fontsize=7, color="#555555")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    return figure


def _axes(x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    return figure, axes


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a picture as SVG and as PNG."""
    for ending in ("svg", "png"):
        figure.savefig(folder / f"{name}.{ending}", dpi=150)
