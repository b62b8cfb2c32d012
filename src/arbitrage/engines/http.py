"""Models behind a server as engines: requests and answers are token ids, and the server caches prefixes."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from arbitrage.core.errors import ConfigError, ContextOverflow
from arbitrage.core.ports import StepRequest
from arbitrage.core.types import Candidate, Cost, Finish, Likelihood, Problem, Source
from arbitrage.engines.connections import Client, Connection
from arbitrage.engines.dialects import Dialect, Served
from arbitrage.engines.prompt import Prompt
from arbitrage.engines.taken import with_beginning
from arbitrage.engines.tokens import TokenText


class HTTPEngine(TokenText):
    """A served language model; a session keeps its ids and sends all of them with every step."""

    def __init__(
        self,
        client: Client,
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
            client: Sends requests to the server, or to its replicas.
            dialect: The kind of the server.
            tokenizer: The model's, of transformers.
            name: The model's name in traces and run keys.
            model: The model's id on the server; defaults to ``name``.
            prompt: Defaults to the model's chat template.
            context_length: Tokens of prompt and answer together.
        """
        super().__init__(tokenizer, name, prompt)
        self.client, self.dialect, self.model = client, dialect, model or name
        self.context_length = context_length

    @classmethod
    def connect(
        cls,
        client: Client,
        dialect: Dialect,
        tokenizer: Any,
        *,
        name: str,
        model: str = "",
        known_as: Sequence[str] = (),
        prompt: Prompt | None = None,
        context_length: int | None = None,
    ) -> "HTTPEngine":
        """Ask the server for its models, and wrap it; nothing is generated.

        Args:
            client: Sends requests to the server, or to its replicas.
            dialect: The kind of the server.
            tokenizer: The model's, of transformers.
            name: See ``__init__``.
            model: The model's id on the server; empty for its only model.
            known_as: See :func:`served_model`.
            prompt: See ``__init__``.
            context_length: An upper bound of the context; needed where the server does not report its own.

        Raises:
            EngineError: If no server answers, or it is of another kind.
            ConfigError: If it does not serve this model, or reports no context length and none is given.
        """
        replicas = [dialect.served(answer) for answer in client.get_all(dialect.models_path)]
        lengths = [length for length in (context_length, *(served.context_length for served in replicas)) if length]
        if not lengths:
            raise ConfigError(
                f"{client.url} does not report its context length", hint="set context_length for the model"
            )
        return cls(
            client,
            dialect,
            tokenizer,
            name=name,
            model=served_model(replicas, model, client.url, known_as),
            prompt=prompt,
            context_length=min(lengths),
        )

    async def open(self, problem: Problem, source: Source) -> "HTTPSession":
        """Start a session; nothing is sent before the first proposal.

        Raises:
            ContextOverflow: If the prompt leaves no room for an answer.
        """
        ids = self.prompt_ids(problem)
        return HTTPSession(self, ids, source, await self.client.open())


def served_model(replicas: Sequence[Served], model: str, url: str, known_as: Sequence[str] = ()) -> str:
    """Choose a model that every replica of a server has.

    Args:
        replicas: What each serves.
        model: The id; empty for the only one.
        url: Where they are, for messages.
        known_as: Name and path of the model where no id is given. The server's only model must have one of these
            names, without folder and ending: so a server that was mistaken for another one is noticed.

    Returns:
        The id to put into requests.

    Raises:
        ConfigError: If it does not serve this model, or serves several and none is given.
    """
    ids = {_served_model(served, model, url, known_as) for served in replicas}
    if len(ids) > 1:
        raise ConfigError(
            f"the replicas {url} serve different models: {', '.join(sorted(ids))}",
            hint="start all replicas with the same model",
        )
    return ids.pop()


def _served_model(served: Served, model: str, url: str, known_as: Sequence[str]) -> str:
    if not served.models:  # A server of one model that does not say which.
        return model
    if not model and len(served.models) == 1:
        only = served.models[0]
        if not known_as or _plain(only) in map(_plain, known_as):
            return only
        model = known_as[0]
    if model not in served.models:
        names = ", ".join(map(repr, served.models))
        raise ConfigError(f"{url} serves {names}, not {model!r}", hint="set the model's id as served_name")
    return model


