"""``arbitrage train-probe``: a router without a language model of its own, from collected rows."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arbitrage.cli.options import PairOption, SeedOption
from arbitrage.core.errors import ConfigError
from arbitrage.training.router_runs import run_probe_training

if TYPE_CHECKING:
    from arbitrage.scorers.probe import Inputs


def train_probe(
    rows: Annotated[
        Path, typer.Argument(help="Folder of rows; for the inputs 'state' collected with --hidden-states.")
    ],
    out: Annotated[Path, typer.Argument(help="Becomes the probe's checkpoint.")],
    pair: PairOption = "tiny",
    margin: Annotated[float, typer.Option(help="An advantage up to this value counts as noise of the PRM.")] = 0.0,
    inputs: Annotated[
        str,
        typer.Option(
            help="confidence: the draft's log-probabilities. state: also its last hidden state. likelihoods: the "
            "draft's log-probabilities, and the probability of its step under the target, which costs one forward "
            "pass of the target. step: robust numbers of the draft's log-probabilities and of its text. "
            "step-likelihoods: the same and the probability under the target."
        ),
    ] = "likelihoods",
    ask_above: Annotated[
        float,
        typer.Option(
            help="With inputs of the target: call it only if 1 - p^(1/10) is above this value, where p is the "
            "probability of the step under the draft."
        ),
    ] = 0.0,
    units: Annotated[int, typer.Option(help="Hidden units.")] = 32,
    epochs: Annotated[int, typer.Option(help="Passes over the training rows.")] = 30,
    validation_share: Annotated[float, typer.Option(help="Share of the problems to hold out.")] = 0.1,
    seed: SeedOption = 0,
) -> None:
    """Train a probe, a small router, on rows.

    A probe is a router without a language model: a small head on features of the draft's step. It serves only the pair
    that it was trained for. Name its folder in the table [router] of the pair.
    """
    from arbitrage.training.probe import ProbeRecipe  # Imports scikit-learn, which other commands do not need.

    recipe = ProbeRecipe(
        margin=margin,
        inputs=_inputs(inputs),
        ask_above=ask_above,
        num_units=units,
        num_epochs=epochs,
        validation_share=validation_share,
        seed=seed,
    )
    report = run_probe_training(rows, out, recipe, pair=pair)
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
