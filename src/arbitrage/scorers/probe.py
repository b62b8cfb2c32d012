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
from arbitrage.core.ports import OpenSolution
from arbitrage.core.types import Candidate, Cost, Score
from arbitrage.scorers.format import InputFormat, sigmoid
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
NUM_LIKELIHOODS: Final = 8


class Inputs(StrEnum):
    """What a probe reads of a draft step."""

    CONFIDENCE = "confidence"
    """The draft's log-probabilities, length and position; free."""
    STATE = "state"
    """The same and the draft's last hidden state."""
    LIKELIHOODS = "likelihoods"
    """What is free, and how likely the step is to the target; one forward pass of the target."""


_NEEDS: Final = {
    Inputs.CONFIDENCE: " and first-token entropy",
    Inputs.STATE: ", first-token entropy and hidden state",
    Inputs.LIKELIHOODS: ", and the target's",
}


def is_probe(folder: Path) -> bool:
    """Whether a checkpoint folder holds a probe."""
    try:
        return bool(json.loads((folder / CONFIG).read_text()).get("model_type") == MODEL_TYPE)
    except (OSError, ValueError, AttributeError):
        return False


def features(candidate: Candidate, step: int, inputs: Inputs, likelihood: float | None = None) -> list[float]:
    """What a probe reads of a draft step.

    Args:
        candidate: With log-probabilities; with the entropy of its first token for ``confidence`` and ``state``.
        step: Its position in the solution, from 0.
        inputs: Which features.
        likelihood: The score that the target's :class:`~arbitrage.scorers.likelihood.LikelihoodScorer` gave it.

    Returns:
        Sum, mean and least of the log-probabilities (nats), tokens, position, and then for

        - ``confidence`` the entropy of the first token (nats),
        - ``state`` the same and the last layer's state at the last token,
        - ``likelihoods`` the first token's log-probability, which servers tell where they do not tell an entropy, and
          log(1 - log p) of the step under draft and target: differences among likely steps matter most.

    Raises:
        ScorerError: If the draft's engine did not say these.
    """
    logprobs, entropy, state = candidate.logprobs, candidate.first_entropy, candidate.hidden_state
    if logprobs is not None:
        total, least, tokens = sum(logprobs), min(logprobs, default=0.0), float(len(logprobs))
        common = [total, total / max(1.0, tokens), least, tokens, float(step)]
        if inputs is Inputs.LIKELIHOODS and likelihood is not None:
            unlikely = [math.log1p(-min(0.0, total)), math.log1p(-log_probability_of(likelihood))]
            return [*common, logprobs[0] if logprobs else 0.0, *unlikely]
        if inputs is Inputs.CONFIDENCE and entropy is not None:
            return [*common, entropy]
        if inputs is Inputs.STATE and entropy is not None and state is not None:
            return [*common, entropy, *state]
    raise ScorerError(
        f"a probe on {inputs} needs the draft's log-probabilities{_NEEDS[inputs]}",
        hint="use an engine that keeps them, such as hf with keeps_hidden_state",
    )


def unasked_score(candidate: Candidate, inputs: Inputs, ask_above: float) -> float | None:
    """The score of a step that the draft is too sure of to ask the target: how unlikely it is to the draft itself.

    Returns:
        At most ``ask_above``; None if the target is to be asked, or the probe never asks it.
    """
    if inputs is not Inputs.LIKELIHOODS or candidate.logprobs is None or ask_above == 0.0:
        return None
    value = score_of(sum(candidate.logprobs))
    return value if value <= ask_above else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeHead:
    """A perceptron with one hidden layer of ReLU units over standardised features."""

    inputs: Inputs
    ask_above: float = 0.0
    """On ``likelihoods``: a step no more unlikely than this to the draft scores just that, the target unasked."""
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
        inputs = (np.asarray(values, np.float32) - self.mean) / self.scale
        units = np.maximum(inputs @ self.inner + self.inner_bias, 0)
        return sigmoid(float(units @ self.outer + self.outer_bias[0]))

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
            head = cls(inputs=inputs, ask_above=ask_above, **load_file(folder / WEIGHTS))
        except (OSError, SafetensorError, TypeError, LookupError, ValueError) as error:
            raise CheckpointError(f"cannot read the probe in {str(folder)!r}: {first_line(error)}") from error
        wanted = {Inputs.CONFIDENCE: NUM_CONFIDENCE, Inputs.LIKELIHOODS: NUM_LIKELIHOODS}.get(inputs, len(head.mean))
        if len(head.mean) != wanted:
            raise CheckpointError(
                f"the probe in {str(folder)!r} reads {len(head.mean)} numbers, {inputs} are {wanted}",
                hint="it is of another version: train it again",
            )
        return head


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

    async def open(self, solution: OpenSolution) -> "ProbeScoring":
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
        value = unasked_score(candidate, head.inputs, head.ask_above)
        asked = await self._likelihood.score(candidate) if self._likelihood and value is None else None
        started = time.perf_counter()
        if value is None:
            value = head.probability(features(candidate, self._num_steps, head.inputs, asked.value if asked else None))
        own = Cost(num_calls=0 if asked else 1, seconds=time.perf_counter() - started)
        cost = asked.cost + own if asked else own
        return Score(scorer=self._scorer.name, source=candidate.source, value=value, cost=cost)

    async def commit(self, candidate: Candidate) -> None:
        """Count a step."""
        self._num_steps += 1

    async def close(self) -> None:
        """Hold nothing."""
