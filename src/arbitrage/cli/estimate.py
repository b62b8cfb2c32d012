"""``arbitrage estimate``: a run's seconds and speed-ups on another machine, from its traces and costs of models."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from arbitrage.bench.by_hand import read_costs
from arbitrage.cli.options import SeedOption
from arbitrage.cli.report import MarginOption
from arbitrage.cli.show import rich_table, table_console
from arbitrage.estimation.run import EntrySeconds, estimated
from arbitrage.evaluation.figures.matched import MARGIN
from arbitrage.evaluation.figures.summary import evidence_of
from arbitrage.report.columns import Column, Table
from arbitrage.report.export import evidence_record, plain
from arbitrage.report.files import SCHEMA
from arbitrage.report.tables import terminal_table
from arbitrage.report.words import number, short_label, summary_lines

CostsOption = Annotated[
    Path, typer.Option(help="The output of `arbitrage bench --json` on that machine, or a TOML file of costs by hand.")
]
DraftOption = Annotated[str, typer.Option(help="The model of the TOML file that plays the draft.")]
TargetOption = Annotated[str, typer.Option(help="The model of the TOML file that plays the target.")]


def estimate(
    run: Annotated[Path, typer.Argument(help="A run folder of `arbitrage eval --out`, or a file of --traces.")],
    costs: CostsOption,
    draft: DraftOption = "",
    target: TargetOption = "",
    outside_ms: Annotated[
        float | None,
        typer.Option(help="Milliseconds outside models for each step; by default those that the run measured."),
    ] = None,
    margin: MarginOption = MARGIN,
    seed: SeedOption = 0,
    as_json: Annotated[bool, typer.Option("--json", help="End standard output with one JSON line.")] = False,
) -> None:
    """Estimate a run's seconds and speed-ups on a machine whose costs per token are known.

    Answers and token counts of a run do not depend on the hardware. Its traces say how many tokens each call wrote,
    read and verified; the costs say how long that takes. No model is loaded.
    """
    result = estimated(run, read_costs(costs, draft, target), outside_ms=outside_ms)
    evidence = evidence_of(result.run.solutions, margin=margin, seed=seed)
    console = table_console()
    typer.echo(f"ESTIMATE: {result.assumption}")
    title = f"estimated: {result.run.name} on the costs of {result.costs.pair}, {len(result.run.problems)} problems"
    console.print(rich_table(terminal_table(evidence.figures, title)))
    console.print(rich_table(Table.of("seconds per problem", COLUMNS, result.beside)))
    for line in summary_lines(evidence.summary):
        typer.echo(f"estimated: {line}")
    if as_json:
        record = {
            "is_estimate": True,
            "assumption": result.assumption,
            "run": str(run),
            "costs": {"file": str(costs), "pair": result.costs.pair, "source": result.costs.environment.get("source")},
            "outside_ms": outside_ms,
            "num_problems": len(result.run.problems),
            "beside": [plain(asdict(one) | {"entry": one.entry, "ratio": one.ratio}) for one in result.beside],
        }
        print(json.dumps({"schema": SCHEMA, **record, **evidence_record(evidence)}))  # noqa: T201


COLUMNS: list[Column[EntrySeconds]] = [
    Column("policy", lambda one: short_label(one.entry)),
    Column("estimated", lambda one: number(one.estimated_s, ".4f")),
    Column("in this run", lambda one: number(one.measured_s, ".4f")),
    Column("ratio", lambda one: number(one.ratio, ".2f")),
]
