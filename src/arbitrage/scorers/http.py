"""PRMs and routers behind a server: one request for each step; the server caches the prefix."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from arbitrage.core.errors import EngineError, ScorerError
from arbitrage.core.ports import OpenSolution
from arbitrage.core.types import Candidate, Cost, Problem, Score
from arbitrage.engines.connections import Client, Connection
from arbitrage.engines.dialects import Dialect
from arbitrage.engines.prompt import Prompt
from arbitrage.scorers.families import Family, StepIds, checked_probability
from arbitrage.scorers.format import InputFormat, Readout


class Layout(Protocol):
    """The ids that a served scorer reads, and the meaning of its numbers."""

    @property
    def input_format(self) -> InputFormat:
        """The format in the checkpoint."""

    @property
    def label_ids(self) -> tuple[int, ...]:
        """Tokens whose log-probabilities are read; none for a classifier, whose outputs are read."""

    def prompt_ids(self, problem: Problem) -> list[int]:
        """Ids before the first step."""

    def step_ids(self, problem: Problem, index: int, candidate: Candidate) -> StepIds:
        """Ids of a step."""

    def probability(self, outputs: Sequence[float]) -> float:
        """The probability of raw outputs.

        Raises:
            ScorerError: If their number is not this layout's.
        """


@dataclass(frozen=True, slots=True)
class FormatLayout:
    """A checkpoint that carries its input format.

    Raises:
        ConfigError: If its prompt cannot be used with this tokenizer.
    """

    tokenizer: Any
    input_format: InputFormat
    prompt: Prompt | None = None
    """Defaults to the format's."""

    def __post_init__(self) -> None:
        (self.prompt or self.input_format.question_prompt).check(self.tokenizer)

    @property
    def label_ids(self) -> tuple[int, ...]:
        """None, since it is a classifier."""
        return ()

    def prompt_ids(self, problem: Problem) -> list[int]:
        """The problem in the format's or the pair's prompt."""
        return (self.prompt or self.input_format.question_prompt).encode(self.tokenizer, problem)

    def step_ids(self, problem: Problem, index: int, candidate: Candidate) -> StepIds:
        """The step with its author's mark."""
        return StepIds(scored=tuple(self.input_format.step_ids(self.tokenizer, candidate.parts)))

    def probability(self, outputs: Sequence[float]) -> float:
        """By the format's readout."""
        readout = self.input_format.readout
        if not readout.fits(len(outputs)):
            raise ScorerError(f"the server gives {len(outputs)} outputs, which cannot be read as {readout.value!r}")
        return readout.probability(outputs)


@dataclass(frozen=True, slots=True)
class FamilyLayout:
    """A PRM of a known family.

    Raises:
        CheckpointError: If the tokenizer is not of this family.
    """

    tokenizer: Any
    family: Family

    def __post_init__(self) -> None:
        self.family.check(self.tokenizer)

    @property
    def input_format(self) -> InputFormat:
        """A PRM that reads one probability."""
        return InputFormat(kind="prm", readout=Readout.PROBABILITY)

    @property
    def label_ids(self) -> tuple[int, ...]:
        """The family's."""
        return self.family.label_ids(self.tokenizer)

    def prompt_ids(self, problem: Problem) -> list[int]:
        """The family's."""
        return self.family.prompt_ids(self.tokenizer, problem)

    def step_ids(self, problem: Problem, index: int, candidate: Candidate) -> StepIds:
        """The family's; it reads no author."""
        return self.family.step_ids(self.tokenizer, problem, index, candidate.text)

    def probability(self, outputs: Sequence[float]) -> float:
        """By the family's head."""
        return self.family.head.probability(outputs)


class HTTPScorer:
    """A served model whose outputs at the last token of a step are read."""

    def __init__(self, client: Client, dialect: Dialect, layout: Layout, *, name: str, model: str) -> None:
        """Wrap a server.

        Args:
            client: Sends requests to the server, or to its replicas.
            dialect: The kind of the server.
            layout: How the model reads a solution.
            name: The scorer's name in policies and traces.
            model: The model's id on the server.
        """
        self.client, self.dialect, self.layout = client, dialect, layout
        self._name, self.model = name, model
        self.input_format = layout.input_format

    @property
    def name(self) -> str:
        """The scorer's name in policies and traces."""
        return self._name

    def renamed(self, name: str) -> "HTTPScorer":
        """The same server under another name, with sessions of its own."""
        return HTTPScorer(self.client, self.dialect, self.layout, name=name, model=self.model)

    async def open(self, solution: OpenSolution) -> "HTTPScoring":
        """Start judging a solution; nothing is sent yet."""
        ids = self.prompt_ids(solution.problem)
        return HTTPScoring(self, solution.problem, ids, await self.client.open())

    def prompt_ids(self, problem: Problem) -> list[int]:
        """See :meth:`arbitrage.scorers.hf.HFScorer.prompt_ids`."""
        return self.layout.prompt_ids(problem)

    async def outputs(self, ids: Sequence[int], connection: Connection) -> list[float]:
        """The model's raw outputs at the last of ``ids``.

        Raises:
            EngineError: If the server fails.
        """
        if labels := self.layout.label_ids:
            call = self.dialect.label_logprobs(self.model, ids, labels)
            return self.dialect.labels(await connection.post(*call), labels)
        return self.dialect.outputs(await connection.post(*self.dialect.classify(self.model, ids)))


class HTTPScoring:
    """One problem's ids in a served scorer."""

    def __init__(self, scorer: HTTPScorer, problem: Problem, prompt_ids: list[int], connection: Connection) -> None:
        self._scorer, self._problem, self._ids, self._connection = scorer, problem, prompt_ids, connection
        self._index, self._is_open = 0, True

    async def score(self, candidate: Candidate) -> Score:
        """Score a step; see :class:`arbitrage.core.ports.ScoringSession`.

        Raises:
            ScorerError: If the server fails, or its numbers do not fit the layout.
        """
        scorer = self._scorer
        ids = [*self._ids, *self._step(candidate).scored]
        started = time.perf_counter()
        try:
            outputs = await scorer.outputs(ids, self._connection)
        except EngineError as error:
            raise ScorerError(f"the scorer {scorer.name!r} failed: {error}") from error
        # Classification servers do not report cached tokens.
        cost = Cost(num_calls=1, num_computed=len(ids), seconds=time.perf_counter() - started)
        value = checked_probability(scorer.layout.probability(outputs), scorer.name)
        return Score(scorer=scorer.name, source=candidate.source, value=value, cost=cost)

    async def commit(self, candidate: Candidate) -> None:
        """Append a step."""
        step = self._step(candidate)
        self._ids += [*step.scored, *step.closing]
        self._index += 1

    async def close(self) -> None:
        """Close the connections if this is their last session."""
        if self._is_open:
            self._is_open = False
            await self._connection.release()

    def _step(self, candidate: Candidate) -> StepIds:
        return self._scorer.layout.step_ids(self._problem, self._index, candidate)
