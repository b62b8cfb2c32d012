"""Pieces of the report's page: small, escaped, without a template language."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final

from arbitrage.evaluation.figures.metrics import OUTSIDE, Row
from arbitrage.report.words import duration

ROLE_COLOURS: Final = {
    "target": "#AA4499",
    "draft": "#33A6B8",
    "router": "#0072B2",
    "prm": "#E69F00",
    "likelihood": "#009E73",
    OUTSIDE: "#BBBBBB",
}
"""Draft and target are coloured as in the trace browser."""
FURTHER_COLOURS: Final = ("#D55E00", "#CC79A7", "#56B4E9", "#8A6D00")


def role_colours(roles: Iterable[str]) -> dict[str, str]:
    """A colour for each model, and last for what is outside of them."""
    inside = dict.fromkeys(role for role in (*ROLE_COLOURS, *roles) if role != OUTSIDE)
    further = [role for role in inside if role not in ROLE_COLOURS]
    colours = {role: FURTHER_COLOURS[i % len(FURTHER_COLOURS)] for i, role in enumerate(further)} | ROLE_COLOURS
    return {role: colours[role] for role in (*inside, OUTSIDE)}


def table(head: Sequence[str], body: Iterable[Sequence[str]], *, label: str, best: Sequence[int] = ()) -> str:
    """A table that scrolls by itself where it is too wide.

    Args:
        head: Names of the columns.
        body: Cells as text.
        label: For those who cannot see it.
        best: Numbers of rows to stress.
    """
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    rows = "".join(
        ('<tr class="best">' if place in best else "<tr>")
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for place, cells in enumerate(body)
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">'
        f"<table><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def facts(pairs: Mapping[str, str]) -> str:
    """Names with their values."""
    rows = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in pairs.items())
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="facts"><table class="facts">{rows}</table></div>'
    )


def card(figure: str, meaning: str) -> str:
    """A figure that is read from afar."""
    return f'<div class="card"><b>{escape(figure)}</b><span>{escape(meaning)}</span></div>'


def note(text: str) -> str:
    """Something a reader must not miss."""
    return f'<p class="note" role="note">{escape(text)}</p>'


def time_bars(rows: Mapping[str, Row]) -> str:
    """Where the seconds of a problem go, one bar a row, on one scale.

    Args:
        rows: By what is written over the bar; each has seconds.
    """
    longest = max(row.seconds_per_problem or 0.0 for row in rows.values())
    roles = [role for row in rows.values() for role in row.role_s]
    colours = role_colours(roles)
    shown = [role for role in colours if role in roles]
    bars = []
    for name, row in rows.items():
        means = {role: row.role_s[role].mean for role in shown if role in row.role_s}
        parts = "".join(
            f'<i style="width:{100 * max(0.0, mean) / longest:.2f}%;background:{colours[role]}"></i>'
            for role, mean in means.items()
        )
        told = ", ".join(f"{role} {duration(mean)}" for role, mean in means.items())
        bars.append(
            f'<div><div class="bar-name"><span>{escape(name)}</span>'
            f"<b>{duration(row.seconds_per_problem)}</b></div>"
            f'<div class="bar" aria-hidden="true">{parts}</div><div class="quiet">{escape(told)}</div></div>'
        )
    legend = "".join(f'<li><i style="background:{colours[role]}"></i>{escape(role)}</li>' for role in shown)
    return f'<div class="bars">{"".join(bars)}</div><ul class="legend">{legend}</ul>'
