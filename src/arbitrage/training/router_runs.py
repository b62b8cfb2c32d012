"""Runs on collected rows, as ``arbitrage train-router``, ``train-probe`` and ``eval-router`` start them.

The settings of a training are a dictionary of all that changes the router. The manifest in the router's folder holds
them, so their keys and values are part of the file format.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arbitrage.core.files import fingerprint
from arbitrage.pairs.blocking import run
from arbitrage.pairs.catalogue import load_engines, load_router, router_folder, router_format, router_start
from arbitrage.runtime.store import read_manifest, run_key
from arbitrage.scorers.format import InputFormat
from arbitrage.scorers.likelihood import LikelihoodScorer
from arbitrage.training.recipe import RouterRecipe, held_out_rows
from arbitrage.training.rows import Row, read_scored_rows

if TYPE_CHECKING:
    from arbitrage.training.probe import ProbeRecipe
    from arbitrage.training.router_quality import RouterQuality

# The heavy modules (torch, scikit-learn) are imported inside the functions: a command then reports an error in its
# options at once.


def router_settings(rows_key: str, num_rows: int, start: str, input_format: InputFormat) -> dict[str, Any]:
    """The settings that identify the rows and the start of a router; its recipe is added in training.

    Args:
        rows_key: The key of the run that wrote the rows.
        num_rows: The number of rows; a folder may have got more.
        start: The checkpoint to start from.
        input_format: How the router reads a solution.
    """
    return {
        "rows": rows_key,
        "num_rows": num_rows,
        "start": start,
        "start_weights": fingerprint(Path(start)),
        "annotation": dict(input_format.annotation),
    }


def probe_settings(rows_key: str, input_format: InputFormat) -> dict[str, Any]:
    """The settings that identify the rows and the pair of a probe; its recipe is added in training.

    Args:
        rows_key: The key of the run that wrote the rows.
        input_format: The input format of the pair's routers.
    """
    return {"rows": rows_key, "pair": dict(input_format.trained_for)}


def run_router_training(
    rows: Path,
    out: Path,
    recipe: RouterRecipe,
    *,
    pair: str | Path,
    start: str = "",
    marks: Mapping[str, str] | None = None,
    device: str = "cpu",
    from_scratch: bool = False,
) -> dict[str, Any]:
    """Train a router for a pair on a folder of rows, or continue a stopped training.

    Args:
        rows: A folder of rows.
        out: Becomes the router's checkpoint.
        recipe: Labels, balance, optimisation.
        pair: The pair's name or file.
        start: The checkpoint to start from; empty for the pair's PRM.
        marks: The text before each step, by author; empty for none, None for the pair's own marks.
        device: A torch device.
        from_scratch: Start from random weights in the shape of ``start``.

    Returns:
        The report of :func:`arbitrage.training.trainer.train_router`.

    Raises:
        ConfigError: If the pair cannot be used, or has no PRM and ``start`` is empty.
        RowError: If the rows cannot be read, have no scores, or have only one class.
        StoreError: If ``rows`` has no rows, or ``out`` belongs to another run.
        CheckpointError: If ``start`` cannot be loaded.
    """
    input_format = router_format(pair, marks)
    rows_key, training_rows = run_key(read_manifest(rows)), read_scored_rows(rows)
    start = start or router_start(pair)
    from arbitrage.training.trainer import train_router

    return train_router(
        training_rows,
        start,
        out,
        recipe,
        input_format,
        settings=router_settings(rows_key, len(training_rows), start, input_format),
        device=device,
        from_scratch=from_scratch,
    )


def run_probe_training(rows: Path, out: Path, recipe: "ProbeRecipe", *, pair: str | Path) -> dict[str, Any]:
    """Train a probe for a pair on a folder of rows.

    Args:
        rows: A folder of rows.
        out: Becomes the probe's checkpoint.
        recipe: Labels, inputs, optimisation.
        pair: The pair's name or file.

    Returns:
        The report of :func:`arbitrage.training.probe.train_probe`.

    Raises:
        ConfigError: If the pair cannot be used.
        RowError: If the rows cannot be read, have no scores, lack what the probe reads, or have only one class.
        StoreError: If ``rows`` has no rows, or ``out`` belongs to another run.
    """
    from arbitrage.training.probe import train_probe
    from arbitrage.training.row_scores import score_rows

    def likelihoods(rows_to_score: Sequence[Row]) -> list[float]:
        scores = run(score_rows(LikelihoodScorer(), rows_to_score, load_engines(pair)))
        return [float(score) for score in scores]

    input_format, training_rows = router_format(pair, {}), read_scored_rows(rows)
    settings = probe_settings(run_key(read_manifest(rows)), input_format)
    return train_probe(
        training_rows,
        out,
        recipe,
        input_format,
        settings=settings,
        likelihoods=likelihoods if recipe.inputs.reads_target else None,
    )


def run_router_evaluation(
    rows: Path,
    router: str = "",
    *,
    pair: str | Path,
    out: Path | None = None,
    uses_all_rows: bool = False,
    margin: float = 0.0,
    device: str = "cpu",
    seed: int = 0,
) -> "RouterQuality":
    """Measure a router's quality on the rows of problems that its training held out.

    Args:
        rows: A folder of rows.
        router: The router's checkpoint folder; empty for the pair's router.
        pair: The pair's name or file.
        out: A folder for ``judgement.json`` and pictures; None for neither.
        uses_all_rows: Whether to use the rows of all problems.
        margin: An advantage up to this value counts as no gain.
        device: A torch device.
        seed: The bootstrap's seed.

    Raises:
        ConfigError: If the pair cannot be used or has no router.
        CheckpointError: If the router is missing or broken.
        RowError: If the rows cannot be read, none is of a held-out problem, or all have a gain or none has one.
        StoreError: If ``rows`` has no rows.
    """
    folder = router_folder(pair, router)
    logged_rows = read_scored_rows(rows)
    scorer, engines = load_router(folder, pair=pair, device=device)
    test_rows = logged_rows if uses_all_rows else held_out_rows(logged_rows, folder)
    from arbitrage.training.router_quality import measure_router_quality
    from arbitrage.training.row_scores import score_rows

    scores = run(score_rows(scorer, test_rows, engines))
    quality = measure_router_quality(test_rows, scores, name="router", margin=margin, seed=seed)
    if out:
        from arbitrage.training.pictures import save_pictures

        out.mkdir(parents=True, exist_ok=True)
        record = quality.to_json(rows=str(rows), margin=margin)
        (out / "judgement.json").write_text(json.dumps(record, indent=2) + "\n")
        save_pictures(test_rows, scores, out, margin=margin)
    return quality
