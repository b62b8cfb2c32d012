"""A run's summary in files: figures for programs, a table for people. Needs no library for pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from arbitrage.evaluation.figures.metrics import Row
from arbitrage.evaluation.figures.summary import Evidence
from arbitrage.evaluation.running.folder import Run
from arbitrage.report.export import plain, write_csv, write_json
from arbitrage.report.words import number, summary_lines

SCHEMA: Final = 1
"""Version of summary.json."""


def write_summaries(run: Run, evidence: Evidence, folder: Path) -> None:
    """Write summary.csv, summary.json and summary.md."""
    write_csv(evidence.rows, folder / "summary.csv")
    about = {"name": run.name, "key": run.key, "num_problems": len(run.problems), "protocol": run.protocol}
    record = {"schema": SCHEMA, **about, **plain(evidence), "settings": run.settings, "sessions": list(run.sessions)}
    write_json(record, folder / "summary.json")
    (folder / "summary.md").write_text(markdown(run, evidence))


def markdown(run: Run, evidence: Evidence) -> str:
    """The summary as Markdown."""
    head, body = rows_cells(evidence.rows)
    lines = [f"# {run.name}", "", about(run), ""]
    lines += [*(f"- {line}" for line in summary_lines(evidence.summary)), ""]
    lines += [" | ".join(("", *head, "")).strip(), "|" + "---|" * len(head)]
    lines += [" | ".join(("", *cells, "")).strip() for cells in body]
    return "\n".join(lines) + "\n"


def rows_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """A table of rows: its head, and the cells as text.

    A column that no row has a figure for is left out, and throughput unless all have it: nobody could compare it.
    """
    columns: dict[str, Callable[[Row], str]] = {
        "policy": lambda row: row.entry.policy,
        "threshold": lambda row: number(row.entry.threshold, "g"),
        "accuracy": lambda row: number(row.accuracy, ".1%"),
        "95 %": lambda row: _share_interval(row.accuracy_low, row.accuracy_high),
        "accepted": lambda row: number(row.acceptance_rate, ".0%"),
        "tokens by target": lambda row: number(row.target_token_share, ".0%"),
        "wasted": lambda row: number(row.wasted_escalation_rate, ".0%"),
        "s/problem": lambda row: number(row.seconds_per_problem, ".3f"),
        "p50": lambda row: number(row.seconds.p50 if row.seconds else None, ".3f"),
        "p95": lambda row: number(row.seconds.p95 if row.seconds else None, ".3f"),
        "speed-up": lambda row: number(row.speedup_vs_target, ".2f"),
        "overhead": lambda row: number(row.overhead_share, ".1%"),
        "tokens/s": lambda row: number(row.tokens_per_second, ".0f"),
        "solutions/s": lambda row: number(row.solutions_per_second, ".2f"),
        "draft lost": lambda row: number(_lost(row.tokens.draft_accepted, row.tokens.draft_discarded), ".0%"),
        "reused": lambda row: number(_share(row.tokens.reused, row.tokens.target_kept), ".0%"),
        "FLOPs": lambda row: number(row.flops_per_problem, ".2e"),
        "cost": lambda row: number(row.cost_per_problem, ".3g"),
        "J/problem": lambda row: number(row.energy_j_per_problem, ".3g"),
        "failed": lambda row: str(row.num_failed) if row.num_failed else "–",
        "ungraded": lambda row: str(row.num_ungraded) if row.num_ungraded else "–",
    }
    enough = {name: all if name == "solutions/s" else any for name in columns}
    shown = {name: cell for name, cell in columns.items() if enough[name](cell(row) != "–" for row in rows)}
    return list(shown), [[cell(row) for cell in shown.values()] for row in rows]


def _lost(kept: int, lost: int) -> float | None:
    return _share(lost, kept + lost)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _share_interval(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{low:.0%}–{high:.0%}"


def about(run: Run) -> str:
    """What was run, and how it was timed."""
    settings = run.settings
    dataset = f"{settings['pair']} on {settings['dataset']}, " if settings else ""
    samples = f", {settings['samples']} attempts each" if settings.get("samples", 1) > 1 else ""
    return f"{dataset}{len(run.problems)} problems{samples}; {run.protocol}."
