"""``arbitrage report``: the report of a run from its traces, or a comparison of several runs."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from arbitrage.cli.options import SeedOption
from arbitrage.evaluation.figures.compare import differences, merged, named
from arbitrage.evaluation.figures.matched import MARGIN
from arbitrage.evaluation.figures.rates import Rates
from arbitrage.evaluation.figures.summary import evidence_of
from arbitrage.evaluation.running.folder import Run, read_run
from arbitrage.report.export import evidence_record, plain
from arbitrage.report.files import SCHEMA, write_comparison, write_run
from arbitrage.report.words import difference_line, summary_lines

MarginOption = Annotated[
    float, typer.Option(help="An accuracy at most this much below target-only's counts as matched; 0.015: 1.5 points.")
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
    out: Annotated[
        Path | None, typer.Option(help="The page's path; by default in the folder of the first run.")
    ] = None,
    margin: MarginOption = MARGIN,
    params: ParamsOption = "",
    prices: PricesOption = "",
    seed: SeedOption = 0,
    as_json: Annotated[bool, typer.Option("--json", help="End standard output with one JSON line.")] = False,
) -> None:
    """Make a run's report again from its traces: summary.csv, .json, .md, plots and report.html.

    Several runs are compared on one page; they must be on the same problems. No model is loaded.
    """
    options: dict[str, Any] = {"rates": Rates.parse(params, prices), "margin": margin, "seed": seed}
    loaded_runs = [read_run(path) for path in runs]
    if len(loaded_runs) == 1:
        evidence = evidence_of(loaded_runs[0].solutions, **options)
        page = write_run(loaded_runs[0], evidence, out)
        lines, record = summary_lines(evidence.summary), evidence_record(evidence)
    else:
        page, lines, record = _compare(loaded_runs, out, options)
    for line in lines:
        typer.echo(line)
    Console(highlight=False, soft_wrap=True).print(f"written: {page}")
    if as_json:
        print(json.dumps({"schema": SCHEMA, "report": str(page), **record}))  # noqa: T201


def _compare(runs: list[Run], out: Path | None, options: dict[str, Any]) -> tuple[Path, list[str], dict[str, Any]]:
    by_name = named(runs)
    between = differences(by_name, seed=options["seed"])
    evidence = {name: evidence_of(run.solutions, **options) for name, run in by_name.items()}
    page = write_comparison(by_name, evidence, between, evidence_of(merged(by_name), **options), out)
    lines = [f"{name}: {line}" for name, one in evidence.items() for line in summary_lines(one.summary)]
    record = {
        "differences": [plain(one) for one in between],
        "runs": {name: evidence_record(one) for name, one in evidence.items()},
    }
    return page, [*lines, *map(difference_line, between)], record
