"""Classification checkpoints of transformers as PRM or router, scored incrementally."""

import time
from pathlib import Path
from typing import Protocol, cast

from arbitrage.core.errors import CheckpointError, MissingExtra, ScorerError
from arbitrage.core.ports import OpenSolution
from arbitrage.core.types import Candidate, Cost, Problem, Score
from arbitrage.engines.prompt import Prompt
from arbitrage.engines.worker import CancelFlag, Worker, worker_for
from arbitrage.scorers.families import StepIds, checked_probability
from arbitrage.scorers.format import InputFormat

try:
    from transformers import (
        AutoConfig,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

    from arbitrage.engines.hf import load_checkpoint
    from arbitrage.engines.hf_cache import CachedSequence, computing
except ImportError as error:
    raise MissingExtra("hf") from error


class StepReader(Protocol):
    """What a session asks of its scorer."""

    model: PreTrainedModel
    worker: Worker

    @property
    def name(self) -> str:
        """How policies and traces call it."""

    def step_ids(self, problem: Problem, index: int, candidate: Candidate) -> StepIds:
        """Ids of a step at a position of the solution."""

    def probability(self, sequence: CachedSequence, ids: list[int]) -> tuple[float, int]:
        """Read the score at the last of ``ids``; returns it, and how many tokens were cached."""


class HFScorer:
    """A sequence- or token-classification model that reads its head at the last token of a step."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        input_format: InputFormat,
        prompt: Prompt | None = None,
    ) -> None:
        """Wrap a loaded model.

        Args:
            model: A classifier with a head called ``score``.
            tokenizer: Its tokenizer.
            name: How policies and traces call it.
            input_format: What the model was trained to read.
            prompt: Defaults to the format's.

        Raises:
            CheckpointError: If the model has no such head.
            ConfigError: If the prompt cannot be used with this tokenizer.
        """
        num_labels = model.config.num_labels
        if not hasattr(model, "score") or not input_format.readout.fits(num_labels):
            raise CheckpointError(
                f"the scorer {name!r} needs a head `score` that can be read as {input_format.readout.value!r}, "
                f"got {num_labels} labels"
            )
        self.model, self.tokenizer, self._name = model.eval(), tokenizer, name
        self.input_format, self.prompt = input_format, prompt or input_format.question_prompt
        self.prompt.check(tokenizer)
        self.worker = worker_for(str(model.device))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        name: str,
        kind: str,
        device: str = "cpu",
        dtype: str = "float32",
        prompt: Prompt | None = None,
    ) -> "HFScorer":
        """Load a checkpoint that carries its input format.

        Args:
            path: A checkpoint folder.
            name: How policies and traces call it.
            kind: ``prm`` or ``router``; must be what the checkpoint says.
            device: A torch device.
            dtype: A torch dtype.
            prompt: Defaults to the format's.

        Raises:
            CheckpointError: If it is missing, broken, or of the other kind.
        """
        input_format = InputFormat.load(Path(path), kind)
        loader = _loader(path)
        model, tokenizer = load_checkpoint(loader, path, device=device, dtype=dtype)
        return cls(model, tokenizer, name=name, input_format=input_format, prompt=prompt)

    @property
    def name(self) -> str:
        """How policies and traces call it."""
        return self._name

    def renamed(self, name: str) -> "HFScorer":
        """The same model under another name, with sessions of its own."""
        return HFScorer(self.model, self.tokenizer, name=name, input_format=self.input_format, prompt=self.prompt)

    async def open(self, solution: OpenSolution) -> "HFScoring":
        """Start judging a solution; nothing is computed yet."""
        problem = solution.problem
        return HFScoring(self, problem, self.prompt.encode(self.tokenizer, problem))

    def step_ids(self, problem: Problem, index: int, candidate: Candidate) -> StepIds:
        """Ids of a step; the same wherever it stands."""
        return StepIds(scored=tuple(self.input_format.step_ids(self.tokenizer, candidate.source, candidate.text)))

    def probability(self, sequence: CachedSequence, ids: list[int]) -> tuple[float, int]:
        """Read the head at the last of ``ids``, computing only what ``sequence`` lacks.

        Returns:
            The probability, and how many tokens were cached.

        Raises:
            ScorerError: If the context is too short, or the head gives no number.
        """
        num_cached = reuse(sequence, ids, self)
        logits = self.model.score(sequence.states(ids[num_cached:])[-1]).float()
        value = self.input_format.readout.probability(logits.tolist())
        return checked_probability(value, self.name), num_cached


def reuse(sequence: CachedSequence, ids: list[int], scorer: StepReader) -> int:
    """Crop a scorer's cache to what it shares with ``ids``; returns how many of them need no computing.

    Raises:
        ScorerError: If the context is too short.
    """
    longest = getattr(scorer.model.config, "max_position_embeddings", len(ids))
    if len(ids) > longest:
        raise ScorerError(f"the solution has {len(ids)} tokens, the context of {scorer.name!r} has {longest}")
    return sequence.reuse(ids)


class HFScoring:
    """One problem's ids and KV cache in a scorer."""

    def __init__(self, scorer: StepReader, problem: Problem, prompt_ids: list[int]) -> None:
        self._scorer, self._problem, self._ids = scorer, problem, prompt_ids
        self._num_steps = 0
        self._sequence = CachedSequence(scorer.model)

    async def score(self, candidate: Candidate) -> Score:
        """Score a step on the device's thread; see :class:`arbitrage.core.ports.ScoringSession`."""
        return await self._scorer.worker.run(lambda flag: self._score(candidate, flag))

    def _score(self, candidate: Candidate, flag: CancelFlag) -> Score:
        flag.check()
        started = time.perf_counter()
        ids = [*self._ids, *self._step_ids(candidate).scored]
        with computing(ScorerError, self._scorer.name):
            value, num_cached = self._scorer.probability(self._sequence, ids)
        cost = Cost(
            num_calls=1,
            num_computed=len(ids) - num_cached,
            num_cached=num_cached,
            seconds=time.perf_counter() - started,
        )
        return Score(scorer=self._scorer.name, source=candidate.source, value=value, cost=cost)

    async def commit(self, candidate: Candidate) -> None:
        """Append a step; what a rejected one left in the cache is cropped at the next score."""
        step = self._step_ids(candidate)
        self._ids.extend((*step.scored, *step.closing))
        self._num_steps += 1

    async def close(self) -> None:
        """Drop the cache."""
        self._sequence = CachedSequence(self._scorer.model)

    def _step_ids(self, candidate: Candidate) -> StepIds:
        return self._scorer.step_ids(self._problem, self._num_steps, candidate)


def _loader(path: str | Path) -> type:
    """Sequence or token classification, by what the checkpoint's configuration says.

    Raises:
        CheckpointError: If it says neither.
    """
    try:
        architectures = AutoConfig.from_pretrained(str(path), trust_remote_code=False).architectures or []
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read the configuration in {str(path)!r}: {error}") from error
    for ending, loader in (
        ("ForSequenceClassification", AutoModelForSequenceClassification),
        ("ForTokenClassification", AutoModelForTokenClassification),
    ):
        if any(architecture.endswith(ending) for architecture in architectures):
            return cast(type, loader)
    raise CheckpointError(f"the checkpoint {str(path)!r} is no classifier: architectures {architectures}")
