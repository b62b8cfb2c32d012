"""Routers that are no model of their own: a small head on how likely the draft's step is, and on its hidden state."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from arbitrage.core.errors import CheckpointError, MissingExtra, ScorerError, first_line
from arbitrage.core.ports import Solution
from arbitrage.core.types import Candidate, Cost, Score
from arbitrage.scorers.format import InputFormat
from arbitrage.scorers.likelihood import LikelihoodScorer, LikelihoodScoring, log_probability_of, score_of

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
NUM_CONFIDENCE: Final = 6
"""Features beside the hidden state."""


class Inputs(StrEnum):
    """What a probe reads of a draft step."""

    CONFIDENCE = "confidence"
    """The draft's log-probabilities, length and position; free."""
    STATE = "state"
    """The same and the draft's last hidden state."""
    LIKELIHOODS = "likelihoods"
    """How likely the step is to the draft and to the target; one forward pass of the target."""


def is_probe(folder: Path) -> bool:
    """Whether a checkpoint folder holds a probe."""
    try:
        return bool(json.loads((folder / CONFIG).read_text()).get("model_type") == MODEL_TYPE)
    except (OSError, ValueError, AttributeError):
        return False


def features(candidate: Candidate, step: int, inputs: Inputs, likelihood: float | None = None) -> list[float]:
    """What a probe reads of a draft step.

    Args:
        candidate: With log-probabilities, and for all but ``likelihoods`` the entropy of its first token.
        step: Its position in the solution, from 0.
        inputs: Which features.
        likelihood: The score that the target's :class:`~arbitrage.scorers.likelihood.LikelihoodScorer` gave it.

    Returns:
        For ``likelihoods`` log(1 - log p) of the step under draft and target. Else sum, mean and least of the
        log-probabilities (nats), entropy of the first token (nats), tokens, position; for ``state`` behind them the
        last layer's state at the last token.

    Raises:
        ScorerError: If the draft's engine did not say these.
    """
    state, logprobs, entropy = candidate.hidden_state, candidate.logprobs, candidate.first_entropy
    total = sum(logprobs or ())
    if inputs is Inputs.LIKELIHOODS and logprobs is not None and likelihood is not None:
        return [math.log1p(-min(0.0, total)), math.log1p(-log_probability_of(likelihood))]
    if (
        inputs is Inputs.LIKELIHOODS
        or logprobs is None
        or entropy is None
        or (inputs is Inputs.STATE and state is None)
    ):
        raise ScorerError(
            f"a probe on {inputs} needs the draft's log-probabilities, entropy and for 'state' its hidden state",
            hint="use an engine that keeps them, such as hf with keeps_hidden_state",
        )
    mean = total / max(1, len(logprobs))
    confidence = [total, mean, min(logprobs, default=0.0), entropy, float(len(logprobs)), float(step)]
    return [*confidence, *(state or ())] if inputs is Inputs.STATE else confidence


def is_kept_unasked(candidate: Candidate, inputs: Inputs, ask_above: float) -> bool:
    """Whether the draft is so sure of a step that the target need not be asked how likely it is."""
    is_known = inputs is Inputs.LIKELIHOODS and candidate.logprobs is not None
    return is_known and ask_above > 0.0 and score_of(sum(candidate.logprobs or ())) <= ask_above


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeHead:
    """A perceptron with one hidden layer of ReLU units over standardised features, or a logistic regression."""

    inputs: Inputs
    ask_above: float = 0.0
    """On ``likelihoods``: a step no more unlikely than this to the draft itself scores 0, the target unasked."""
    mean: Array
    """Shape [features]."""
    scale: Array
    """Standard deviations, shape [features]."""
    inner: Array
    """Shape [features, units]; without units the features go to ``outer``."""
    inner_bias: Array
    outer: Array
    """Shape [units], or [features]."""
    outer_bias: Array
    """Shape [1]."""

    def probability(self, values: Sequence[float]) -> float:
        """Read one step.

        Args:
            values: As :func:`features` gives them.

        Raises:
            ScorerError: If there are more or fewer than the probe was trained on.
        """
        if len(values) != len(self.mean):
            raise ScorerError(
                f"the probe reads a hidden state of {len(self.mean) - NUM_CONFIDENCE} numbers, "
                f"the draft gave {len(values) - NUM_CONFIDENCE}",
                hint="a probe serves only the draft that it was trained for",
            )
        units = (np.asarray(values, np.float32) - self.mean) / self.scale
        if self.inner.size:
            units = np.maximum(units @ self.inner + self.inner_bias, 0)
        return float(1.0 / (1.0 + np.exp(-(units @ self.outer + self.outer_bias[0]))))

    def save(self, folder: Path) -> None:
        """Write weights and configuration into a checkpoint folder."""
        arrays = {name: getattr(self, name) for name in self.__slots__ if name not in ("inputs", "ask_above")}
        save_file(arrays, folder / WEIGHTS)
        record = {"model_type": MODEL_TYPE, "inputs": self.inputs, "ask_above": self.ask_above}
        (folder / CONFIG).write_text(json.dumps(record, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the weights of a checkpoint folder.

        Raises:
            CheckpointError: If they are missing or broken.
        """
        try:
            config = json.loads((folder / CONFIG).read_text())
            inputs, ask_above = Inputs(config["inputs"]), float(config["ask_above"])
            return cls(inputs=inputs, ask_above=ask_above, **load_file(folder / WEIGHTS))
        except (OSError, SafetensorError, TypeError, LookupError, ValueError) as error:
            raise CheckpointError(f"cannot read the probe in {str(folder)!r}: {first_line(error)}") from error


class ProbeScorer:
    """A probe as a router: same protocol, no model of its own."""

    def __init__(self, head: ProbeHead, *, name: str, input_format: InputFormat) -> None:
        """Wrap a head.

        Args:
            head: Its weights.
            name: How policies and traces call it.
            input_format: Names the pair that it was trained for, and its thresholds.
        """
        self.head, self._name, self.input_format = head, name, input_format

    @property
    def name(self) -> str:
        """How policies and traces call it."""
        return self._name

    async def open(self, solution: Solution) -> "ProbeScoring":
        """Start judging a solution."""
        asks = self.head.inputs is Inputs.LIKELIHOODS
        return ProbeScoring(self, await LikelihoodScorer().open(solution) if asks else None)


class ProbeScoring:
    """Counts the steps of one solution, and asks the target where the head reads its likelihood."""

    def __init__(self, scorer: ProbeScorer, likelihood: LikelihoodScoring | None) -> None:
        self._scorer, self._likelihood, self._num_steps = scorer, likelihood, 0

    async def score(self, candidate: Candidate) -> Score:
        """Score a draft step; see :class:`arbitrage.core.ports.ScoringSession`."""
        head = self._scorer.head
        is_sure = is_kept_unasked(candidate, head.inputs, head.ask_above)
        asked = await self._likelihood.score(candidate) if self._likelihood and not is_sure else None
        value, started = 0.0, time.perf_counter()
        if not is_sure:
            value = head.probability(features(candidate, self._num_steps, head.inputs, asked.value if asked else None))
        own = Cost(num_calls=0 if asked else 1, seconds=time.perf_counter() - started)
        cost = asked.cost + own if asked else own
        return Score(scorer=self._scorer.name, source=candidate.source, value=value, cost=cost)

    async def commit(self, candidate: Candidate) -> None:
        """Count a step."""
        self._num_steps += 1

    async def close(self) -> None:
        """Hold nothing."""
