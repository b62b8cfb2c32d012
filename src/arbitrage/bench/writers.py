"""The costs of one engine, measured through its sessions: so any engine can be measured."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from arbitrage.bench.costs import WIDTHS, Figure, Limit, ModelCosts, Runtime, Settings, Timed
from arbitrage.core.errors import EngineError
from arbitrage.core.ports import Engine, Session, StepRequest
from arbitrage.core.types import Candidate, Cost, Finish, Problem, Sampling, Source
from arbitrage.engines.widths import TEXT

PROBLEM: Final = Problem(id="bench", question="How many stamps do Mia and Leo have together?")
DELIMITER: Final = "\u241e\u241e"
"""No model writes it, so that a step ends at its budget."""
MAX_TRIES: Final = 8
"""Contexts that are tried until the model writes a whole step of the wanted length."""
Clock = Callable[[], float]
"""Seconds since an arbitrary start."""


@dataclass(frozen=True, slots=True)
class _Round:
    """Milliseconds of one round."""

    generated: float
    call: float
    prompt: float
    verified: tuple[float, ...]


class WriterRun:
    """Measures one engine, round by round."""

    def __init__(
        self, engine: Engine, source: Source, settings: Settings, *, clock: Clock, rng: random.Random, runtime: Runtime
    ) -> None:
        """Prepare; nothing is computed before :meth:`start`.

        Args:
            engine: The engine.
            source: The role that it plays.
            settings: How much is measured.
            clock: Measures the caller's time.
            rng: Draws the tokens of prompts and given steps: a server may have cached those of an earlier run.
            runtime: What runs the model.
        """
        self._engine, self._source, self._settings = engine, source, settings
        self._clock, self._rng, self._runtime = clock, rng, runtime
        self._pool: list[int] = []
        """Ids of :data:`arbitrage.engines.widths.TEXT`, which make up every context."""
        self._session: Session | None = None
        self._context_tokens = 0
        self._lengths = (1, 1)
        """Tokens of the shorter and of the longer step that are written."""
        self._steps: list[tuple[int, int]] = []
        """Tokens of each step that is read, and of how many tokens a forward pass then is."""
        self._why_not_verified, self._reads_whole_context = "", False
        self._rounds: list[_Round] = []

    @property
    def name(self) -> str:
        """The role."""
        return str(self._source)

    async def start(self) -> None:
        """Find a context behind which the model writes, and how many tokens its readings compute.

        Raises:
            ContextOverflow: If context and step do not fit the model.
            EngineError: If the model writes nothing, or its backend fails.
        """
        scratch = await self._engine.open(PROBLEM, self._source)
        prompt = scratch.token_ids
        await scratch.commit(_step(self._source, text=TEXT))
        self._pool = list(scratch.token_ids[len(prompt) :])
        await scratch.close()
        longest, context = 0, list[int]()
        for attempt in range(MAX_TRIES):
            ids = self._context_ids(self._settings.prompt_tokens - len(prompt), attempt)
            if (num_tokens := await self._start_behind(ids)) > longest:
                longest, context = num_tokens, ids
            if num_tokens == self._settings.tokens:
                break
        if self._lengths[1] < longest:  # The last context was not the best one.
            await self._start_behind(context)
        if self._lengths[1] < 2:
            raise EngineError(
                f"{self._engine.name} ends its text at once behind {MAX_TRIES} contexts: its speed cannot be measured",
                hint="check path and prompt in the pair's file",
            )
        assert self._session is not None
        self._context_tokens = len(self._session.token_ids)
        await self._plan_reading(self._session)

    async def _start_behind(self, context: list[int]) -> int:
        """Open the session behind a context; returns how many tokens the model writes there, at most a whole step."""
        await self.close()
        self._session = await self._engine.open(PROBLEM, self._source)
        await self._session.commit(_step(self._source, ids=context))
        written = await self._write(self._session, self._settings.tokens)
        num_tokens = written.cost.num_generated - (written.finish is Finish.END_OF_SEQUENCE)
        self._lengths = max(1, num_tokens // 4), num_tokens
        return num_tokens

    def _context_ids(self, num_tokens: int, attempt: int) -> list[int]:
        """The text again and again, from another position at each attempt; random ids at later attempts."""
        pool, count = self._pool, max(1, num_tokens)
        first = attempt * len(pool) // MAX_TRIES
        if attempt >= MAX_TRIES // 2:
            return self._random_ids(count)
        return ([*pool[first:], *pool] * (count // len(pool) + 1))[:count]

    async def _plan_reading(self, session: Session) -> None:
        """Choose the lengths of given steps such that their forward passes have :data:`WIDTHS` tokens.

        Engines differ by a token: some have the logits before a step's first token, others compute them; some leave its
        last token out. Widths that an engine never computes are left out.
        """
        try:
            surplus = await self._num_computed(session, 8) - 8
        except EngineError as error:
            self._why_not_verified = str(error)
            return
        self._reads_whole_context = surplus >= len(session.token_ids) // 2
        if self._reads_whole_context:
            self._steps = [(width, width) for width in WIDTHS]
            return
        lengths = {width - surplus: width for width in WIDTHS if width > surplus}
        self._steps = [
            (length, width) for length, width in lengths.items() if await self._num_computed(session, length) == width
        ]

    async def _num_computed(self, session: Session, length: int) -> int:
        """How many tokens reading a step of this length computes."""
        await self._write(session, 1)
        return (await session.likelihood(self._random_step(length))).cost.num_computed

    async def round(self, *, is_timed: bool) -> None:
        """Measure everything once.

        Args:
            is_timed: Whether the figures count; the first round warms up.
        """
        assert self._session is not None
        short, long = self._lengths
        short_s, long_s = [await self._writing_s(self._session, length) for length in self._lengths]
        token_s = (long_s - short_s) / (long - short)
        measured = _Round(
            generated=1000.0 * token_s,
            call=1000.0 * max(0.0, short_s - short * token_s),
            prompt=1000.0 * max(0.0, await self._prompt_token_s()),
            verified=tuple([1000.0 * await self._reading_s(self._session, length) for length, _ in self._steps]),
        )
        if is_timed:
            self._rounds.append(measured)

    def costs(self, limit: Limit | None) -> ModelCosts:
        """The figures of all timed rounds.

        Raises:
            EngineError: If a longer step took no longer than a short one.
        """
        generated = Figure.of([one.generated for one in self._rounds])
        if generated.value <= 0.0:
            raise EngineError(
                f"the longer step of {self._engine.name} took no longer than the shorter one",
                hint="raise --tokens or --repeats",
            )
        passes = zip(self._steps, zip(*(one.verified for one in self._rounds), strict=True), strict=True)
        return ModelCosts(
            name=self._engine.name,
            runtime=self._runtime,
            context_tokens=self._context_tokens,
            generated_ms=generated,
            call_ms=Figure.of([one.call for one in self._rounds]),
            prompt_ms=Figure.of([one.prompt for one in self._rounds]),
            verified=tuple(Timed(tokens=width, ms=Figure.of(times)) for (_, width), times in passes),
            why_not_verified=self._why_not_verified,
            reads_whole_context=self._reads_whole_context,
            limit=limit,
        )

    async def close(self) -> None:
        """Close the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _writing_s(self, session: Session, length: int) -> float:
        await self._write(session, 1)  # From here on, all steps need as many forward passes for their first token.
        started = self._clock()
        await self._write(session, length)
        return self._clock() - started

    async def _reading_s(self, session: Session, length: int) -> float:
        await self._write(session, 1)
        step = self._random_step(length)
        started = self._clock()
        await session.likelihood(step)
        return self._clock() - started

    async def _prompt_token_s(self) -> float:
        lengths = self._settings.short_prompt, self._settings.prompt_tokens
        (short_s, short), (long_s, long) = [await self._prompt_s(length) for length in lengths]
        return (long_s - short_s) / max(1, long - short)

    async def _prompt_s(self, length: int) -> tuple[float, int]:
        """Seconds until the first token behind a new prompt, and how many tokens of it were computed."""
        session = await self._engine.open(PROBLEM, self._source)
        try:
            await session.commit(self._random_step(length))
            started = self._clock()
            written = await self._write(session, 1)
            return self._clock() - started, written.cost.num_computed
        finally:
            await session.close()

    async def _write(self, session: Session, length: int) -> Candidate:
        request = StepRequest(max_tokens=length, delimiter=DELIMITER, sampling=Sampling(), seed=0)
        return await session.propose(request)

    def _random_step(self, length: int) -> Candidate:
        return _step(self._source, ids=self._random_ids(length))

    def _random_ids(self, length: int) -> list[int]:
        return self._rng.choices(self._pool, k=length)


def _step(source: Source, *, text: str = "", ids: list[int] | None = None) -> Candidate:
    """A step that nobody wrote, by its text or by its author's ids."""
    return Candidate(source=source, text=text, token_ids=tuple(ids or ()), finish=Finish.TOKEN_LIMIT, cost=Cost())
