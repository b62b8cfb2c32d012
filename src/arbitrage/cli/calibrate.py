"""``arbitrage calibrate``: a threshold that keeps a budget."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from arbitrage.cli.options import PairOption, SeedOption
from arbitrage.cli.show import table_console
from arbitrage.evaluation.running.folder import read_traces
from arbitrage.pairs.catalogue import router_folder
from arbitrage.runtime.store import write_json
from arbitrage.scorers.format import InputFormat

REPORT = "calibration.json"
"""Stands beside a calibrated router: for each budget what was tested, and what can be promised."""


def calibrate(
    traces: Annotated[
        Path, typer.Argument(help="Run folder of `arbitrage eval --policies target,router`, or its --traces file.")
    ],
    budget: Annotated[
        list[str],
        typer.Option(help="'target-tokens<=0.3', 'seconds<=1.2' or 'accuracy-loss<=0.02'; may be given many times."),
    ],
    router: Annotated[str, typer.Option(help="A router's checkpoint folder; empty for the pair's.")] = "",
    pair: PairOption = "tiny",
    confidence: Annotated[float, typer.Option(help="That the budget is kept on new problems of the same kind.")] = 0.9,
    seed: SeedOption = 0,
    as_json: Annotated[bool, typer.Option("--json", help="End standard output with one JSON line.")] = False,
) -> None:
    """Choose the router's threshold for a budget from problems solved at several thresholds.

    target-tokens: mean share of a problem's tokens that the target writes. seconds: what nine of ten problems take at
    most. accuracy-loss: accuracy of target-only minus the router's. The problems must be new to the router. The
    threshold is written into the router's checkpoint, where `arbitrage solve --budget` finds it.
    """
    folder = router_folder(pair, router)
    input_format = InputFormat.load(folder)
    from arbitrage.evaluation.figures.calibrate import Budget, outcomes_of  # Heavy: only when it is asked for.
    from arbitrage.evaluation.figures.calibrate import calibrate as choose

    budgets = [Budget.parse(text) for text in budget]
    solved = ((place.entry.threshold, trace) for place, trace in read_traces(traces))
    outcomes, reference = outcomes_of(solved, "router")
    found = [choose(outcomes, reference, wanted, confidence=confidence, seed=seed) for wanted in budgets]
    thresholds = {**input_format.thresholds, **{one.budget: one.threshold for one in found}}
    replace(input_format, thresholds=thresholds).save(folder)
    report = _earlier(folder) | {one.budget: asdict(one) for one in found}
    write_json(folder / REPORT, report)
    console = table_console()
    for one in found:
        table = Table(title=f"{one.budget}: threshold {one.threshold:g}", title_justify="left")
        for name in ("threshold", "mean", f"at most, with confidence {confidence:g}", "kept"):
            table.add_column(name, justify="right")
        for test in one.tested:
            table.add_row(
                f"{test.threshold:g}", f"{test.mean:.3f}", f"{test.bound:.3f}", "yes" if test.is_certified else "no"
            )
        console.print(table)
    typer.echo(f"written into {folder}")
    if as_json:
        print(json.dumps({"schema": 1, "budgets": [asdict(one) for one in found]}))  # noqa: T201


def _earlier(folder: Path) -> dict[str, object]:
    """What earlier calibrations found for other budgets."""
    path = folder / REPORT
    record: dict[str, object] = json.loads(path.read_text()) if path.exists() else {}
    return record
