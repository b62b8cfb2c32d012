"""Train a probe: a router with a small head on the log-probabilities, likelihoods or hidden state of a draft step."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, Final

from arbitrage.core.errors import ConfigError, MissingExtra, RowError, ScorerError
from arbitrage.core.types import Source
from arbitrage.runtime.store import RunFolder, write_json
from arbitrage.scorers.format import InputFormat
from arbitrage.scorers.probe import Inputs, ProbeHead, features, joined, unasked_score
from arbitrage.training.labels import Binary, check_classes, split_by_problem
from arbitrage.training.recipe import REPORT, read_report
from arbitrage.training.rows import Row

try:
    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import log_loss
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler
except ImportError as error:
    raise MissingExtra("train") from error


BATCH_SIZE: Final = 64
"""Rows of one update."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRecipe:
    """The settings of probe training.

    Raises:
        ConfigError: If a value is out of range.
    """

    margin: float = 0.0
    """An advantage up to this value counts as noise of the PRM, not as gain."""
    inputs: Inputs = Inputs.LIKELIHOODS
    """The features that the probe reads."""
    ask_above: float = 0.0
    """For inputs that read the target: see :class:`ProbeHead`. Steps that are kept without a call of the target are not
    used for training."""
    num_units: int = 32
    weight_decays: tuple[float, ...] = (0.1, 1.0, 10.0, 100.0)
    """Weight decays to try; the probe with the lowest loss on held-out problems is kept."""
    validation_share: float = 0.1
    num_epochs: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        Binary(self.margin)
        if not 0.0 <= self.ask_above < 1.0:
            raise ConfigError(f"ask_above must be in [0, 1), got {self.ask_above}")
        if self.ask_above and not self.inputs.reads_target:
            raise ConfigError(
                f"ask_above is for a probe on likelihoods, got ask_above with {self.inputs}",
                hint="leave out --ask-above, or choose --inputs likelihoods",
            )
        for name, value in (("units", self.num_units), ("epochs", self.num_epochs)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")


def rows_for_head(rows: Sequence[Row], recipe: ProbeRecipe) -> list[Row]:
    """Select the rows whose step the probe scores with its head; the others it keeps without a call of the target."""
    return [
        row
        for row in rows
        if unasked_score(row.draft.as_candidate(Source.DRAFT), recipe.inputs, recipe.ask_above) is None
    ]


def train_probe(
    rows: Sequence[Row],
    out: Path,
    recipe: ProbeRecipe,
    input_format: InputFormat,
    *,
    settings: Mapping[str, Any],
    likelihoods: Callable[[Sequence[Row]], Sequence[float]] | None = None,
) -> dict[str, Any]:
    """Train a probe, or return the report of a finished training.

    Args:
        rows: Training rows; for the inputs ``state`` with hidden states.
        out: Becomes a checkpoint folder with the input format and the report.
        recipe: Labels and optimisation.
        input_format: The format of the pair's routers; its annotation is dropped, because a probe reads no marks.
        settings: Identifies the rows; a folder of another run is refused.
        likelihoods: Gives the target's likelihood score of each row's draft step; needed for inputs
            that read the target. It costs one forward pass for each row, so a finished training does not call it.

    Returns:
        The report.

    Raises:
        RowError: If the rows lack what the probe reads, or have only one class.
        StoreError: If ``out`` belongs to another run.
    """
    settings = {**settings, "recipe": asdict(recipe)}
    with RunFolder(out, settings):
        if finished_report := read_report(out):
            return finished_report
        rows = rows_for_head(rows, recipe)
        by_row: Sequence[float | None] = likelihoods(rows) if likelihoods else [None] * len(rows)
        scores = {(row.problem.id, row.step): score for row, score in zip(rows, by_row, strict=True)}
        sides = split_by_problem(rows, recipe.validation_share, seed=recipe.seed)
        check_classes(_labels(sides[0], recipe))
        inputs = [_inputs(side, recipe.inputs, [scores[row.problem.id, row.step] for row in side]) for side in sides]
        labels = [_labels(side, recipe) for side in sides]
        head, losses = _fit(inputs, labels, recipe)
        head.save(out)
        replace(input_format, kind="router", annotation={}).save(out)
        report = {
            "settings": settings,
            "num_rows": len(rows),
            "num_rows_trained_on": len(sides[0]),
            "losses": [{"weight_decay": decay, "eval_loss": loss} for decay, loss in losses.items()],
            "held_out_problems": sorted({row.problem.id for row in sides[1]}),
        }
        write_json(out / REPORT, report)
        return report


def _labels(rows: Sequence[Row], recipe: ProbeRecipe) -> list[int]:
    return [Binary(recipe.margin).label(row.advantage) for row in rows]


def _fit(
    inputs: Sequence[Any], labels: Sequence[list[int]], recipe: ProbeRecipe
) -> tuple[ProbeHead, dict[float, float]]:
    """Train one head for each weight decay.

    Args:
        inputs: Features of the training rows and of the held-out rows, each of shape [rows, features].
        labels: Their labels.
        recipe: The settings.

    Returns:
        The head with the lowest held-out loss, and the held-out loss by weight decay.
    """
    scaler = StandardScaler().fit(inputs[0])
    train_x, test_x = (scaler.transform(side) for side in inputs)
    fitted = {decay: _classifier(decay, recipe, len(train_x)) for decay in recipe.weight_decays}
    for model in fitted.values():
        with warnings.catch_warnings():  # Training ends after num_epochs by intention, converged or not.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(train_x, labels[0])
    losses = {d: float(log_loss(labels[1], m.predict_proba(test_x), labels=[0, 1])) for d, m in fitted.items()}
    chosen = fitted[min(losses, key=losses.__getitem__)]
    (inner, outer), (inner_bias, outer_bias) = chosen.coefs_, chosen.intercepts_
    weights = {"mean": scaler.mean_, "scale": scaler.scale_, "inner": inner, "inner_bias": inner_bias}
    weights |= {"outer": outer[:, 0], "outer_bias": outer_bias}
    arrays = {name: np.ascontiguousarray(values, np.float32) for name, values in weights.items()}
    return ProbeHead(inputs=recipe.inputs, ask_above=recipe.ask_above, floor=(), **arrays), losses


def _classifier(weight_decay: float, recipe: ProbeRecipe, num_rows: int) -> MLPClassifier:
    return MLPClassifier(
        (recipe.num_units,),
        alpha=weight_decay,
        max_iter=recipe.num_epochs,
        batch_size=min(BATCH_SIZE, num_rows),
        random_state=recipe.seed,
    )


def _context(row: Row) -> str:
    """The question and all earlier steps."""
    return reduce(joined, (past.text for past in row.history), row.problem.text)


def _inputs(rows: Sequence[Row], inputs: Inputs, likelihoods: Sequence[float | None]) -> Any:
    """Features, shape [rows, features]."""
    try:
        return np.array(
            [
                features(row.draft.as_candidate(Source.DRAFT), row.step, inputs, likelihood, context=_context(row))
                for row, likelihood in zip(rows, likelihoods, strict=True)
            ]
        )
    except ScorerError as error:
        raise RowError(
            f"these rows cannot train a probe: {error}", hint="collect with --hidden-states, or choose other --inputs"
        ) from error
