"""Probes: routers without a language model, a small head on a draft step's log-probabilities, likelihood or state."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from pathlib import Path
from typing import Final, Self

from arbitrage.core.errors import CheckpointError, MissingExtra, ScorerError, first_line
from arbitrage.core.ports import OpenSolution
from arbitrage.core.types import Candidate, Cost, Progress, Score
from arbitrage.scorers.format import InputFormat, sigmoid
from arbitrage.scorers.likelihood import LikelihoodScorer, LikelihoodScoring, log_probability_of, score_of
from arbitrage.scorers.step_features import NUM_STEP_FEATURES, step_features

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
"""The value of ``model_type`` in ``config.json``; it distinguishes a probe from a model of transformers."""
WEIGHTS: Final = "model.safetensors"
NUM_CONFIDENCE: Final = 6
"""The number of features of ``confidence``; ``state`` adds the hidden state."""
NUM_LIKELIHOODS: Final = 8
"""The number of features of ``likelihoods``."""


class Inputs(StrEnum):
    """The features that a probe reads of a draft step."""

    CONFIDENCE = "confidence"
    """The draft's log-probabilities, length and position; they cost nothing."""
    STATE = "state"
    """The same and the draft's last hidden state."""
    LIKELIHOODS = "likelihoods"
    """The draft's log-probabilities, length and position, and the likelihood of the step under the target, which costs
    one forward pass of the target."""
    STEP = "step"
    """The numbers of :mod:`arbitrage.scorers.step_features`; they cost nothing."""
    STEP_LIKELIHOODS = "step-likelihoods"
    """The same and the likelihood of the step under the target."""

    @property
    def reads_target(self) -> bool:
        """Whether the target reads the step."""
        return self in (Inputs.LIKELIHOODS, Inputs.STEP_LIKELIHOODS)


_NEEDS: Final = {
    Inputs.CONFIDENCE: " and first-token entropy",
    Inputs.STATE: ", first-token entropy and hidden state",
    Inputs.LIKELIHOODS: " and the target's",
    Inputs.STEP: " and first-token entropy",
    Inputs.STEP_LIKELIHOODS: ", first-token entropy and the target's log-probabilities",
}
"""The values that each kind of input needs beside the draft's log-probabilities, for an error message."""


def is_probe(folder: Path) -> bool:
    """Whether a checkpoint folder holds a probe."""
    try:
        return bool(json.loads((folder / CONFIG).read_text()).get("model_type") == MODEL_TYPE)
    except (OSError, ValueError, AttributeError):
        return False


NUM_FEATURES: Final = {
    Inputs.CONFIDENCE: NUM_CONFIDENCE,
    Inputs.LIKELIHOODS: NUM_LIKELIHOODS,
    Inputs.STEP: NUM_STEP_FEATURES,
    Inputs.STEP_LIKELIHOODS: NUM_STEP_FEATURES + 1,
}
"""The number of features by inputs, except for ``state``, where it depends on the draft."""


