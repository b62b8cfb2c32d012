"""Classification checkpoints of transformers as PRM or router; each score computes only new tokens."""

import time
from pathlib import Path
from typing import Protocol, cast

from arbitrage.core.errors import CheckpointError, MissingExtra, ScorerError
from arbitrage.core.ports import OpenSolution
from arbitrage.core.types import Candidate, Cost, Problem, Score
from arbitrage.engines.cache_options import CacheOptions
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
    from arbitrage.engines.hf_cache import DynamicMemory, HFSequence, Memory, computing
    from arbitrage.engines.hf_memory import memory_for
    from arbitrage.engines.hf_static import backbone_pass
except ImportError as error:
    raise MissingExtra("hf") from error


class StepReader(Protocol):
    """The part of a scorer that its sessions use."""

    model: PreTrainedModel
    worker: Worker

    @property
    def memory(self) -> Memory:
        """The KV caches of its sessions."""

    @property
    def name(self) -> str:
        """The scorer's name in policies and traces."""

    def step_ids(self, problem: Problem, index: int, candidate: Candidate) -> StepIds:
        """Token ids of a step at position ``index`` of the solution."""

    def probability(self, sequence: HFSequence, ids: list[int]) -> tuple[float, int]:
        """Read the score at the last of ``ids``; returns the score and the number of cached tokens."""


class HFScorer:
    """A sequence- or token-classification model whose head is read at the last token of a step."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        input_format: InputFormat,
        prompt: Prompt | None = None,
        memory: Memory | None = None,
    ) -> None:
        """Wrap a loaded model.

        Args:
            model: A classifier with a head called ``score``.
            tokenizer: The model's tokenizer.
            name: The scorer's name in policies and traces.
            input_format: The input format that the model was trained on.
            prompt: How the question is written; None for the format's prompt.
            memory: The KV caches of its sessions; None for caches that grow.

        Raises:
            CheckpointError: If the model has no head called ``score``, or the format cannot read its outputs.
            ConfigError: If the prompt cannot be used with this tokenizer.
        """
        num_labels = model.config.num_labels
        if not hasattr(model, "score") or not input_format.readout.fits(num_labels):
            raise CheckpointError(
                f"the scorer {name!r} needs a head `score` that can be read as {input_format.readout.value!r}, "
                f"got {num_labels} labels",
                hint="name a classifier, or correct the readout in its arbitrage.json",
            )
        self.model, self.tokenizer, self._name = model.eval(), tokenizer, name
        self.input_format, self.prompt = input_format, prompt or input_format.question_prompt
        self.prompt.check(tokenizer)
        self.memory: Memory = memory or DynamicMemory(model)
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
        cache: CacheOptions | None = None,
    ) -> "HFScorer":
        """Load a checkpoint that carries its input format.

        Args:
            path: A checkpoint folder.
            name: The scorer's name in policies and traces.
            kind: ``prm`` or ``router``; the checkpoint must be of this kind.
            device: A torch device.
            dtype: A torch dtype.
            prompt: How the question is written; None for the format's prompt.
            cache: How KV caches are kept; None for the defaults.

        Raises:
            CheckpointError: If the checkpoint is missing, broken, or of the other kind.
            ConfigError: If an option of the cache cannot be used, or the device's memory does not hold it.
        """
        input_format = InputFormat.load(Path(path), kind)
        loader = _loader(path)
        model, tokenizer = load_checkpoint(loader, path, device=device, dtype=dtype)
        memory = memory_for(model, backbone_pass, cache or CacheOptions(), name=name)
        return cls(model, tokenizer, name=name, input_format=input_format, prompt=prompt, memory=memory)

    @property
    def name(self) -> str:
        """The scorer's name in policies and traces."""
        return self._name

    def renamed(self, name: str) -> "HFScorer":
        """A scorer with the same model under another name; it has its own sessions."""
        return HFScorer(
            self.model,
            self.tokenizer,
            name=name,
            input_format=self.input_format,
            prompt=self.prompt,
            memory=self.memory,
        )

    async def open(self, solution: OpenSolution) -> "HFScoring":
        """Open a session for one solution; nothing is computed yet."""
        return HFScoring(self, solution.problem, self.prompt_ids(solution.problem))

    def prompt_ids(self, problem: Problem) -> list[int]:
        """Ids that a session starts from.

        Raises:
            ConfigError: If the template refuses the problem's messages.
            ProblemError: If the tokenizer cannot encode them.
        """
        return self.prompt.encode(self.tokenizer, problem)

    def step_ids(self, problem: Problem, index: int, candidate: Candidate) -> StepIds:
        """Token ids of a step; they do not depend on its position."""
        return StepIds(scored=tuple(self.input_format.step_ids(self.tokenizer, candidate.parts)))

    def probability(self, sequence: HFSequence, ids: list[int]) -> tuple[float, int]:
        """Read the head at the last of ``ids``, computing only what ``sequence`` lacks.

        Returns:
            The probability, and the number of cached tokens.

        Raises:
            ScorerError: If the model's context is too short, or the head returns NaN.
        """
        num_cached = reuse(sequence, ids, self)
        logits = self.model.score(sequence.states(ids[num_cached:])[-1]).float()
        value = self.input_format.readout.probability(logits.tolist())
        return checked_probability(value, self.name), num_cached