def _plain(name: str) -> str:
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower().removesuffix(".gguf")


class HTTPSession:
    """One problem's ids; the server keeps only its prefix cache."""

    def __init__(self, engine: HTTPEngine, prompt_ids: Sequence[int], source: Source, connection: Connection) -> None:
        self._engine, self._source, self._connection = engine, source, connection
        self._ids = list(prompt_ids)
        self._is_open = True

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Prompt and committed steps."""
        return tuple(self._ids)

    async def propose(self, request: StepRequest) -> Candidate:
        """Have the server write one step; see :class:`arbitrage.core.ports.Session`.

        No server verifies given tokens: of a proposal only the tokens count that the step begins with.
        """
        engine = self._engine
        ids = [*self._ids, *(engine.ids_of(request.after, self._source) if request.after else ())]
        max_tokens = min(request.max_tokens, engine.room(ids))
        taken = self._taken(request, ids, max_tokens)
        started = time.perf_counter()
        call = engine.dialect.generate(engine.model, [*ids, *taken], request, max_tokens - len(taken))
        written = engine.dialect.completion(await self._connection.post(*call))
        seconds = time.perf_counter() - started
        new, finish = [*taken, *written.token_ids], written.finish
        if (length := engine.step_length(new, ids, request.delimiter)) is not None:
            # The server stops only at the usual ways to write an empty line.
            new, finish = new[:length], Finish.STEP_END
        elif finish is Finish.TOKEN_LIMIT:
            new = engine.whole_characters(new, ids)
        cost = Cost(
            num_calls=1,
            num_computed=len(ids) + len(taken) - written.num_cached,
            num_cached=written.num_cached,
            num_generated=len(written.token_ids) + (written.finish is Finish.END_OF_SEQUENCE),
            seconds=seconds,
        )
        text = engine.decode(new, ids)
        step = Candidate(
            source=self._source,
            text=text,
            token_ids=tuple(new),
            finish=finish,
            logprobs=None if written.logprobs is None else written.logprobs[: len(new) - len(taken)],
            cost=cost,
        )
        taken_text = engine.decode(taken, ids) if taken else ""
        if request.on_text is not None:
            for part in (taken_text, text[len(taken_text) :]) if request.num_taken else (text,):
                request.on_text(part)
        return with_beginning(step, request.proposal, len(taken), taken_text)

    def _taken(self, request: StepRequest, ids: Sequence[int], max_tokens: int) -> list[int]:
        """The tokens of the proposal that the step begins with."""
        if request.proposal is None or not request.num_taken:
            return []
        proposed_ids = self._engine.ids_of(request.proposal, self._source)
        return self._engine.whole_characters(list(proposed_ids[: min(request.num_taken, max_tokens - 1)]), ids)

    async def propose_many(self, request: StepRequest, seeds: Sequence[int]) -> list[Candidate]:
        """Send all requests at once: the server batches them, and its prefix cache may serve all but the first."""
        alone = replace(request, proposal=None, num_taken=0, on_text=None)
        tasks = [asyncio.ensure_future(self.propose(replace(alone, seed=seed))) for seed in seeds]
        try:
            return list(await asyncio.gather(*tasks))
        finally:  # After a failure or a cancellation no other request may go on.
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
        answer = await self._connection.post(*engine.dialect.likelihood(engine.model, ids, len(self._ids)))
        logprobs = engine.dialect.logprobs(answer, ids, len(self._ids))
        num_cached = engine.dialect.num_cached(answer)
        cost = Cost(
            num_calls=1,
            num_computed=len(ids) - num_cached,
            num_cached=num_cached,
            seconds=time.perf_counter() - started,
        )
        return Likelihood(logprobs=logprobs, cost=cost)

    async def commit(self, candidate: Candidate) -> None:
        """Append a step's ids."""
        self._ids.extend(self._engine.ids_of(candidate, self._source))

    async def close(self) -> None:
        """Close the connections if this is their last session."""
        if self._is_open:
            self._is_open = False
            await self._connection.release()
