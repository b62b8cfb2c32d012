"""Pictures of a router's quality: the gain curve and the reliability diagram."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from arbitrage.core.errors import MissingExtra
from arbitrage.training.replay import BASELINES, Scores, advantages, baseline, replay
from arbitrage.training.router_quality import reliability
from arbitrage.training.rows import Row

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingExtra("train") from error

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
"""The palette of Okabe and Ito, which colour-blind readers can distinguish; the router has the first colour."""


def save_pictures(rows: Sequence[Row], scores: Scores, folder: Path, *, margin: float = 0.0) -> None:
    """Write the pictures ``gain`` and ``reliability``, each as SVG and as PNG.

    Args:
        rows: Held-out rows.
        scores: The router's score of each row.
        folder: An existing folder.
        margin: An advantage up to this value counts as no gain.
    """
    by_rule = {"router": scores, **{name: baseline(rows, name) for name in BASELINES}}
    _save(gain_curve(rows, by_rule), folder, "gain")
    _save(reliability_diagram(rows, scores, margin=margin), folder, "reliability")


def gain_curve(rows: Sequence[Row], scores: Mapping[str, Scores]) -> Figure:
    """Draw the mean PRM score over the share of escalated steps, one line for each rule; chance is a straight line.

    Args:
        rows: Held-out rows.
        scores: Scores of each row by the name of the rule; the router first.
    """
    figure, axes = _axes("share of steps by the target", "mean PRM score of the kept steps")
    for number, (name, values) in enumerate(scores.items()):
        curve = replay(rows, values)
        style: dict[str, Any] = {"linewidth": 2.5, "zorder": 3} if number == 0 else {"linewidth": 1.2}
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(curve.escalation_rate, curve.score, label=name, color=colour, **style)
    draft = float(np.mean([row.draft_score for row in rows]))
    axes.plot(
        [0, 1], [draft, draft + float(advantages(rows).mean())], "--", color="#777777", label="chance", linewidth=1.2
    )
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def reliability_diagram(rows: Sequence[Row], scores: Scores, *, margin: float = 0.0) -> Figure:
    """Draw the share of rows with gain over the router's probability; a calibrated router follows the diagonal."""
    bins = reliability(scores, (advantages(rows) > margin).astype(np.int64))
    figure, axes = _axes("the router's probability of a better step by the target", "share of steps where it is better")
    axes.plot([0, 1], [0, 1], "--", color="#777777", linewidth=1.2)
    probabilities, gain_rates, counts = (np.array(column) for column in zip(*bins, strict=True))
    axes.plot(probabilities, gain_rates, color=COLOURS[0], linewidth=1.5)
    axes.scatter(probabilities, gain_rates, s=20 + 300 * counts / counts.sum(), color=COLOURS[0], alpha=0.7)
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


def _save(figure: Figure, folder: Path, name: str) -> None:
    for ending in ("svg", "png"):
        figure.savefig(folder / f"{name}.{ending}", dpi=150)
