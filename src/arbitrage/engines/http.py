"""Models behind a server as engines: ids go out, ids come back, the server's prefix cache does the rest."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from arbitrage.core.errors import ConfigError, ContextOverflow
from arbitrage.core.ports import StepRequest
from arbitrage.core.types import Candidate, Cost, Finish, Likelihood, Problem, Source
from arbitrage.engines.dialects import Dialect, Served
from arbitrage.engines.http_client import HTTPClient
from arbitrage.engines.prompt import Prompt
from arbitrage.engines.tokens import TokenText


class HTTPEngine(TokenText):
    """A served language model; each session keeps its ids here, and sends them whole with every step."""

    def __init__(
        self,
        client: HTTPClient,
        dialect: Dialect,
        tokenizer: Any,
        *,
        name: str,
        model: str = "",
        prompt: Prompt | None = None,
        context_length: int,
    ) -> None:
        """Wrap a server.

        Args:
            client: Where it listens.
            dialect: Which kind it is.
            tokenizer: The model's, of transformers.
            name: How traces and run keys call the model.
            model: The id that the server knows it by; defaults to ``name``.
            prompt: Defaults to the model's chat template.
            context_length: Tokens of prompt and answer together.
        """
        super().__init__(tokenizer, name, prompt)
        self.client, self.dialect, self.model = client, dialect, model or name
        self.context_length = context_length

    @classmethod
    def connect(
        cls,
        client: HTTPClient,
        dialect: Dialect,
        tokenizer: Any,
        *,
        name: str,
        model: str = "",
        known_as: Sequence[str] = (),
        prompt: Prompt | None = None,
        context_length: int | None = None,
    ) -> "HTTPEngine":
        """Ask the server what it serves, and wrap it; nothing is generated.

        Args:
            client: Where it listens.
            dialect: Which kind it is.
            tokenizer: The model's, of transformers.
            name: See ``__init__``.
            model: The id that the server knows it by; empty for its only one.
            known_as: See :func:`served_model`.
            prompt: See ``__init__``.
            context_length: To use less of the context than the server offers, or where it does not say.

        Raises:
            EngineError: If no server answers there, or it is of another kind.
            ConfigError: If it does not serve this model, or does not say how long its context is.
        """
        served = dialect.served(client.get(dialect.about))
        lengths = [length for length in (context_length, served.context_length) if length]
        if not lengths:
            raise ConfigError(f"{client.url} does not tell its context length", hint="set context_length for the model")
        return cls(
            client,
            dialect,
            tokenizer,
            name=name,
            model=served_model(served, model, client.url, known_as),
            prompt=prompt,
            context_length=min(lengths),
        )

    async def open(self, problem: Problem, source: Source) -> "HTTPSession":
        """Start a session; nothing is sent before the first proposal.

        Raises:
            ContextOverflow: If the prompt leaves no room for an answer.
        """
        ids = self.prompt_ids(problem)
        self.client.acquire()
        return HTTPSession(self, ids, source)


def served_model(served: Served, wanted: str, url: str, known_as: Sequence[str] = ()) -> str:
    """The id to ask a server for.

    Args:
        served: What it serves.
        wanted: The id; empty for its only one.
        url: Where it listens, for messages.
        known_as: Name and path of the model where no id is wanted: its only one must bear one of these names, folder
            and ending aside. Two servers that were mistaken for each other would answer all the same.

    Raises:
        ConfigError: If it serves others only, or several and none was named.
    """
    if not served.models:  # A server of one model that does not say which.
        return wanted
    if not wanted and len(served.models) == 1:
        only = served.models[0]
        if not known_as or _plain(only) in map(_plain, known_as):
            return only
        wanted = known_as[0]
    if wanted not in served.models:
        known = ", ".join(map(repr, served.models))
        raise ConfigError(f"{url} serves {known}, not {wanted!r}", hint="set the model's id as served_name")
    return wanted


def _plain(name: str) -> str:
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower().removesuffix(".gguf")


class HTTPSession:
    """One problem's ids; the server holds nothing but its prefix cache."""

    def __init__(self, engine: HTTPEngine, prompt_ids: Sequence[int], source: Source) -> None:
        self._engine, self._source = engine, source
        self._ids = list(prompt_ids)
        self._is_open = True

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Prompt and committed steps."""
        return tuple(self._ids)

    async def propose(self, request: StepRequest) -> Candidate:
        """Have the server write one step; see :class:`arbitrage.core.ports.Session`.

        A proposal is not used: no server takes tokens to verify.
        """
        engine = self._engine
        ids = [*self._ids, *(engine.ids_of(request.after, self._source) if request.after else ())]
        max_tokens = min(request.max_tokens, engine.room(ids))
        started = time.perf_counter()
        call = engine.dialect.generate(engine.model, ids, request, max_tokens)
        made = engine.dialect.completion(await engine.client.post(*call))
        seconds = time.perf_counter() - started
        new, finish = list(made.token_ids), made.finish
        if (length := engine.step_length(new, ids, request.delimiter)) is not None:
            # The server stops only at the usual ways to write an empty line.
            new, finish = new[:length], Finish.STEP_END
        elif finish is Finish.TOKEN_LIMIT:
            new = engine.whole_characters(new, ids)
        cost = Cost(
            num_calls=1,
            num_computed=len(ids) - made.num_cached,
            num_cached=made.num_cached,
            num_generated=len(made.token_ids) + (made.finish is Finish.END_OF_SEQUENCE),
            seconds=seconds,
        )
        return Candidate(
            source=self._source,
            text=engine.decode(new, ids),
            token_ids=tuple(new),
            finish=finish,
            logprobs=None if made.logprobs is None else made.logprobs[: len(new)],
            cost=cost,
        )

    async def propose_many(self, request: StepRequest, seeds: Sequence[int]) -> list[Candidate]:
        """Ask for all at once: the server batches them; its prefix cache may serve all but the first."""
        tasks = [asyncio.ensure_future(self.propose(replace(request, seed=seed))) for seed in seeds]
        try:
            return list(await asyncio.gather(*tasks))
        finally:  # After a failure or a cancellation nothing may go on behind the session's back.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def likelihood(self, candidate: Candidate) -> Likelihood:
        """Ask the server how likely a step is; see :class:`arbitrage.core.ports.Session`."""
        engine, step = self._engine, self._engine.ids_of(candidate, self._source)
        ids = [*self._ids, *step]
        if len(ids) >= engine.context_length:
            raise ContextOverflow(f"{len(ids)} tokens do not fit the context of {engine.name}")
        if not step:
            return Likelihood(logprobs=(), cost=Cost(num_calls=1))
        started = time.perf_counter()
        call = engine.dialect.likelihood(engine.model, ids, len(self._ids))
        logprobs = engine.dialect.logprobs(await engine.client.post(*call), ids, len(self._ids))
        cost = Cost(num_calls=1, num_computed=len(ids), seconds=time.perf_counter() - started)
        return Likelihood(logprobs=logprobs, cost=cost)

    async def commit(self, candidate: Candidate) -> None:
        """Append a step's ids."""
        self._ids.extend(self._engine.ids_of(candidate, self._source))

    async def close(self) -> None:
        """Give the connection back."""
        if self._is_open:
            self._is_open = False
            await self._engine.client.release()