def reuse(sequence: HFSequence, ids: list[int], scorer: StepReader) -> int:
    """Crop a scorer's cache to the prefix that it shares with ``ids``; returns the length of this prefix.

    Raises:
        ScorerError: If the model's context is too short.
    """
    trained: int = getattr(scorer.model.config, "max_position_embeddings", len(ids))
    context_length = scorer.memory.length or trained
    if len(ids) > context_length:
        raise ScorerError(
            f"the solution has {len(ids)} tokens, the context of {scorer.name!r} has {context_length}",
            hint="lower --max-tokens, or use a scorer with a longer context",
        )
    return sequence.reuse(ids)


class HFScoring:
    """A session of a scorer: token ids and KV cache of one solution."""

    def __init__(self, scorer: StepReader, problem: Problem, prompt_ids: list[int]) -> None:
        self._scorer, self._problem, self._ids = scorer, problem, prompt_ids
        self._num_steps = 0
        self._sequence: HFSequence = scorer.memory.sequence()
        self._values: dict[tuple[int, ...], float] = {}
        """By step behind the committed ones: where both models write the same step, its advantage is exactly 0."""

    async def score(self, candidate: Candidate) -> Score:
        """Score a step in the device's thread; see :class:`arbitrage.core.ports.ScoringSession`."""
        return await self._scorer.worker.run(lambda flag: self._score(candidate, flag))

    def _score(self, candidate: Candidate, flag: CancelFlag) -> Score:
        flag.check()
        started = time.perf_counter()
        step = self._step_ids(candidate).scored
        ids = [*self._ids, *step]
        num_cached = len(ids)
        if step not in self._values:
            with computing(ScorerError, self._scorer.name, self._scorer.model.device):
                self._values[step], num_cached = self._scorer.probability(self._sequence, ids)
        value = self._values[step]
        cost = Cost(
            num_calls=1,
            num_computed=len(ids) - num_cached,
            num_cached=num_cached,
            seconds=time.perf_counter() - started,
        )
        return Score(scorer=self._scorer.name, source=candidate.source, value=value, cost=cost)

    async def commit(self, candidate: Candidate) -> None:
        """Append a step; the next score removes a rejected step from the cache."""
        step = self._step_ids(candidate)
        self._ids.extend((*step.scored, *step.closing))
        self._num_steps += 1
        self._values.clear()

    async def close(self) -> None:
        """Drop the cache."""
        self._sequence.close()

    def _step_ids(self, candidate: Candidate) -> StepIds:
        return self._scorer.step_ids(self._problem, self._num_steps, candidate)


def _loader(path: str | Path) -> type:
    """The class of transformers for a checkpoint: sequence or token classification, by its configuration.

    Raises:
        CheckpointError: If the configuration cannot be read, or names another architecture.
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
    raise CheckpointError(
        f"the checkpoint {str(path)!r} is not a classifier: architectures {architectures}",
        hint="name a checkpoint for sequence or token classification",
    )
