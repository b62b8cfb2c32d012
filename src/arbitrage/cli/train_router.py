"""``arbitrage train-router``: a router from collected rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from arbitrage.cli.options import PairOption, SeedOption
from arbitrage.core.types import Source
from arbitrage.training.labels import LABELLINGS
from arbitrage.training.recipe import BALANCES, RouterRecipe
from arbitrage.training.router_runs import run_router_training


def train_router(
    rows: Annotated[Path, typer.Argument(help="Folder of rows by `arbitrage collect` or `arbitrage label`.")],
    out: Annotated[Path, typer.Argument(help="Becomes the router's checkpoint; a stopped run continues there.")],
    start: Annotated[str, typer.Option(help="Checkpoint to start from; empty for the pair's PRM.")] = "",
    pair: PairOption = "tiny",
    labels: Annotated[
        str, typer.Option(help="; ".join(f"{name}: {meaning}" for name, meaning in LABELLINGS.items()))
    ] = "binary",
    margin: Annotated[float, typer.Option(help="An advantage up to this value counts as noise of the PRM.")] = 0.0,
    samples: Annotated[int, typer.Option(help="Use only this number of target samples of each row; 0 for all.")] = 0,
    balance: Annotated[str, typer.Option(help=f"How classes are balanced: {', '.join(BALANCES)}.")] = "downsample",
    marks: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Text before a draft step, and text before a target step; both empty for no marks."),
    ] = None,
    epochs: Annotated[float, typer.Option(help="Passes over the training rows.")] = 3.0,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-5,
    batch_size: Annotated[int, typer.Option(help="Sequences per update.")] = 1024,
    device_batch_size: Annotated[int, typer.Option(help="Sequences per forward pass.")] = 16,
    lora_rank: Annotated[int, typer.Option(help="Train LoRA adapters of this rank; 0 trains all weights.")] = 0,
    bf16: Annotated[bool, typer.Option(help="Mixed precision.")] = False,
    from_scratch: Annotated[bool, typer.Option(help="Start from random weights in the shape of START.")] = False,
    validation_share: Annotated[float, typer.Option(help="Share of the problems to hold out.")] = 0.1,
    save_steps: Annotated[int, typer.Option(help="Updates between checkpoints.")] = 200,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: SeedOption = 0,
) -> None:
    """Train a router on rows.

    A router predicts whether the target would write a better step than the draft's. The defaults are the paper's, for a
    PRM with 1.5 billion weights and 30,000 problems. Small models need a larger learning rate and smaller batches. The
    result is a sequence-classification checkpoint. Its arbitrage.json describes the router's input, and its
    training.json holds settings and losses.
    """
    recipe = RouterRecipe(
        labelling=labels,
        margin=margin,
        num_target_samples=samples or None,
        balance=balance,
        validation_share=validation_share,
        num_epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        device_batch_size=device_batch_size,
        lora_rank=lora_rank,
        bf16=bf16,
        save_steps=save_steps,
        seed=seed,
    )
    report = run_router_training(
        rows, out, recipe, pair=pair, start=start, marks=_by_author(marks), device=device, from_scratch=from_scratch
    )
    losses = [entry["eval_loss"] for entry in report["losses"] if "eval_loss" in entry]
    typer.echo(
        f"router in {out} · {report['num_rows_trained_on']} of {report['num_rows']} rows in "
        f"{report['num_sequences']} sequences, {report['num_updates']} updates · "
        f"held-out loss {', '.join(f'{loss:.4f}' for loss in losses)}"
    )


def _by_author(marks: tuple[str, str] | None) -> Mapping[str, str] | None:
    """Marks by author; empty if both are empty, None for the pair's own."""
    if marks is None:
        return None
    return dict[str, str](zip(Source, marks, strict=True)) if any(marks) else {}
