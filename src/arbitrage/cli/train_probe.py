"""``arbitrage train-probe``: a router that is no model of its own, from collected rows."""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arbitrage.cli.options import PairOption, SeedOption
from arbitrage.core.errors import ConfigError
from arbitrage.pairs.catalogue import load_engines, router_format
from arbitrage.runtime.store import read_manifest, run_key
from arbitrage.scorers.likelihood import LikelihoodScorer
from arbitrage.training.rows import Row, read_rows

if TYPE_CHECKING:
    from arbitrage.scorers.probe import Inputs


def train_probe(
    rows: Annotated[
        Path, typer.Argument(help="Folder that `arbitrage collect` wrote, --hidden-states if it reads them.")
    ],
    out: Annotated[Path, typer.Argument(help="Becomes the probe's checkpoint.")],
    pair: PairOption = "tiny",
    margin: Annotated[float, typer.Option(help="Advantages up to this are noise of the PRM.")] = 0.0,
    inputs: Annotated[
        str,
        typer.Option(
            help="confidence: the draft's log-probabilities. state: its last hidden state too. likelihoods: the "
            "log-probabilities and the chance of its step under the target, at the price of one forward pass of it."
        ),
    ] = "likelihoods",
    ask_above: Annotated[
        float,
        typer.Option(
            help="With likelihoods: keep a step unasked if 1 - p^(1/10) is at most this, p its chance under the draft."
        ),
    ] = 0.0,
    units: Annotated[int, typer.Option(help="Hidden units.")] = 32,
    epochs: Annotated[int, typer.Option()] = 30,
    validation_share: Annotated[float, typer.Option(help="Share of the problems to hold out.")] = 0.1,
    seed: SeedOption = 0,
) -> None:
    """Train a probe: a router that is no model of its own, but a small head on what the pair says of a step.

    It serves only the pair that it was trained for. Name its folder in the table [router] of the pair.
    """
    from arbitrage.training.probe import ProbeRecipe  # Heavy: only when it is asked for.
    from arbitrage.training.probe import train_probe as train

    recipe = ProbeRecipe(
        margin=margin,
        inputs=_inputs(inputs),
        ask_above=ask_above,
        num_units=units,
        num_epochs=epochs,
        validation_share=validation_share,
        seed=seed,
    )
    input_format, _ = router_format(pair, {})
    settings = {"rows": run_key(read_manifest(rows)), "pair": dict(input_format.trained_for)}
    likelihoods = partial(_likelihoods, pair) if recipe.inputs == "likelihoods" else None
    report = train(list(read_rows(rows)), out, recipe, input_format, settings=settings, likelihoods=likelihoods)
    losses = ", ".join(f"{entry['eval_loss']:.4f}" for entry in report["losses"])
    typer.echo(
        f"probe in {out} · {report['num_rows_trained_on']} of {report['num_rows']} rows · held-out loss {losses} "
        "(by weight decay)"
    )


def _inputs(name: str) -> "Inputs":
    from arbitrage.scorers.probe import Inputs

    try:
        return Inputs(name)
    except ValueError as error:
        raise ConfigError(f"unknown inputs {name!r}", hint=f"choose from {', '.join(Inputs)}") from error


def _likelihoods(pair: str, rows: Sequence[Row]) -> list[float]:
    """The target's score of each row's draft step."""
    from arbitrage.training.judge import router_scores

    return [float(score) for score in asyncio.run(router_scores(LikelihoodScorer(), rows, load_engines(pair)))]
