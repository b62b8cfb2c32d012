"""The files of a report: summaries for programs, a table for people, plots and the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from arbitrage.core.errors import ConfigError
from arbitrage.evaluation.figures.compare import Difference
from arbitrage.evaluation.figures.summary import Evidence
from arbitrage.evaluation.running.folder import Run
from arbitrage.report.export import evidence_record, write_csv
from arbitrage.report.tables import figures_table
from arbitrage.report.words import run_line, summary_lines
from arbitrage.runtime.store import write_json

SCHEMA: Final = 2
"""Version of summary.json and of the JSON lines of ``eval`` and ``report``; docs/evaluating.md describes it. Version 1
had the comparisons with target-only, and those of the router, in fields of their own."""


def write_run(run: Run, evidence: Evidence, page: Path | None = None) -> Path:
    """Write a run's summaries, plots and page.

    Args:
        run: The run.
        evidence: Its figures.
        page: The page's path; None for ``report.html`` beside the summaries.

    Returns:
        The page's path.

    Raises:
        MissingExtra: If matplotlib is not installed. The summaries are written nevertheless.
        ConfigError: If a file cannot be written.
    """
    folder = folder_of(run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_summaries(run, evidence, folder)
        from arbitrage.report.report import write_report  # Imports matplotlib, which summaries do not need.

        return write_report(run, evidence, folder, page)
    except OSError as error:
        raise ConfigError(f"cannot write the report: {error}") from error


def write_comparison(
    runs: Mapping[str, Run],
    evidence: Mapping[str, Evidence],
    differences: Sequence[Difference],
    merged: Evidence,
    page: Path | None = None,
) -> Path:
    """Write the page that compares several runs.

    Args:
        runs: By name.
        evidence: Figures of each run.
        differences: Between the runs, by entry.
        merged: Figures of all runs together, each entry with its run's name.
        page: The page's path; None for ``comparison.html`` beside the first run's summaries.

    Returns:
        The page's path.

    Raises:
        MissingExtra: If matplotlib is not installed.
        ConfigError: If the page cannot be written.
    """
    from arbitrage.report.report import comparison_page  # Imports matplotlib.

    page = page or folder_of(next(iter(runs.values()))) / "comparison.html"
    text = comparison_page(runs, evidence, differences, merged)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text)
    except OSError as error:
        raise ConfigError(f"cannot write the report to {str(page)!r}: {error.strerror}") from error
    return page


def folder_of(run: Run) -> Path:
    """The folder of a run's report: the run folder, or a folder beside a file of traces."""
    return run.path if run.path.is_dir() else run.path.with_name(f"{run.path.stem}-report")


def write_summaries(run: Run, evidence: Evidence, folder: Path) -> None:
    """Write summary.csv, summary.json and summary.md."""
    write_csv(evidence.figures, folder / "summary.csv")
    record = {"name": run.name, "key": run.key, "num_problems": len(run.problems), "protocol": run.protocol}
    context = {"settings": dict(run.settings), "sessions": list(run.sessions)}
    write_json(folder / "summary.json", {"schema": SCHEMA, **record, **evidence_record(evidence), **context})
    (folder / "summary.md").write_text(markdown(run, evidence))


def markdown(run: Run, evidence: Evidence) -> str:
    """The summary as Markdown."""
    sentences = [f"- {line}" for line in summary_lines(evidence.summary)]
    lines = [f"# {run.name}", "", run_line(run), "", *sentences, "", *figures_table(evidence.figures).markdown()]
    return "\n".join(lines) + "\n"
