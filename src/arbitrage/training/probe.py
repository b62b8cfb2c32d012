"""Train a probe router: a small head on the draft's hidden state, from the rows of any router."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from arbitrage.core.errors import ConfigError, MissingExtra, RowError, ScorerError
from arbitrage.core.types import Source
from arbitrage.runtime.store import RunFolder, write_json
from arbitrage.scorers.format import InputFormat
from arbitrage.scorers.probe import ProbeHead, features
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
    reads_state: bool = True
    """Whether the draft's hidden state is a feature, beside its log-probabilities."""
    num_units: int = 32
    weight_decays: tuple[float, ...] = (0.1, 1.0, 10.0, 100.0)
    """The one with the least loss on held-out problems is taken."""
    validation_share: float = 0.1
    num_epochs: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        Binary(self.margin)
        for name in ("num_units", "num_epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


def train_probe(
    rows: Sequence[Row], out: Path, recipe: ProbeRecipe, input_format: InputFormat, *, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Train a probe, or return the report of one that is done.

    Args:
        rows: Collected with hidden states, if the probe reads them.
        out: Becomes a checkpoint folder with the input format and a report inside.
        recipe: Labels and optimisation.
        input_format: Of the pair's routers; the annotation is dropped, since a probe reads no text.
        settings: What identifies the rows; a folder of another run is refused.

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
        train_rows, held_out = split_by_problem(rows, recipe.validation_share, seed=recipe.seed)
        check_classes(_labels(train_rows, recipe))
        head, losses = _fit(train_rows, held_out, recipe)
        head.save(out)
        replace(input_format, kind="router", annotation={}).save(out)
        report = {
            "settings": settings,
            "num_rows": len(rows),
            "num_rows_trained_on": len(train_rows),
            "losses": [{"weight_decay": decay, "eval_loss": loss} for decay, loss in losses.items()],
            "held_out_problems": sorted({row.problem.id for row in held_out}),
        }
        write_json(out / REPORT, report)
        return report


def _labels(rows: Sequence[Row], recipe: ProbeRecipe) -> list[int]:
    return [Binary(recipe.margin).label(row.advantage) for row in rows]


def _fit(train: Sequence[Row], held_out: Sequence[Row], recipe: ProbeRecipe) -> tuple[ProbeHead, dict[float, float]]:
    """The best of all weight decays, and the held-out loss of each."""
    inputs = [_inputs(side, recipe.reads_state) for side in (train, held_out)]
    scaler = StandardScaler().fit(inputs[0])
    train_x, test_x = (scaler.transform(side) for side in inputs)
    train_y, test_y = _labels(train, recipe), _labels(held_out, recipe)
    fitted: dict[float, MLPClassifier] = {}
    for decay in recipe.weight_decays:
        model = MLPClassifier(
            (recipe.num_units,), alpha=decay, max_iter=recipe.num_epochs, batch_size=64, random_state=recipe.seed
        )
        with warnings.catch_warnings():  # The number of epochs is what was asked for.
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted[decay] = model.fit(train_x, train_y)
    losses = {decay: float(log_loss(test_y, m.predict_proba(test_x), labels=[0, 1])) for decay, m in fitted.items()}
    best = fitted[min(losses, key=losses.__getitem__)]
    weights = {
        "mean": scaler.mean_,
        "scale": scaler.scale_,
        "inner": best.coefs_[0],
        "inner_bias": best.intercepts_[0],
        "outer": best.coefs_[1][:, 0],
        "outer_bias": best.intercepts_[1],
    }
    return ProbeHead(**{name: np.ascontiguousarray(values, np.float32) for name, values in weights.items()}), losses


def _inputs(rows: Sequence[Row], reads_state: bool) -> Any:
    """Features, shape [rows, features]."""
    try:
        return np.array(
            [features(row.draft.as_candidate(Source.DRAFT), row.step, reads_state=reads_state) for row in rows]
        )
    except ScorerError as error:
        raise RowError(
            f"these rows cannot train a probe: {error}", hint="collect with --hidden-states, or train with --no-state"
        ) from error