def features(
    candidate: Candidate, step: int, inputs: Inputs, likelihood: float | None = None, *, context: str = ""
) -> list[float]:
    """Compute the features of a draft step.

    Args:
        candidate: The step, with log-probabilities; except for ``likelihoods`` with the entropy of its first token,
            for ``state`` with its hidden state.
        step: The step's position in the solution, from 0.
        inputs: The kind of features.
        likelihood: The step's score by :class:`~arbitrage.scorers.likelihood.LikelihoodScorer`; only for inputs that
            read the target.
        context: The question and all earlier steps; only for ``step`` and ``step-likelihoods``.

    Returns:
        For ``step`` those of :func:`~arbitrage.scorers.step_features.step_features`, for ``step-likelihoods`` also
        log(1 - log p) of the step under the target. For the others, sum, mean and minimum of the log-probabilities
        (nats), number of tokens, position, and then for

        - ``confidence``: the entropy of the first token (nats),
        - ``state``: the same and the last layer's state at the last token,
        - ``likelihoods``: the first token's log-probability, which servers return even if they return no entropy, and
          log(1 - log p) of the step under draft and target; the logarithm spreads the values of likely steps.

    Raises:
        ScorerError: If the draft's engine did not return one of these values.
    """
    if inputs in (Inputs.STEP, Inputs.STEP_LIKELIHOODS):
        values = step_features(candidate, step, context)
        if values is None or (inputs.reads_target and likelihood is None):
            raise _missing(inputs)
        return values if likelihood is None else [*values, math.log1p(-log_probability_of(likelihood))]
    logprobs, entropy, state = candidate.logprobs, candidate.first_entropy, candidate.hidden_state
    if logprobs is not None:
        total, lowest, tokens = sum(logprobs), min(logprobs, default=0.0), float(len(logprobs))
        common = [total, total / max(1.0, tokens), lowest, tokens, float(step)]
        if inputs is Inputs.LIKELIHOODS and likelihood is not None:
            unlikely = [math.log1p(-min(0.0, total)), math.log1p(-log_probability_of(likelihood))]
            return [*common, logprobs[0] if logprobs else 0.0, *unlikely]
        if inputs is Inputs.CONFIDENCE and entropy is not None:
            return [*common, entropy]
        if inputs is Inputs.STATE and entropy is not None and state is not None:
            return [*common, entropy, *state]
    raise _missing(inputs)


def _missing(inputs: Inputs) -> ScorerError:
    return ScorerError(
        f"a probe on {inputs} needs the draft's log-probabilities{_NEEDS[inputs]}",
        hint="use an engine that returns them, such as hf; a hidden state needs keeps_hidden_state",
    )


def joined(context: str, step: str) -> str:
    """The question and earlier steps with a further step."""
    return f"{context}\n{step}"


