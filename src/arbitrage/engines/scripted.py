"""An engine that reads its steps from a script: for tests, and to try a policy without a model."""

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain
from typing import Protocol

from arbitrage.core.delimiter import split_steps
from arbitrage.core.errors import ConfigError
from arbitrage.core.ports import StepRequest
from arbitrage.core.types import Candidate, Cost, Finish, Likelihood, Limits, Problem, Progress, Source
from arbitrage.engines.cache import common_length
from arbitrage.engines.committed import CommittedIds
from arbitrage.engines.taken import with_beginning


class Clock(Protocol):
    """Time as an engine spends it."""

    def now(self) -> float:
        """Seconds since an arbitrary start."""

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""


class RealClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds of the performance counter."""
        return time.perf_counter()

    async def sleep(self, seconds: float) -> None:
        """Wait for real."""
        await asyncio.sleep(seconds)


class VirtualClock:
    """A clock that only sleeping moves: tests with latencies finish at once. It orders one problem at a time."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Seconds slept so far."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Advance at once, and let others run."""
        self._now += seconds
        await asyncio.sleep(0)


Script = str | Sequence[Sequence[str]]
"""A whole answer as text (cut into words), or its steps as sequences of tokens."""


@dataclass(slots=True, kw_only=True)
class ScriptedEngine:
    """Writes step i of its script as step i of the answer, whoever wrote the others.

    Raises:
        ConfigError: If a latency is negative.
    """

    script: Script | Mapping[str, Script]
    """One script, or one for each problem id."""
    name: str = "scripted"
    seconds_per_token: float = 0.0
    pass_seconds: Callable[[int], float] = lambda num_tokens: 0.0
    """Seconds of one forward pass over so many tokens of a prompt or of a step that is read."""
    unlikely: float = -1.0
    """Log-probability of a token that is not the script's."""
    logprob: Callable[[str], float] = lambda token: 0.0
    """The engine's log-probability of a token of its own."""
    clock: Clock = field(default_factory=VirtualClock)
    faults: Mapping[int, Exception] = field(default_factory=dict)
    """Errors to raise, by number of the call (from 0, over all sessions)."""
    calls: list[StepRequest] = field(default_factory=list)
    """Every request so far, for assertions on cost."""
    vocabulary: dict[str, int] = field(default_factory=dict)
    open_sessions: int = 0

    def __post_init__(self) -> None:
        if self.seconds_per_token < 0.0:
            raise ConfigError(f"seconds_per_token must be at least 0, got {self.seconds_per_token}")

    async def open(self, problem: Problem, source: Source) -> "ScriptedSession":
        """Start reading the script of this problem.

        Raises:
            ConfigError: If there is none for it.
        """
        script = self.script
        if isinstance(script, Mapping):
            if problem.id not in script:
                raise ConfigError(f"no script for problem {problem.id!r}")
            script = script[problem.id]
        self.open_sessions += 1
        return ScriptedSession(self, script, problem, source)

    def encode(self, text: str) -> list[int]:
        """Words with the white space before them, as ids in order of first use."""
        return [self.id_of(word) for word in re.findall(r"\s*\S+|\s+", text)]

    async def read(self, num_tokens: int) -> None:
        """Let the time of a forward pass over so many tokens go by."""
        if num_tokens and (seconds := self.pass_seconds(num_tokens)):
            await self.clock.sleep(seconds)

    def id_of(self, token: str) -> int:
        """The id of a token; unknown ones get the next number."""
        return self.vocabulary.setdefault(token, len(self.vocabulary))

    def token_of(self, id: int) -> str:
        """The token of an id."""
        return next(token for token, number in self.vocabulary.items() if number == id)


