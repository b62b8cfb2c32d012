"""``arbitrage report``: the report of a run from its traces, or a comparison of several runs."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from arbitrage.cli.options import SeedOption
from arbitrage.core.errors import ConfigError, MissingExtra
from arbitrage.evaluation.figures.compare import Difference, differences, merged, named
from arbitrage.evaluation.figures.matched import MARGIN
from arbitrage.evaluation.figures.rates import Rates
from arbitrage.evaluation.figures.summary import Evidence, evidence_of
from arbitrage.evaluation.running.folder import Run, read_run
from arbitrage.report.export import plain
from arbitrage.report.tables import write_summaries
from arbitrage.report.words import summary_lines

MarginOption = Annotated[
    float, typer.Option(help="So much accuracy below target-only counts as matched; 0.015 is 1.5 points.")
]
ParamsOption = Annotated[
    str, typer.Option(help="Parameters by model, to estimate FLOPs: 'draft=0.5e9,target=7e9,router=1.5e9'.")
]
PricesOption = Annotated[
    str,
    typer.Option(
        help="Prices of a million tokens by model, PROMPT:GENERATED[:CACHED]: 'draft=0.1:0.4,target=0.5:1.5'."
    ),
]


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of `arbitrage eval --out`, or files of --traces.")],
    out: Annotated[Path | None, typer.Option(help="Where to write the page; by default into the (first) run.")] = None,
    margin: MarginOption = MARGIN,
    params: ParamsOption = "",
    prices: PricesOption = "",
    seed: SeedOption = 0,
    as_json: Annotated[bool, typer.Option("--json", help="End standard output with one JSON line.")] = False,
) -> None:
    """Make a run's report anew from its traces: summary.csv, .json, .md, plots and report.html.

    Several runs are compared on one page; they must be on the same problems. Nothing is loaded or solved.
    """
    options: dict[str, Any] = {"rates": Rates.parse(params, prices), "margin": margin, "seed": seed}
    found = [read_run(path) for path in runs]
    if len(found) == 1:
        evidence = evidence_of(found[0].solutions, **options)
        page = write(found[0], evidence, out, is_required=True)
        lines, record = summary_lines(evidence.summary), plain(evidence)
    else:
        page, lines, record = _compare(found, out, options)
    for line in lines:
        typer.echo(line)
    Console(highlight=False, soft_wrap=True).print(f"written: {page}")
    if as_json:
        print(json.dumps(plain({"schema": 1, "report": str(page), **record})))  # noqa: T201


def _compare(found: list[Run], out: Path | None, options: dict[str, Any]) -> tuple[Path, list[str], dict[str, Any]]:
    by_name = named(found)
    differing = differences(by_name, seed=options["seed"])
    evidence = {name: evidence_of(run.solutions, **options) for name, run in by_name.items()}
    together = evidence_of(merged(by_name), **options)
    from arbitrage.report.report import comparison_page  # Heavy: it draws.

    page = out or folder_of(found[0]) / "comparison.html"
    _write_text(page, comparison_page(by_name, evidence, differing, together))
    record = {"differences": [plain(one) for one in differing], "runs": {k: plain(v) for k, v in evidence.items()}}
    lines = [f"{name}: {line}" for name, one in evidence.items() for line in summary_lines(one.summary)]
    return page, [*lines, *map(difference_line, differing)], record


def difference_line(one: Difference) -> str:
    """A difference between two runs in words."""
    gap, low, high = one.accuracy[1] - one.accuracy[0], one.gap_interval.low, one.gap_interval.high
    line = (
        f"{one.entry.label}: {one.second} {gap * 100:+.1f} points [{low * 100:+.1f}, {high * 100:+.1f}] against "
        f"{one.first}, p = {one.p_value:.2g}"
    )
    if one.speedup is None or one.speedup_interval is None:
        return line
    return f"{line}; {one.speedup:.2f}× as fast [{one.speedup_interval.low:.2f}, {one.speedup_interval.high:.2f}]"


def write(run: Run, evidence: Evidence, page: Path | None = None, *, is_required: bool = False) -> Path:
    """Write a run's summaries, pictures and page.

    Args:
        run: The run.
        evidence: Its figures.
        page: Where the page goes; None for into the run's folder.
        is_required: Whether to fail where pictures cannot be drawn, rather than to write only the summaries.

    Returns:
        The page, or the folder if there is none.

    Raises:
        MissingExtra: If pictures cannot be drawn and are required.
        ConfigError: If something cannot be written.
    """
    folder = folder_of(run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_summaries(run, evidence, folder)
        try:
            from arbitrage.report.report import write_report
        except MissingExtra as error:
            if is_required:
                raise
            typer.echo(f"no report: {error}", err=True)
            return folder
        return write_report(run, evidence, folder, page)
    except OSError as error:
        raise ConfigError(f"cannot write the report: {error}") from error


def folder_of(run: Run) -> Path:
    """Where a run's report belongs: its folder, or one beside a file of traces."""
    return run.path if run.path.is_dir() else run.path.with_name(f"{run.path.stem}-report")


def _write_text(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise ConfigError(f"cannot write the report to {str(path)!r}: {error.strerror}") from error
