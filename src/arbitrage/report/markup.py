"""Pieces of the report's page as escaped HTML, without a template language."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Final

from arbitrage.evaluation.figures.metrics import OUTSIDE, MethodFigures
from arbitrage.report.columns import Table
from arbitrage.report.words import duration

ROLE_COLOURS: Final = {
    "target": "#AA4499",
    "draft": "#33A6B8",
    "router": "#0072B2",
    "prm": "#E69F00",
    "likelihood": "#009E73",
    OUTSIDE: "#BBBBBB",
}
"""Colours of models by role; draft and target have the same ones in the trace browser."""
FURTHER_COLOURS: Final = ("#D55E00", "#CC79A7", "#56B4E9", "#8A6D00")


def role_colours(roles: Iterable[str]) -> dict[str, str]:
    """A colour for each role; seconds outside models come last."""
    models = dict.fromkeys(role for role in (*ROLE_COLOURS, *roles) if role != OUTSIDE)
    further = [role for role in models if role not in ROLE_COLOURS]
    colours = {role: FURTHER_COLOURS[i % len(FURTHER_COLOURS)] for i, role in enumerate(further)} | ROLE_COLOURS
    return {role: colours[role] for role in (*models, OUTSIDE)}


def table(content: Table) -> str:
    """A table that scrolls sideways where the page is too narrow."""
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in content.head)
    rows = "".join(
        ('<tr class="best">' if number in content.stressed else "<tr>")
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for number, cells in enumerate(content.body)
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(content.title)}">'
        f"<table><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def facts(pairs: Mapping[str, str]) -> str:
    """Names with their values."""
    rows = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in pairs.items())
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="facts"><table class="facts">{rows}</table></div>'
    )


def card(figure: str, meaning: str) -> str:
    """A large figure with its meaning."""
    return f'<div class="card"><b>{escape(figure)}</b><span>{escape(meaning)}</span></div>'


def note(text: str) -> str:
    """A warning."""
    return f'<p class="note" role="note">{escape(text)}</p>'


def intro(text: str) -> str:
    """An explanation in small letters."""
    return f'<p class="about">{escape(text)}</p>'


def section(name: str, title: str, content: str) -> str:
    """A section with its heading; the name is its id."""
    heading = f'<h2 id="{name}-title">{escape(title)}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title">{heading}{content}</section>'


def time_bars(figures: Mapping[str, MethodFigures]) -> str:
    """Seconds of a problem by role, one bar for each entry, on one scale.

    Args:
        figures: By the text above the bar; each has seconds.
    """
    longest = max(one.seconds_per_problem or 0.0 for one in figures.values())
    roles = [role for one in figures.values() for role in one.role_s]
    colours = role_colours(roles)
    shown = [role for role in colours if role in roles]
    bars = []
    for name, one in figures.items():
        means = {role: one.role_s[role].mean for role in shown if role in one.role_s}
        parts = "".join(
            f'<i style="width:{100 * max(0.0, mean) / longest:.2f}%;background:{colours[role]}"></i>'
            for role, mean in means.items()
        )
        words = ", ".join(f"{role} {duration(mean)}" for role, mean in means.items())
        bars.append(
            f'<div><div class="bar-name"><span>{escape(name)}</span>'
            f"<b>{duration(one.seconds_per_problem)}</b></div>"
            f'<div class="bar" aria-hidden="true">{parts}</div><div class="quiet">{escape(words)}</div></div>'
        )
    legend = "".join(f'<li><i style="background:{colours[role]}"></i>{escape(role)}</li>' for role in shown)
    return f'<div class="bars">{"".join(bars)}</div><ul class="legend">{legend}</ul>'
