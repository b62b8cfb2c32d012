"""How a router is trained: checked before anything heavy is loaded."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from arbitrage.core.errors import CheckpointError, ConfigError
from arbitrage.training.labels import labelling
from arbitrage.training.rows import Row

REPORT: Final = "training.json"
"""Stands beside a trained router: settings, sizes, losses, and which problems were held out."""
BALANCES: Final = ("downsample", "weights", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterRecipe:
    """How a router is trained; the defaults are the paper's (method).

    Raises:
        ConfigError: If a value is out of range.
    """

    labelling: str = "binary"
    """A key of :data:`arbitrage.training.labels.LABELLINGS`."""
    margin: float = 0.0
    """Advantages up to this are noise of the PRM, not gain."""
    num_target_samples: int | None = None
    """Use only the first so many target samples of each row; None for all."""
    balance: str = "downsample"
    """``downsample`` or weigh (``weights``) the two classes advantage > margin and the rest, or ``none``."""
    validation_share: float = 0.1
    """Share of the problems that is held out."""
    num_epochs: float = 3.0
    learning_rate: float = 1e-5
    batch_size: int = 1024
    """Sequences per update; rows that share a history are packed into one sequence."""
    device_batch_size: int = 16
    """Sequences per forward pass; gradients accumulate up to ``batch_size``."""
    warmup_share: float = 0.1
    lora_rank: int = 0
    """Rank of LoRA adapters on all linear layers, merged at the end; 0 trains all weights."""
    bf16: bool = False
    save_steps: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        labelling(self.labelling, self.margin)
        if self.balance not in BALANCES:
            raise ConfigError(f"balance must be one of {', '.join(BALANCES)}, got {self.balance!r}")
        for name in ("num_epochs", "learning_rate", "batch_size", "device_batch_size", "save_steps"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.batch_size % self.device_batch_size:
            sizes = f"{self.batch_size} and {self.device_batch_size}"
            raise ConfigError(f"batch_size must be a multiple of device_batch_size, got {sizes}")

    def advantage(self, row: Row) -> float:
        """The advantage that this recipe learns from."""
        return row.advantage_of(self.num_target_samples)


def read_report(router: Path) -> dict[str, Any] | None:
    """What :func:`arbitrage.training.trainer.train_router` wrote beside a router; None if nothing.

    Raises:
        CheckpointError: If it cannot be read.
    """
    path = router / REPORT
    if not path.exists():
        return None
    try:
        report: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path}: not a report: {error}") from error
    return report
