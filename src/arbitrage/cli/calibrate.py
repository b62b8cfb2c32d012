"""``arbitrage calibrate``: a router's threshold for a budget."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from arbitrage.cli.options import PairOption, SeedOption
from arbitrage.cli.show import rich_table, table_console
from arbitrage.core.errors import ConfigError, StoreError
from arbitrage.pairs.catalogue import router_folder
from arbitrage.report.columns import Column, Table
from arbitrage.training.rows import FILE


def calibrate(
    traces: Annotated[
        Path, typer.Argument(help="Run folder of `arbitrage eval --policies target,router`, or its --traces file.")
    ],
    budget: Annotated[
        list[str] | None,
        typer.Option(help="'target-tokens<=0.3', 'seconds<=1.2' or 'accuracy-loss<=0.02'; may be given many times."),
    ] = None,
    floor: Annotated[
        float | None,
        typer.Option(
            help="For a probe: write its floor, bounds on a step's log-probability. Below a bound, at least this share "
            "of the steps (such as 0.98) has a score that is rejected. From then on all of them are, and the draft "
            "stops within them."
        ),
    ] = None,
    router: Annotated[str, typer.Option(help="A router's checkpoint folder; empty for the pair's router.")] = "",
    pair: PairOption = "tiny",
    confidence: Annotated[
        float, typer.Option(help="Probability that the budget is kept on new problems of the same kind.")
    ] = 0.9,
    seed: SeedOption = 0,
    as_json: Annotated[bool, typer.Option("--json", help="End standard output with one JSON line.")] = False,
) -> None:
    """Choose the router's threshold for a budget from problems solved at several thresholds.

    target-tokens: mean share of a problem's tokens that the target writes. seconds: the time that nine of ten problems
    take at most. accuracy-loss: accuracy of target-only minus the router's. The problems must be new to the router. The
    threshold is written into the router's checkpoint, where `arbitrage solve --budget` reads it.
    """
    from arbitrage.evaluation.calibration import calibrate_router  # Imports scipy.

    if not budget and floor is None:
        raise ConfigError("nothing to calibrate: neither --budget nor --floor is given")
    if (traces / FILE).is_file():
        raise StoreError(
            f"{str(traces)!r} holds rows, but a threshold is chosen from solved problems",
            hint="solve some with `arbitrage eval --policies target,router --thresholds … --out RUN`, and name RUN",
        )
    folder = router_folder(pair, router)
    if floor is not None:
        _give_up(folder, traces, floor)
    calibrations = calibrate_router(folder, traces, budget or (), confidence=confidence, seed=seed)
    console, columns = table_console(), _columns(confidence)
    for one in calibrations:
        table = Table.of(f"{one.budget}: threshold {one.threshold:g}", columns, one.tested)
        console.print(rich_table(table))
    typer.echo(f"written into {folder}")
    if as_json:
        print(json.dumps({"schema": 1, "budgets": [asdict(one) for one in calibrations]}))  # noqa: T201


def _give_up(folder: Path, traces: Path, purity: float) -> None:
    """Write a probe's floor, and print it."""
    from arbitrage.evaluation.floors import write_floor  # Imports numpy.

    for score, bound in write_floor(folder, traces, purity=purity):
        typer.echo(f"a step below a log-probability of {bound:.2f} nats has a score of at least {score:g}")


def _columns(confidence: float) -> Sequence[Column[Any]]:
    """Columns for the tests of thresholds."""
    return (
        Column("threshold", lambda test: f"{test.threshold:g}"),
        Column("mean", lambda test: f"{test.mean:.3f}"),
        Column(f"at most, with confidence {confidence:g}", lambda test: f"{test.bound:.3f}"),
        Column("kept", lambda test: "yes" if test.is_certified else "no"),
    )
