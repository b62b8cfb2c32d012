"""Train a probe router: a small head on what the draft and the target say of a step, from the rows of any router."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from arbitrage.core.errors import ConfigError, MissingExtra, RowError, ScorerError
from arbitrage.core.types import Source
from arbitrage.runtime.store import RunFolder, write_json
from arbitrage.scorers.format import InputFormat
from arbitrage.scorers.probe import Inputs, ProbeHead, features, unasked_score
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRecipe:
    """How a probe is trained.

    Raises:
        ConfigError: If a value is out of range.
    """

    margin: float = 0.0
    """Advantages up to this are noise of the PRM, not gain."""
    inputs: Inputs = Inputs.LIKELIHOODS
    """What the probe reads."""
    ask_above: float = 0.0
    """On ``likelihoods``: see :class:`ProbeHead`; steps that are kept unasked teach nothing."""
    num_units: int = 32
    weight_decays: tuple[float, ...] = (0.1, 1.0, 10.0, 100.0)
    """The one with the least loss on held-out problems is taken."""
    validation_share: float = 0.1
    num_epochs: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        Binary(self.margin)
        if not 0.0 <= self.ask_above < 1.0:
            raise ConfigError(f"ask_above must be in [0, 1), got {self.ask_above}")
        if self.ask_above and self.inputs is not Inputs.LIKELIHOODS:
            raise ConfigError(f"only a probe on likelihoods asks the target, got ask_above with {self.inputs}")
        for name in ("num_units", "num_epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


def asked_rows(rows: Sequence[Row], recipe: ProbeRecipe) -> list[Row]:
    """The rows that a probe learns from: all but those whose step it would keep unasked."""
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
    """Train a probe, or return the report of one that is done.

    Args:
        rows: Collected with hidden states, if the probe reads them.
        out: Becomes a checkpoint folder with the input format and a report inside.
        recipe: Labels and optimisation.
        input_format: Of the pair's routers; the annotation is dropped, since a probe reads no text.
        settings: What identifies the rows; a folder of another run is refused.
        likelihoods: Gives the target's score of each row's draft step, for a probe that reads it. It costs a forward
            pass a row, so it is asked only if the probe is still to be trained.

    Returns:
        The report.

    Raises:
        RowError: If the rows lack hidden states, or have one class only.
        StoreError: If ``out`` belongs to another run.
    """
    settings = {**settings, "recipe": asdict(recipe)}
    with RunFolder(out, settings):
        if done := read_report(out):
            return done
        rows = asked_rows(rows, recipe)
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
    """The best of all weight decays, and the held-out loss of each; for training and held-out rows each."""
    scaler = StandardScaler().fit(inputs[0])
    train_x, test_x = (scaler.transform(side) for side in inputs)
    fitted = {decay: _classifier(decay, recipe) for decay in recipe.weight_decays}
    for model in fitted.values():
        with warnings.catch_warnings():  # The number of epochs is what was asked for.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(train_x, labels[0])
    losses = {d: float(log_loss(labels[1], m.predict_proba(test_x), labels=[0, 1])) for d, m in fitted.items()}
    best = fitted[min(losses, key=losses.__getitem__)]
    (inner, outer), (inner_bias, outer_bias) = best.coefs_, best.intercepts_
    weights = {"mean": scaler.mean_, "scale": scaler.scale_, "inner": inner, "inner_bias": inner_bias}
    weights |= {"outer": outer[:, 0], "outer_bias": outer_bias}
    arrays = {name: np.ascontiguousarray(values, np.float32) for name, values in weights.items()}
    return ProbeHead(inputs=recipe.inputs, ask_above=recipe.ask_above, **arrays), losses


def _classifier(weight_decay: float, recipe: ProbeRecipe) -> MLPClassifier:
    return MLPClassifier(
        (recipe.num_units,), alpha=weight_decay, max_iter=recipe.num_epochs, batch_size=64, random_state=recipe.seed
    )


def _inputs(rows: Sequence[Row], inputs: Inputs, likelihoods: Sequence[float | None]) -> Any:
    """Features, shape [rows, features]."""
    try:
        return np.array(
            [
                features(row.draft.as_candidate(Source.DRAFT), row.step, inputs, likelihood)
                for row, likelihood in zip(rows, likelihoods, strict=True)
            ]
        )
    except ScorerError as error:
        raise RowError(
            f"these rows cannot train a probe: {error}", hint="collect with --hidden-states, or choose other --inputs"
        ) from error
