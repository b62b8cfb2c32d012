"""``arbitrage train-router``: a router from collected rows."""

from pathlib import Path
from typing import Annotated

import typer

from arbitrage.cli.solve import PairOption, SeedOption
from arbitrage.core.files import fingerprint
from arbitrage.core.types import Source
from arbitrage.pairs.catalogue import router_format
from arbitrage.runtime.store import read_manifest, run_key
from arbitrage.training.labels import LABELLINGS
from arbitrage.training.recipe import BALANCES, RouterRecipe
from arbitrage.training.rows import read_rows


def train_router(
    rows: Annotated[Path, typer.Argument(help="Folder that `arbitrage collect` wrote.")],
    out: Annotated[Path, typer.Argument(help="Becomes the router's checkpoint; a stopped run continues there.")],
    start: Annotated[str, typer.Option(help="Checkpoint to start from; empty for the pair's PRM.")] = "",
    pair: PairOption = "tiny",
    labels: Annotated[
        str, typer.Option(help="; ".join(f"{name}: {told}" for name, told in LABELLINGS.items()))
    ] = "binary",
    margin: Annotated[float, typer.Option(help="Advantages up to this are noise of the PRM.")] = 0.0,
    samples: Annotated[int, typer.Option(help="Use only so many target samples of each row; 0 for all.")] = 0,
    balance: Annotated[str, typer.Option(help=f"Of the classes: {', '.join(BALANCES)}.")] = "downsample",
    marks: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Words before a step by the draft, and before one by the target; both empty for none."),
    ] = None,
    epochs: Annotated[float, typer.Option()] = 3.0,
    learning_rate: Annotated[float, typer.Option()] = 1e-5,
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
    """Train a router: will the target write a better step than this one by the draft?

    The defaults are the paper's, for a PRM of 1.5 billion weights and 30,000 problems; small models want a larger
    learning rate and smaller batches. The result is a sequence-classification checkpoint that says in
    arbitrage.json how it reads a solution, and in training.json how it was made.
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
    words = None if marks is None else dict[str, str](zip(Source, marks, strict=True)) if any(marks) else {}
    input_format, prm_path = router_format(pair, words)
    manifest, found = read_manifest(rows), list(read_rows(rows))
    start = start or prm_path
    settings = {
        "rows": run_key(manifest),
        "num_rows": len(found),
        "start": start,
        "start_weights": fingerprint(Path(start)),
        "annotation": dict(input_format.annotation),
    }
    from arbitrage.training.trainer import train_router as train  # Heavy: only when it is asked for.

    report = train(found, start, out, recipe, input_format, settings=settings, device=device, from_scratch=from_scratch)
    losses = [entry["eval_loss"] for entry in report["losses"] if "eval_loss" in entry]
    typer.echo(
        f"router in {out} · {report['num_rows_trained_on']} of {report['num_rows']} rows in "
        f"{report['num_sequences']} sequences, {report['num_updates']} updates · "
        f"held-out loss {', '.join(f'{loss:.4f}' for loss in losses)}"
    )