def unasked_score(candidate: Candidate, inputs: Inputs, ask_above: float) -> float | None:
    """Score a step without the target if the step is likely enough under the draft.

    Args:
        candidate: The draft's step.
        inputs: The probe's inputs.
        ask_above: The highest score under the draft for which the target is not called.

    Returns:
        The step's :func:`~arbitrage.scorers.likelihood.score_of` under the draft, at most ``ask_above``. None if the
        step is less likely, or the probe does not read the target's likelihood.
    """
    if not inputs.reads_target or candidate.logprobs is None or ask_above == 0.0:
        return None
    value = score_of(sum(candidate.logprobs))
    return value if value <= ask_above else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeHead:
    """A perceptron with one hidden layer of ReLU units on standardised features."""

    inputs: Inputs
    ask_above: float = 0.0
    """For inputs that read the target: see :func:`unasked_score`; 0 always calls the target."""
    floor: tuple[tuple[float, float], ...] = ()
    """Pairs of a score and a log-probability (nats): a step that the draft gives less than this probability, or a
    beginning of it, has at least this score. So a step can be rejected before it is complete."""
    mean: Array
    """Means of the features, shape [features]."""
    scale: Array
    """Standard deviations of the features, shape [features]."""
    inner: Array
    """Shape [features, units]."""
    inner_bias: Array
    """Shape [units]."""
    outer: Array
    """Shape [units]."""
    outer_bias: Array
    """Shape [1]."""

    def lowest(self, logprob: float) -> float:
        """The least score of a step whose beginning has the log-probability ``logprob`` under the draft."""
        return max((score for score, bound in self.floor if logprob < bound), default=0.0)

    def probability(self, values: Sequence[float]) -> float:
        """Compute the probability that the target's step is better.

        Args:
            values: The features of a draft step, from :func:`features`.

        Raises:
            ScorerError: If the number of features is not that of the training.
        """
        if len(values) != len(self.mean):
            raise ScorerError(
                f"the probe reads a hidden state of {len(self.mean) - NUM_CONFIDENCE} numbers, "
                f"the draft gave {len(values) - NUM_CONFIDENCE}",
                hint="use the probe with the draft that it was trained for",
            )
        inputs = (np.asarray(values, np.float32) - self.mean) / self.scale
        units = np.maximum(inputs @ self.inner + self.inner_bias, 0)
        return sigmoid(float(units @ self.outer + self.outer_bias[0]))

    def save(self, folder: Path) -> None:
        """Write weights and configuration into a checkpoint folder."""
        arrays = {name: getattr(self, name) for name in self.__slots__ if name not in ("inputs", "ask_above", "floor")}
        save_file(arrays, folder / WEIGHTS)
        record = {"model_type": MODEL_TYPE, "inputs": self.inputs, "ask_above": self.ask_above}
        record |= {"floor": self.floor} if self.floor else {}
        (folder / CONFIG).write_text(json.dumps(record, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read weights and configuration of a checkpoint folder.

        Raises:
            CheckpointError: If they are missing or broken, or of another version.
        """
        try:
            config = json.loads((folder / CONFIG).read_text())
            inputs, ask_above = Inputs(config["inputs"]), float(config["ask_above"])
            floor = tuple((float(score), float(bound)) for score, bound in config.get("floor", ()))
            head = cls(inputs=inputs, ask_above=ask_above, floor=floor, **load_file(folder / WEIGHTS))
        except (OSError, SafetensorError, TypeError, LookupError, ValueError) as error:
            raise CheckpointError(
                f"cannot read the probe in {str(folder)!r}: {first_line(error)}", hint="train the probe again"
            ) from error
        expected = NUM_FEATURES.get(inputs, len(head.mean))
        if len(head.mean) != expected:
            raise CheckpointError(
                f"the probe in {str(folder)!r} reads {len(head.mean)} features, this version has {expected} "
                f"for the inputs {inputs}",
                hint="train the probe again with this version",
            )
        return head


class ProbeScorer:
    """A router that scores draft steps with a probe."""

    def __init__(self, head: ProbeHead, *, name: str, input_format: InputFormat) -> None:
        """Wrap a head.

        Args:
            head: The probe's weights.
            name: The scorer's name in policies and traces.
            input_format: Names the pair that the probe was trained for, and holds its thresholds.
        """
        self.head, self._name, self.input_format = head, name, input_format

    @property
    def name(self) -> str:
        """The scorer's name in policies and traces."""
        return self._name

    def lowest(self, progress: Progress) -> float:
        """See :class:`arbitrage.core.ports.BoundsScores`."""
        return self.head.lowest(progress.logprob)

    async def open(self, solution: OpenSolution) -> "ProbeScoring":
        """Open a session for one solution."""
        likelihood = await LikelihoodScorer().open(solution) if self.head.inputs.reads_target else None
        return ProbeScoring(self, likelihood, question=solution.problem.text)


class ProbeScoring:
    """A session of a probe: counts the steps of one solution, and calls the target if the head reads its likelihood."""

    def __init__(self, scorer: ProbeScorer, likelihood: LikelihoodScoring | None, *, question: str) -> None:
        self._scorer, self._likelihood, self._num_steps = scorer, likelihood, 0
        self._context = question

    async def score(self, candidate: Candidate) -> Score:
        """Score a draft step; see :class:`arbitrage.core.ports.ScoringSession`."""
        head = self._scorer.head
        value = unasked_score(candidate, head.inputs, head.ask_above)
        by_target = await self._likelihood.score(candidate) if self._likelihood and value is None else None
        started = time.perf_counter()
        if value is None:
            likelihood = by_target.value if by_target else None
            value = head.probability(
                features(candidate, self._num_steps, head.inputs, likelihood, context=self._context)
            )
        value = max(value, head.lowest(min(accumulate(candidate.logprobs or (0.0,)), default=0.0)))
        cost = Cost(num_calls=0 if by_target else 1, seconds=time.perf_counter() - started)
        if by_target:
            cost = by_target.cost + cost
        return Score(scorer=self._scorer.name, source=candidate.source, value=value, cost=cost)

    async def commit(self, candidate: Candidate) -> None:
        """Count a step, and keep its text."""
        self._num_steps += 1
        self._context = joined(self._context, candidate.text)

    async def close(self) -> None:
        """Do nothing: the session holds no resources."""
