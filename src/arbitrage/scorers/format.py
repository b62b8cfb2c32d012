"""The input format of a scoring model, and the file that records it in a checkpoint."""

import enum
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from arbitrage.core.errors import CheckpointError, ConfigError
from arbitrage.core.types import Problem, Source
from arbitrage.engines.encoding import Mark, part_ids
from arbitrage.engines.prompt import Prompt, prompt_of

FILE: Final = "arbitrage.json"
"""Lies beside ``config.json`` in a checkpoint of this package."""
SCHEMA: Final = 1
KINDS: Final = ("prm", "router")
Parts = Sequence[tuple[Source, str]]
"""A step's text by author, as :attr:`arbitrage.core.types.Candidate.parts` gives it."""


class Readout(enum.StrEnum):
    """How a head's raw outputs become one probability; every classification server returns such outputs."""

    PROBABILITY = "probability"
    """One output: its sigmoid. Two: the softmax of the second."""
    UPPER_HALF = "upper_half"
    """Classes in ascending order, an even number: the softmax of those above the middle."""
    ORDINAL = "ordinal"
    """One output for each edge between ascending bins, an odd number: the sigmoid of the middle one."""

    def fits(self, num_labels: int) -> bool:
        """Whether a head with ``num_labels`` outputs can be read this way."""
        if self is Readout.PROBABILITY:
            return num_labels in (1, 2)
        return num_labels >= 1 and num_labels % 2 == (self is Readout.ORDINAL)

    def probability(self, logits: Sequence[float]) -> float:
        """The probability, in [0, 1], of raw outputs; NaN stays NaN."""
        if self is Readout.ORDINAL or len(logits) == 1:
            return sigmoid(logits[len(logits) // 2])
        largest = max(logits)
        weights = [math.exp(value - largest) for value in logits]
        return sum(weights[len(weights) // 2 :]) / sum(weights)


def sigmoid(x: float) -> float:
    """The probability of a logit, without overflow."""
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0.0 else math.exp(x) / (1.0 + math.exp(x))


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFormat:
    """The input that a scorer was trained on, and the meaning of its number.

    Raises:
        ConfigError: If a value is out of range.
    """

    kind: str
    """``prm``: probability that a step is good. ``router``: probability that the target would write a better one."""
    delimiter: str = "\n\n"
    system: str = ""
    """System message of the chat template."""
    prompt: str = ""
    """A named prompt, or a plain template with ``{question}``; empty for the model's chat template."""
    annotation: Mapping[str, str] = field(default_factory=dict)
    """The words before each step that name its author, by source; empty for no history annotation."""
    trained_for: Mapping[str, str] = field(default_factory=dict)
    """Names of the pair's models, by source; empty for a scorer of any pair."""
    readout: Readout = Readout.PROBABILITY
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Calibrated thresholds by name; ``default`` is used if none is given."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        for words in (self.annotation, self.trained_for):
            if words and set(words) != set(Source):
                raise ConfigError(f"annotation and trained_for need the keys draft and target, got {sorted(words)}")
        for name, value in self.thresholds.items():
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"threshold {name!r} must be in [0, 1], got {value}")

    @property
    def question_prompt(self) -> Prompt:
        """The prompt that stands before the steps."""
        return prompt_of(self.prompt, system=self.system)

    def step_ids(self, tokenizer: Any, parts: Parts) -> list[int]:
        """Ids of a step with each author's mark in front of its part, encoded alone.

        Control tokens come only from the marks.

        Raises:
            ProblemError: If the tokenizer cannot encode it.
        """
        if not self.annotation:
            return part_ids(tokenizer, ["".join(text for _, text in parts)])
        marked = [part for source, text in parts for part in (Mark(self.annotation.get(source, "")), text)]
        return part_ids(tokenizer, marked)

    def encode(self, tokenizer: Any, problem: Problem, steps: Iterable[Parts]) -> list[list[int]]:
        """Encode a solution as it is scored: the problem, then each step alone.

        Args:
            tokenizer: The scorer's.
            problem: What is solved.
            steps: The parts of each step.

        Returns:
            Ids of the problem's prompt and of each step; joined they are what the model reads.
        """
        prompt = self.question_prompt.encode(tokenizer, problem)
        return [prompt, *(self.step_ids(tokenizer, parts) for parts in steps)]

    def save(self, folder: Path) -> None:
        """Write the format into a checkpoint folder, whole or not at all."""
        record, partial = {"schema": SCHEMA, **asdict(self)}, (folder / FILE).with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=2) + "\n")
        partial.replace(folder / FILE)

    @classmethod
    def load(cls, folder: Path, kind: str = "") -> "InputFormat":
        """Read the format of a checkpoint folder.

        Args:
            folder: The checkpoint.
            kind: The kind that it must have; empty for any.

        Raises:
            CheckpointError: If there is none, or it cannot be read, has a newer schema or another kind.
        """
        input_format = cls._read(folder)
        if kind and input_format.kind != kind:
            raise CheckpointError(f"the checkpoint {str(folder)!r} is a {input_format.kind}, expected a {kind}")
        return input_format

    @classmethod
    def _read(cls, folder: Path) -> "InputFormat":
        path = folder / FILE
        if not folder.is_dir():
            raise CheckpointError(f"no checkpoint folder at {str(folder)!r}", hint="train one, or name another")
        if not path.exists():
            raise CheckpointError(
                f"the checkpoint {str(folder)!r} has no {FILE}",
                hint="the file describes the scorer's input; train the scorer with this package, or write the file",
            )
        try:
            record: dict[str, Any] = json.loads(path.read_text())
            schema = record.pop("schema")
            if schema != SCHEMA:
                raise CheckpointError(f"{path}: schema must be {SCHEMA}, got {schema!r}", hint="update arbitrage")
            readout = Readout(record.pop("readout", Readout.PROBABILITY))
            return cls(**record, readout=readout)
        except (ConfigError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{path}: not an input format: {error}") from error
