"""Classification checkpoints behind a server: one request a step, the prefix from the server's cache."""

import time
from typing import Any

from arbitrage.core.errors import EngineError, ScorerError
from arbitrage.core.ports import Solution
from arbitrage.core.types import Candidate, Cost, Score
from arbitrage.engines.dialects import Dialect
from arbitrage.engines.http_client import HTTPClient
from arbitrage.engines.prompt import Prompt
from arbitrage.scorers.format import InputFormat


class HTTPScorer:
    """A served classifier that is read at the last token of a step."""

    def __init__(
        self,
        client: HTTPClient,
        dialect: Dialect,
        tokenizer: Any,
        *,
        name: str,
        model: str,
        input_format: InputFormat,
        prompt: Prompt | None = None,
    ) -> None:
        """Wrap a server.

        Args:
            client: Where it listens.
            dialect: Which kind it is.
            tokenizer: The model's, of transformers.
            name: How policies and traces call it.
            model: The id that the server knows it by.
            input_format: How it reads a solution.
            prompt: How the question stands before the steps; defaults to the format's.
        """
        self.client, self.dialect, self.tokenizer = client, dialect, tokenizer
        self._name, self.model, self.input_format = name, model, input_format
        self.prompt = prompt or input_format.question_prompt

    @property
    def name(self) -> str:
        """How policies and traces call it."""
        return self._name

    def renamed(self, name: str) -> "HTTPScorer":
        """The same server under another name, with sessions of its own."""
        return HTTPScorer(
            self.client,
            self.dialect,
            self.tokenizer,
            name=name,
            model=self.model,
            input_format=self.input_format,
            prompt=self.prompt,
        )

    async def open(self, solution: Solution) -> "HTTPScoring":
        """Start judging a solution; nothing is sent yet."""
        ids = self.prompt.encode(self.tokenizer, solution.problem.question)
        self.client.acquire()
        return HTTPScoring(self, ids)

    def encode_step(self, candidate: Candidate) -> list[int]:
        """Ids of a step with its author's mark."""
        text = self.input_format.step_text(candidate.source, candidate.text)
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids


class HTTPScoring:
    """One problem's ids in a served scorer."""

    def __init__(self, scorer: HTTPScorer, prompt_ids: list[int]) -> None:
        self._scorer, self._ids, self._is_open = scorer, prompt_ids, True

    async def score(self, candidate: Candidate) -> Score:
        """Score a step; see :class:`arbitrage.core.ports.ScoringSession`.

        Raises:
            ScorerError: If the server fails, or its head has other labels than the format says.
        """
        scorer = self._scorer
        ids = [*self._ids, *scorer.encode_step(candidate)]
        started = time.perf_counter()
        try:
            outputs = scorer.dialect.outputs(await scorer.client.post(*scorer.dialect.classify(scorer.model, ids)))
        except EngineError as error:
            raise ScorerError(f"the scorer {scorer.name!r} failed: {error}") from error
        seconds = time.perf_counter() - started
        if not scorer.input_format.readout.fits(len(outputs)):
            raise ScorerError(
                f"{scorer.client.url} gives {len(outputs)} outputs, "
                f"which do not fit the readout {scorer.input_format.readout.value!r} of {scorer.name!r}"
            )
        # Classification servers do not tell how much of the text their cache answered for.
        cost = Cost(num_calls=1, num_computed=len(ids), seconds=seconds)
        value = scorer.input_format.readout.probability(outputs)
        return Score(scorer=scorer.name, source=candidate.source, value=value, cost=cost)

    async def commit(self, candidate: Candidate) -> None:
        """Append a step."""
        self._ids.extend(self._scorer.encode_step(candidate))

    async def close(self) -> None:
        """Give the connection back."""
        if self._is_open:
            self._is_open = False
            await self._scorer.client.release()
