"""How a scoring model reads a solution, and what a router checkpoint says about itself."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from arbitrage.core.errors import CheckpointError, ConfigError
from arbitrage.core.types import Candidate, Source

FILE: Final = "arbitrage.json"
"""Stands beside ``config.json`` in a checkpoint that was made for this package."""
SCHEMA: Final = 1
KINDS: Final = ("prm", "router")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFormat:
    """What a scorer was trained to read, and what its number means.

    Raises:
        ConfigError: If a value is out of range.
    """

    kind: str
    """``prm``: probability that a step is good. ``router``: probability that the target would write a better one."""
    delimiter: str = "\n\n"
    annotation: Mapping[str, str] = field(default_factory=dict)
    """Words before each step that tell its author, by source; empty: no history annotation."""
    trained_for: Mapping[str, str] = field(default_factory=dict)
    """Names of the pair, by source; empty for a model that serves any pair."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Calibrated thresholds by name; ``default`` is used where none is given."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        for words in (self.annotation, self.trained_for):
            if words and set(words) != set(Source):
                raise ConfigError(f"annotation and trained_for need the keys draft and target, got {sorted(words)}")
        for name, value in self.thresholds.items():
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"threshold {name!r} must be in [0, 1], got {value}")

    def step_text(self, candidate: Candidate) -> str:
        """A step as the scorer reads it: its author's mark, then its text."""
        return self.annotation.get(candidate.source, "") + candidate.text

    def save(self, folder: Path) -> None:
        """Write the format into a checkpoint folder."""
        record = {"schema": SCHEMA, **asdict(self)}
        (folder / FILE).write_text(json.dumps(record, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "InputFormat":
        """Read the format of a checkpoint folder.

        Raises:
            CheckpointError: If there is none, it is not readable, or of a newer schema.
        """
        path = folder / FILE
        if not path.exists():
            raise CheckpointError(
                f"the checkpoint {str(folder)!r} has no {FILE}",
                hint="a scorer must say how it reads a solution; train it with this package or write the file",
            )
        try:
            record: dict[str, Any] = json.loads(path.read_text())
            schema = record.pop("schema")
            if schema != SCHEMA:
                raise CheckpointError(f"{path}: schema must be {SCHEMA}, got {schema!r}", hint="update arbitrage")
            return cls(**record)
        except (ConfigError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{path}: not an input format: {error}") from error
