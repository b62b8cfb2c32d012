"""The settings of router training, checked before torch is imported, and the report beside a trained router."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from arbitrage.core.errors import CheckpointError, ConfigError, RowError
from arbitrage.training.labels import labelling
from arbitrage.training.rows import Row

REPORT: Final = "training.json"
"""The file beside a trained router with its settings, sizes, losses, and held-out problems."""
BALANCES: Final = ("downsample", "weights", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterRecipe:
    """The settings of router training; the defaults are the paper's.

    Raises:
        ConfigError: If a value is out of range.
    """

    labelling: str = "binary"
    """A key of :data:`arbitrage.training.labels.LABELLINGS`."""
    margin: float = 0.0
    """An advantage up to this value counts as noise of the PRM, not as gain."""
    num_target_samples: int | None = None
    """Use only the first ``num_target_samples`` target samples of each row; None for all."""
    balance: str = "downsample"
    """How the classes "advantage > margin" and "advantage <= margin" are balanced: ``downsample``, ``weights`` in the
    loss, or ``none``."""
    validation_share: float = 0.1
    """The share of the problems that is held out."""
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
    """Updates between two checkpoints."""
    seed: int = 0

    def __post_init__(self) -> None:
        labelling(self.labelling, self.margin)
        if self.balance not in BALANCES:
            raise ConfigError(f"balance must be one of {', '.join(BALANCES)}, got {self.balance!r}")
        for name in ("num_epochs", "learning_rate", "batch_size", "device_batch_size", "save_steps"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name.removeprefix('num_')} must be above 0, got {getattr(self, name)}")
        if self.batch_size % self.device_batch_size:
            sizes = f"{self.batch_size} and {self.device_batch_size}"
            raise ConfigError(f"batch_size must be a multiple of device_batch_size, got {sizes}")

    def advantage(self, row: Row) -> float:
        """The row's advantage over the target samples that this recipe uses."""
        return row.advantage_of(self.num_target_samples)


def read_report(router: Path) -> dict[str, Any] | None:
    """Read the report that training wrote beside a router or a probe.

    Args:
        router: The checkpoint folder.

    Returns:
        The report; None if the folder has no report.

    Raises:
        CheckpointError: If the report is not JSON.
    """
    path = router / REPORT
    if not path.exists():
        return None
    try:
        report: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path}: not a training report: {error}", hint="train the router again") from error
    return report


def held_out_rows(rows: Sequence[Row], router: Path) -> Sequence[Row]:
    """Select the rows of problems that a router's training held out.

    Args:
        rows: Rows of any problems.
        router: The router's checkpoint folder.

    Returns:
        The selected rows; all rows if the folder has no report.

    Raises:
        RowError: If no row is of a held-out problem.
    """
    report = read_report(router)
    if report is None:
        return rows
    held_out_problems = set(report["held_out_problems"])
    selected = [row for row in rows if row.problem.id in held_out_problems]
    if not selected:
        raise RowError(
            f"no row is of a problem that the training of {str(router)!r} held out "
            f"(key of its rows: {report['settings']['rows']})",
            hint="use --all-rows for rows of other problems",
        )
    return selected
