"""``arbitrage train-probe``: a router that calls no model, from collected rows."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from arbitrage.build import router_format
from arbitrage.cli.solve import PairOption, SeedOption
from arbitrage.runtime.store import read_manifest, run_key
from arbitrage.training.rows import read_rows


def train_probe(
    rows: Annotated[
        Path, typer.Argument(help="Folder that `arbitrage collect` wrote, --hidden-states if it reads them.")
    ],
    out: Annotated[Path, typer.Argument(help="Becomes the probe's checkpoint.")],
    pair: PairOption = "tiny",
    margin: Annotated[float, typer.Option(help="Advantages up to this are noise of the PRM.")] = 0.0,
    state: Annotated[
        bool,
        typer.Option(help="Read the draft's hidden state. Without it any engine will do that tells log-probabilities."),
    ] = True,
    units: Annotated[int, typer.Option(help="Hidden units.")] = 32,
    epochs: Annotated[int, typer.Option()] = 30,
    validation_share: Annotated[float, typer.Option(help="Share of the problems to hold out.")] = 0.1,
    seed: SeedOption = 0,
) -> None:
    """Train a probe: a small head on the draft's log-probabilities, length, position and last hidden state.

    It serves as a router without a model call, for the draft that it was trained on only. Name its folder in the table
    [router] of the pair.
    """
    from arbitrage.training.probe import ProbeRecipe  # Heavy: only when it is asked for.
    from arbitrage.training.probe import train_probe as train

    recipe = ProbeRecipe(
        margin=margin,
        reads_state=state,
        num_units=units,
        num_epochs=epochs,
        validation_share=validation_share,
        seed=seed,
    )
    input_format, _ = router_format(pair, {})
    settings = {"rows": run_key(read_manifest(rows)), "pair": dict(input_format.trained_for)}
    report = train(list(read_rows(rows)), out, recipe, input_format, settings=settings)
    losses = ", ".join(f"{entry['eval_loss']:.4f}" for entry in report["losses"])
    Console(highlight=False).print(
        f"probe in {out} · {report['num_rows_trained_on']} of {report['num_rows']} rows · held-out loss {losses} "
        "(by weight decay)"
    )
