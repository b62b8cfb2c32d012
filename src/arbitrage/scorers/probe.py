"""A router that calls no model: a small head on how sure the draft was of its step, and on its hidden state."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from arbitrage.core.errors import CheckpointError, MissingExtra, ScorerError, first_line
from arbitrage.core.types import Candidate, Cost, Problem, Score
from arbitrage.scorers.format import InputFormat

try:
    import numpy as np
    from numpy.typing import NDArray
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save_file
except ImportError as error:
    raise MissingExtra("hf") from error

Array = NDArray[np.float32]
CONFIG: Final = "config.json"
MODEL_TYPE: Final = "arbitrage_probe"
"""In ``config.json``; tells a probe from a model of transformers."""
WEIGHTS: Final = "model.safetensors"
NUM_CHEAP: Final = 6
"""Features beside the hidden state."""


def is_probe(folder: Path) -> bool:
    """Whether a checkpoint folder holds a probe."""
    try:
        return bool(json.loads((folder / CONFIG).read_text()).get("model_type") == MODEL_TYPE)
    except (OSError, ValueError, AttributeError):
        return False


def features(candidate: Candidate, step: int, *, reads_state: bool = True) -> list[float]:
    """What a probe reads of a draft step.

    Args:
        candidate: With log-probabilities, the entropy of the first token, and where it is read the hidden state.
        step: Its position in the solution, from 0.
        reads_state: Whether the hidden state is among the features.

    Returns:
        Sum, mean and least of the log-probabilities (nats), entropy of the first token (nats), tokens, position; then
        the last layer's state at the last token.

    Raises:
        ScorerError: If the draft's engine did not say these.
    """
    state, logprobs, entropy = candidate.hidden_state, candidate.logprobs, candidate.first_entropy
    if logprobs is None or entropy is None or (reads_state and state is None):
        also = ", and its hidden state" if reads_state else ""
        raise ScorerError(
            f"this probe router needs the draft's log-probabilities and entropy{also}",
            hint="use an engine that keeps them, such as hf with keeps_hidden_state",
        )
    total, num_tokens = sum(logprobs), len(logprobs)
    cheap = [total, total / max(1, num_tokens), min(logprobs, default=0.0), entropy, float(num_tokens), float(step)]
    return [*cheap, *state] if reads_state and state is not None else cheap


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeHead:
    """A perceptron with one hidden layer of ReLU units over standardised features."""

    mean: Array
    """Shape [features]."""
    scale: Array
    """Standard deviations, shape [features]."""
    inner: Array
    """Shape [features, units]."""
    inner_bias: Array
    outer: Array
    """Shape [units]."""
    outer_bias: Array
    """Shape [1]."""

    @property
    def reads_state(self) -> bool:
        """Whether the draft's hidden state is among the features."""
        return len(self.mean) > NUM_CHEAP

    def probability(self, values: Sequence[float]) -> float:
        """Read one step.

        Args:
            values: As :func:`features` gives them.

        Raises:
            ScorerError: If there are more or fewer than the probe was trained on.
        """
        if len(values) != len(self.mean):
            raise ScorerError(
                f"the probe reads a hidden state of {len(self.mean) - NUM_CHEAP} numbers, "
                f"the draft gave {len(values) - NUM_CHEAP}",
                hint="a probe serves only the draft that it was trained for",
            )
        units = np.maximum((np.asarray(values, np.float32) - self.mean) / self.scale @ self.inner + self.inner_bias, 0)
        return float(1.0 / (1.0 + np.exp(-(units @ self.outer + self.outer_bias[0]))))

    def save(self, folder: Path) -> None:
        """Write weights and configuration into a checkpoint folder."""
        save_file({name: getattr(self, name) for name in self.__slots__}, folder / WEIGHTS)
        record = {"model_type": MODEL_TYPE, "num_features": len(self.mean), "num_units": len(self.outer)}
        (folder / CONFIG).write_text(json.dumps(record, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the weights of a checkpoint folder.

        Raises:
            CheckpointError: If they are missing or broken.
        """
        try:
            return cls(**load_file(folder / WEIGHTS))
        except (OSError, SafetensorError, TypeError) as error:
            raise CheckpointError(f"cannot read the probe in {str(folder)!r}: {first_line(error)}") from error


class ProbeScorer:
    """A probe as a router: same protocol, no model call."""

    def __init__(self, head: ProbeHead, *, name: str, input_format: InputFormat) -> None:
        self.head, self._name, self.input_format = head, name, input_format

    @classmethod
    def load(cls, path: str | Path, *, name: str) -> Self:
        """Load a checkpoint folder.

        Raises:
            CheckpointError: If it is missing or broken.
        """
        return cls(ProbeHead.load(Path(path)), name=name, input_format=InputFormat.load(Path(path)))

    @property
    def name(self) -> str:
        """How policies and traces call it."""
        return self._name

    async def open(self, problem: Problem) -> "ProbeScoring":
        """Start judging a problem."""
        return ProbeScoring(self)


class ProbeScoring:
    """Counts the steps of one problem."""

    def __init__(self, scorer: ProbeScorer) -> None:
        self._scorer, self._num_steps = scorer, 0

    async def score(self, candidate: Candidate) -> Score:
        """Score a draft step; see :class:`arbitrage.core.ports.ScoringSession`."""
        started = time.perf_counter()
        value = self._scorer.head.probability(self._features(candidate))
        cost = Cost(num_calls=1, seconds=time.perf_counter() - started)
        return Score(scorer=self._scorer.name, source=candidate.source, value=value, cost=cost)

    def _features(self, candidate: Candidate) -> list[float]:
        return features(candidate, self._num_steps, reads_state=self._scorer.head.reads_state)

    async def commit(self, candidate: Candidate) -> None:
        """Count a step."""
        self._num_steps += 1

    async def close(self) -> None:
        """Nothing is held."""
