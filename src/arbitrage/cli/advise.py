"""``arbitrage advise``: whether step-level speculation is worth it for a pair on this machine, or by other costs."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from arbitrage.bench.by_hand import read_costs
from arbitrage.bench.costs import Settings
from arbitrage.bench.run import LoadedModels, measure
from arbitrage.cli.estimate import DraftOption, TargetOption
from arbitrage.cli.options import LIMITS, DatasetOption, FieldsOption, MaxTokensOption, PairOption, SeedOption
from arbitrage.cli.report import MarginOption
from arbitrage.cli.show import counting, rich_table, table_console
from arbitrage.core.turn import Setting
from arbitrage.core.types import Limits
from arbitrage.datasets.named import problems
from arbitrage.estimation.advise import measure_gap
from arbitrage.estimation.verdict import MIN_SPEEDUP, Machine, Prospect, Verdict
from arbitrage.evaluation.figures.matched import MARGIN
from arbitrage.pairs.blocking import run
from arbitrage.pairs.loaded import load
from arbitrage.report.columns import NONE, Column, Table
from arbitrage.report.words import points_text, ratio_text


def advise(
    pair: PairOption = "tiny",
    dataset: DatasetOption = "tiny:test",
    fields: FieldsOption = "",
    limit: Annotated[int | None, typer.Option(help="Only the first LIMIT problems.")] = 40,
    costs: Annotated[
        Path | None,
        typer.Option(help="Costs of another machine too: output of `arbitrage bench --json`, or a TOML file by hand."),
    ] = None,
    draft: DraftOption = "",
    target: TargetOption = "",
    max_tokens: MaxTokensOption = LIMITS.max_tokens,
    margin: MarginOption = MARGIN,
    seed: SeedOption = 0,
    as_json: Annotated[bool, typer.Option("--json", help="End standard output with one JSON line.")] = False,
) -> None:
    """Say whether a pair is worth it: can draft and target together be faster than the target, as accurate as it?

    Draft and target solve the problems alone, the target reads the draft's steps, and the models' costs on this machine
    are measured. It takes about twice the target's own time for the problems.
    """
    other_costs = read_costs(costs, draft, target) if costs else None
    problem_list = problems(dataset, limit, fields=fields)
    loaded = load(pair, policies=["draft", "target", "likelihood"])
    gap = measure_gap(
        loaded,
        problem_list,
        Setting(limits=Limits(max_tokens=max_tokens), seed=seed),
        solving=partial(counting, "solving"),
        reading=partial(counting, "reading"),
    )
    models = LoadedModels(config=loaded.config, pair=loaded.pair)
    measured = run(measure(models, Settings(), progress=partial(counting, "measuring")))
    verdict = Verdict(
        gap=gap,
        margin=margin,
        here=Machine.of("here", measured, gap, margin),
        elsewhere=Machine.of(costs.name, other_costs, gap, margin) if costs and other_costs else None,
    )
    _print(verdict, f"{loaded.name} on {dataset}")
    if as_json:
        print(json.dumps({"schema": 1, "pair": loaded.name, "dataset": dataset, **verdict.to_json()}))  # noqa: T201


def _print(verdict: Verdict, title: str) -> None:
    """Print the figures, and the answer last."""
    gap = verdict.gap
    for role, accuracy in (("draft", gap.draft), ("target", gap.target)):
        interval = accuracy.interval
        typer.echo(
            f"{role} alone: {accuracy.value:.1%} of {gap.num_problems} [{interval.low:.0%}, {interval.high:.0%}]"
        )
    typer.echo(f"gap: {points_text(gap.difference)}")
    for share, point in verdict.shares.items():
        typer.echo(
            f"{share:.0%} of the gap: at least {point.steps:.0%} of the steps by the target, in order of "
            f"{verdict.order}"
        )
    rows = [(machine, prospect) for machine in verdict.machines for prospect in machine.prospects]
    table_console().print(rich_table(Table.of(f"{title}, at the target's accuracy", COLUMNS, rows)))
    for machine in verdict.machines:
        typer.echo(f"{machine.name}: a draft token costs {machine.advice.draft:.2f} of a target token")
    typer.echo(verdict.sentence)


COLUMNS: list[Column[tuple[Machine, Prospect]]] = [
    Column("costs", lambda row: row[0].name),
    Column("rule", lambda row: row[1].rule),
    Column("steps by the target", lambda row: f"{row[1].point.steps:.0%}"),
    Column("speed-up", lambda row: ratio_text(row[1].speedup)),
    Column(f"at least {MIN_SPEEDUP:g}", lambda row: f"{row[1].worth_share:.0%}"),
    Column("draft must keep", lambda row: NONE if row[1].break_even is None else f"{row[1].break_even:.0%}"),
]
