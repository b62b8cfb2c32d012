"""The report's page: one file that opens from disk, written from traces alone."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from arbitrage.evaluation.figures.compare import Difference, tagged
from arbitrage.evaluation.figures.summary import Evidence, Summary
from arbitrage.evaluation.running.entry import TARGET
from arbitrage.evaluation.running.folder import Run
from arbitrage.report.browse import embedded
from arbitrage.report.drawing import Plot, looks_of
from arbitrage.report.export import plain
from arbitrage.report.glance import glance
from arbitrage.report.highlights import headline
from arbitrage.report.markup import intro, note, section, table
from arbitrage.report.measurement import measurement_of, warnings_of
from arbitrage.report.plots import accuracy_by_acceptance, accuracy_by_seconds, plots_of
from arbitrage.report.tables import differences_table, figures_table, routers_table, speed_table
from arbitrage.report.words import run_line


def write_report(run: Run, evidence: Evidence, folder: Path, page: Path | None = None) -> Path:
    """Write plots and the page of one run.

    Args:
        run: The run.
        evidence: Its figures.
        folder: The folder of the plots.
        page: The page's path; None for ``report.html`` in the folder.

    Returns:
        The page's path.
    """
    plots = plots_of(run.solutions, evidence)
    (folder / "plots").mkdir(exist_ok=True)
    for plot in plots:
        plot.write(folder / "plots")
    page = page or folder / "report.html"
    page.write_text(run_page(run, evidence, plots))
    return page


def run_page(run: Run, evidence: Evidence, plots: Sequence[Plot]) -> str:
    """The page of one run."""
    summary = evidence.summary
    fastest = {m: matched.entry for m in summary.methods if (matched := summary.of(m).fastest)}
    top = headline(summary)
    left = fastest[top] if top in fastest else list(run.solutions)[-1]
    sections = section("speed", "Speed at the target's accuracy", speed_section(summary))
    sections += section("rows", "All policies", table(figures_table(evidence.figures, fastest.values())))
    return _page(
        title=f"Arbitrage evaluation: {run.name}",
        subtitle=run_line(run),
        notes=warnings_of(run),
        glance=glance(evidence),
        sections=sections,
        plots=plots,
        method=measurement_of(run, summary),
        browser=embedded({"": run}) | {"left": left.label, "right": TARGET.label},
        num_problems=len(run.problems),
    )


def comparison_page(
    runs: Mapping[str, Run], evidence: Mapping[str, Evidence], differences: Sequence[Difference], merged: Evidence
) -> str:
    """The page of several runs on the same problems.

    Args:
        runs: By name.
        evidence: Figures of each run.
        differences: Between the runs, by entry.
        merged: Figures of all runs together, each entry with its run's name.
    """
    looks = looks_of([one.entry for one in merged.figures])
    plots = [
        accuracy_by_seconds(merged.figures, looks, merged.summary.margin),
        accuracy_by_acceptance(merged.figures, looks),
    ]
    shared = (
        table(differences_table(differences))
        if differences
        else note("The runs share no policy at the same threshold, or nothing could be graded.")
    )
    sections = section("differences", "The same policy in both runs", shared)
    sections += section("rows", "All policies", table(figures_table(merged.figures)))
    first, second, *_ = runs
    entry = differences[0].entry if differences else next(iter(runs[first].solutions))
    return _page(
        title="Arbitrage comparison: " + ", ".join(runs),
        subtitle=f"{len(runs)} runs on the same {len(runs[first].problems)} problems.",
        notes="".join(map(warnings_of, runs.values())),
        glance="".join(f"<h3>{escape(name)}</h3>{glance(evidence[name])}" for name in runs),
        sections=sections,
        plots=[plot for plot in plots if plot is not None],
        method="".join(f"<h3>{escape(name)}</h3>{measurement_of(run, merged.summary)}" for name, run in runs.items()),
        browser=embedded(runs) | {"left": tagged(entry, first).label, "right": tagged(entry, second).label},
        num_problems=len(runs[first].problems),
    )


def speed_section(summary: Summary) -> str:
    """Speed at the target's accuracy: its definition, all methods over target-only, and routers over others."""
    methods, routers = speed_table(summary), routers_table(summary)
    if not methods.body:
        return note("No policy reaches the target's accuracy minus the margin, or target-only did not run.")
    points = summary.margin * 100
    definition = (
        f"Seconds of each policy where its Pareto frontier reaches target-only's accuracy minus {points:g} points, "
        "thresholds interpolated. Intervals are from a paired bootstrap over problems; each resample has its own "
        "frontiers and accuracy. Next, the fastest single threshold at that accuracy, chosen on the same problems. "
        f"'Shown not inferior' is the fastest threshold that loses less than {points:g} points with 97.5 % confidence, "
        "thresholds tested from the slowest on: its speed-up, and the lower bound of its gap."
    )
    return intro(definition) + table(methods) + (table(routers) if routers.body else "")


def _page(
    *,
    title: str,
    subtitle: str,
    notes: str,
    glance: str,
    sections: str,
    plots: Iterable[Plot],
    method: str,
    browser: Mapping[str, Any],
    num_problems: int,
) -> str:
    folder = resources.files("arbitrage.report") / "page"
    html, style, script = ((folder / f"page.{ending}").read_text() for ending in ("html", "css", "js"))
    # "</" would end the script element that holds the data; JSON may write it as "<\/".
    data = json.dumps(plain(browser), separators=(",", ":")).replace("</", "<\\/")
    return Template(html).substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        notes=notes,
        glance=glance,
        sections=sections,
        pictures="".join(map(_figure, plots)),
        method=method,
        sample=escape(
            f"{_sample(len(browser['problems']), num_problems)}; of several attempts the first. Struck through: a step "
            "that was rejected for the one beside it."
        ),
        style=style,
        script=script,
        data=data,
    )


def _sample(num_shown: int, num_problems: int) -> str:
    if num_shown == num_problems:
        return f"All {num_problems} problems"
    return (
        f"{num_shown} of {num_problems} problems, drawn in equal shares from each level and each pattern of right and "
        "wrong answers"
    )


def _figure(plot: Plot) -> str:
    return (
        f'<figure><h3>{escape(plot.title)}</h3><div role="img" aria-label="{escape(plot.title)}">{plot.svg()}</div>'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
    )