class ScriptedSession:
    """One problem's place in the script."""

    def __init__(self, engine: ScriptedEngine, script: Script, problem: Problem, source: Source) -> None:
        self._engine, self._script, self._source = engine, script, source
        self._ids = CommittedIds(engine.encode(problem.text + problem.prefix))
        self._num_computed = 0
        self._is_open = True

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Question and committed steps."""
        return tuple(self._ids)

    async def propose(self, request: StepRequest) -> Candidate:
        """Read the next step, at the pace of the script."""
        engine = self._engine
        number = len(engine.calls)
        engine.calls.append(request)
        if number in engine.faults:
            raise engine.faults[number]
        started = engine.clock.now()
        ahead = 1 if request.after else 0
        tokens, finish = self._step(self._ids.num_steps + ahead, request)
        offered = self._encode_any(request.proposal) if request.proposal else []
        num_taken = min(request.num_taken, len(offered), request.max_tokens - 1)
        tokens = [*(engine.token_of(id) for id in offered[:num_taken]), *tokens[num_taken:]]
        if (num_stopped := self._num_before_stop(tokens, request)) < len(tokens):
            tokens, finish = tokens[:num_stopped], Finish.GIVEN_UP
        ids = [engine.id_of(token) for token in tokens]
        num_agreeing = common_length(ids, offered)
        num_cached, self._num_computed = self._num_computed, len(self._ids) + num_taken
        await engine.read(self._num_computed - num_cached)
        on_text = request.on_text or (lambda text: None)
        if request.num_taken:
            on_text("".join(tokens[:num_taken]))
        if num_taken < num_agreeing:
            on_text("".join(tokens[num_taken:num_agreeing]))
        for token in tokens[num_agreeing:]:
            await engine.clock.sleep(engine.seconds_per_token)
            on_text(token)
        written = Candidate(
            source=self._source,
            text="".join(tokens),
            token_ids=tuple(ids),
            finish=finish,
            logprobs=tuple(map(engine.logprob, tokens[num_taken:])),
            first_entropy=0.0,
            cost=Cost(
                num_calls=1,
                num_computed=self._num_computed - num_cached,
                num_cached=num_cached,
                num_generated=len(ids) - num_taken + (finish is Finish.END_OF_SEQUENCE),
                num_reused=num_agreeing - num_taken,
                seconds=engine.clock.now() - started,
            ),
        )
        self._num_computed = len(self._ids)
        return with_beginning(written, request.proposal, num_taken, "".join(tokens[:num_taken]))

    async def propose_many(self, request: StepRequest, seeds: Sequence[int]) -> list[Candidate]:
        """Read the next step once for each seed; the script does not depend on seeds."""
        return [await self.propose(replace(request, seed=seed, on_text=None)) for seed in seeds]

    async def likelihood(self, candidate: Candidate) -> Likelihood:
        """Certain up to where the step leaves the script, and ``unlikely`` for each token from there on."""
        engine, ids = self._engine, self._encode_any(candidate)
        script = [engine.id_of(token) for token in chain(*self._steps(Limits().delimiter)[self._ids.num_steps :])]
        num_agreeing = common_length(ids, script)
        logprobs = tuple(0.0 if i < num_agreeing else engine.unlikely for i in range(len(ids)))
        num_cached, self._num_computed = self._num_computed, len(self._ids)
        num_computed, started = len(self._ids) - num_cached + len(ids), engine.clock.now()
        await engine.read(num_computed)
        seconds = engine.clock.now() - started
        cost = Cost(num_calls=1, num_computed=num_computed, num_cached=num_cached, seconds=seconds)
        return Likelihood(logprobs=logprobs, cost=cost)

    def _steps(self, delimiter: str) -> list[list[str]]:
        if not isinstance(self._script, str):
            return [list(step) for step in self._script]
        return [re.findall(r"\s*\S+|\s+", text) for text in split_steps(self._script, delimiter)]

    def _step(self, index: int, request: StepRequest) -> tuple[list[str], Finish]:
        steps = self._steps(request.delimiter)
        if index >= len(steps):
            return [], Finish.END_OF_SEQUENCE
        tokens, is_last = steps[index], index == len(steps) - 1
        if len(tokens) > request.max_tokens:
            return tokens[: request.max_tokens], Finish.TOKEN_LIMIT
        return tokens, Finish.END_OF_SEQUENCE if is_last else Finish.STEP_END

    def _num_before_stop(self, tokens: Sequence[str], request: StepRequest) -> int:
        """How many tokens are written before the request's stop ends the step."""
        sums = list(accumulate(map(self._engine.logprob, tokens)))
        lowest = list(accumulate(sums, min))
        for number in range(1, len(tokens) if request.stop else 0):
            progress = Progress(
                num_tokens=number, max_tokens=request.max_tokens, logprob=lowest[number - 1], first_entropy=0.0
            )
            if request.stop and request.stop(progress):
                return number
        return len(tokens)

    def _encode_any(self, candidate: Candidate) -> list[int]:
        has_ids = candidate.has_ids_of(self._source)
        return list(candidate.token_ids) if has_ids else self._engine.encode(candidate.text)

    async def commit(self, candidate: Candidate) -> None:
        """Go on to the next step of the script."""
        self._ids.commit(self._encode_any(candidate))

    async def rewind(self, num_steps: int) -> None:
        """Go back in the script; what was computed before that stays so."""
        self._ids.rewind(num_steps)
        self._num_computed = min(self._num_computed, len(self._ids))

    async def close(self) -> None:
        """Count the session as closed."""
        if self._is_open:
            self._is_open = False
            self._engine.open_sessions -= 1
