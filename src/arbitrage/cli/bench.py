"""``arbitrage bench``: what the models of a pair cost on this machine."""

import json
from functools import partial
from typing import Annotated, Final

import typer

from arbitrage.bench.advice import Advice
from arbitrage.bench.costs import Figure, ModelCosts, PairCosts, ScorerCosts, Settings
from arbitrage.bench.run import default_rule, load_models, measure
from arbitrage.cli.options import PairOption
from arbitrage.cli.show import counting, rich_table, table_console
from arbitrage.pairs.blocking import run
from arbitrage.pairs.catalogue import pair_config
from arbitrage.report.columns import NONE, Column, Table

SETTINGS: Final = Settings()


def bench(
    pair: PairOption = "tiny",
    repeats: Annotated[int, typer.Option(help="Timed rounds; the figures are medians over them.")] = SETTINGS.repeats,
    prompt_tokens: Annotated[
        int, typer.Option(help="Length of the longer prompt, and of the context of all other calls.")
    ] = SETTINGS.prompt_tokens,
    tokens: Annotated[int, typer.Option(help="Length of the longer step that is written or scored.")] = SETTINGS.tokens,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Measure what the models of a pair cost on this machine, and whether the pair can gain anything.

    For draft and target: milliseconds per generated token, per prompt token, and to verify 2 to 32 given tokens. For
    PRM and routers: milliseconds per step. The limit is the time to read all weights once at the speed of a copy.
    """
    config = pair_config(pair)
    settings = Settings(repeats=repeats, prompt_tokens=prompt_tokens, tokens=tokens)
    costs = run(measure(load_models(config), settings, progress=partial(counting, "measuring")))
    advice = Advice.of(costs)
    rule = default_rule(config, advice)
    for role, reason in costs.skipped.items():
        typer.echo(f"{role} is not measured: {reason}", err=True)
    if as_json:
        print(json.dumps(costs.to_json() | {"advice": advice.to_json(rule)}))  # noqa: T201
        return
    names, count = f"draft {costs.draft.name}, target {costs.target.name}", costs.settings.repeats
    typer.echo(f"{costs.pair}: {names}; medians of {count} round{'s' if count > 1 else ''}")
    console = table_console()
    console.print(rich_table(_models(costs)))
    for model in (costs.draft, costs.target):
        if model.why_not_verified:
            typer.echo(f"{model.name} verifies nothing: {model.why_not_verified}")
    if costs.scorers:
        console.print(rich_table(_scorers(costs)))
    typer.echo(advice.sentence(rule))


def _models(costs: PairCosts) -> Table:
    """A row for draft and target."""
    rows = {"draft": costs.draft, "target": costs.target}
    widths = sorted({one.tokens for model in rows.values() for one in model.verified})
    columns: list[Column[tuple[str, ModelCosts]]] = [
        Column("model", lambda row: row[0]),
        Column("ms/token", lambda row: _ms(row[1].generated_ms)),
        Column("limit", lambda row: f"{row[1].limit.ms_per_token:.3g}" if row[1].limit else NONE),
        Column("ms/prompt", lambda row: _ms(row[1].prompt_ms)),
        *[Column(f"{width} tokens", partial(_verified, width)) for width in widths],
    ]
    return Table.of("a forward pass of several tokens, in generated tokens", columns, list(rows.items()))


def _verified(width: int, row: tuple[str, ModelCosts]) -> str:
    model = row[1]
    return next((f"{model.ratio(one):.2f}×" for one in model.verified if one.tokens == width), NONE)


def _scorers(costs: PairCosts) -> Table:
    """A row for each scorer."""
    target = costs.target.generated_ms.value
    columns: list[Column[tuple[str, ScorerCosts]]] = [
        Column("scorer", lambda row: f"{row[0]} {row[1].runtime.engine}"),
        Column("short step, ms", lambda row: f"{_ms(row[1].scored[0].ms)} ({row[1].scored[0].tokens} tokens)"),
        Column("long step, ms", lambda row: f"{_ms(row[1].scored[-1].ms)} ({row[1].scored[-1].tokens} tokens)"),
        Column("ms/token", lambda row: _ms(row[1].token_ms)),
        Column("in target tokens", lambda row: f"{row[1].step_ms / target:.2f}"),
    ]
    return Table.of("scorers; tokens as the draft counts them", columns, list(costs.scorers.items()))


def _ms(figure: Figure) -> str:
    return f"{figure.value:.3g}"
