"""One step during its decision: a candidate is written only when a policy requests it."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from typing import Any, Final, TypeVar

from arbitrage.core.errors import ConfigError
from arbitrage.core.ports import Engine, Rewindable, Scorer, ScoringSession, Session, StepRequest
from arbitrage.core.types import (
    Candidate,
    Decision,
    Finish,
    Limits,
    Problem,
    Progress,
    Sampling,
    Score,
    Source,
    Step,
    derive_seed,
)

OnText = Callable[[Source, str], None]
"""Gets each new part of a step that is sure to be kept while its author writes it: the author, and whole characters."""
T = TypeVar("T", Session, ScoringSession)
R = TypeVar("R", Candidate, Score)
DRAFT_KEY: Final = (Source.DRAFT, 0)
"""Author and sample of the step that is offered to the target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A small draft engine, and a large target engine."""

    draft: Engine
    target: Engine

    def engine(self, source: Source) -> Engine:
        """The engine that plays ``source``."""
        return self.draft if source is Source.DRAFT else self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Settings of a whole solution, beside its method."""

    limits: Limits = field(default_factory=Limits)
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    attempt: int = 0
    """Number of this solution when a problem is solved several times."""
    use_proposals: bool = True
    """Offer a rejected draft step to the target as token proposals; an engine whose text they could change ignores them
    (see :class:`arbitrage.core.ports.StepRequest`)."""
    gives_up: bool = True
    """Let the draft stop within a step that the rule rejects however it goes on. It changes no decision and no text."""


class History:
    """The steps of one problem, and the sessions that hold them.

    A session opens at its first use and then receives all earlier steps, so a model that the policy does not use
    computes nothing.
    """

    def __init__(self, problem: Problem, pair: Pair | None, start: Iterable[Candidate] = ()) -> None:
        """Begin a history.

        Args:
            problem: The problem.
            pair: The engines that write steps; None where steps are only scored, by scorers that use neither engine.
            start: Steps that exist already.
        """
        self.problem, self.pair = problem, pair
        self.chosen: list[Candidate] = list(start)
        self._sessions: dict[Source, Session] = {}
        self._scoring: dict[str, ScoringSession] = {}
        self._opening = asyncio.Lock()

    async def session(self, source: Source) -> Session:
        """The session in which ``source`` writes.

        Raises:
            ConfigError: If there is no pair.
        """
        if self.pair is None:
            raise ConfigError(
                f"a scorer reads the {source}, but the pair is not loaded", hint="load the scorer with its pair"
            )
        engine = self.pair.engine(source)
        return await self._open(self._sessions, source, lambda: engine.open(self.problem, source))

    async def scoring(self, scorer: Scorer) -> ScoringSession:
        """The session in which ``scorer`` scores steps."""
        return await self._open(self._scoring, scorer.name, lambda: scorer.open(self))

    async def _open(self, sessions: dict[Any, T], key: Any, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async with self._opening:
            if key not in sessions:
                session = await start()
                try:
                    for candidate in self.chosen:
                        await session.commit(candidate)
                except BaseException:  # Cancellation too: a session that holds half the history must not be used.
                    await session.close()
                    raise
                sessions[key] = session
        return sessions[key]

    async def commit(self, candidate: Candidate) -> None:
        """Make a step part of the history of every open session."""
        self.chosen.append(candidate)
        for session in self._open_sessions():
            await session.commit(candidate)

    async def rewind(self, num_steps: int) -> None:
        """Go back to the first ``num_steps`` steps, to continue from them in another way.

        A session that cannot go back is closed; it opens again at its next use.
        """
        surplus = len(self.chosen) - num_steps
        if surplus <= 0:
            return
        del self.chosen[num_steps:]
        for sessions in (self._sessions, self._scoring):
            await _rewind(sessions, surplus)

    async def close(self) -> None:
        """Close every session, also after a failure or a cancellation; a failure to close one leaves no other open.

        A cancellation on the way goes on when all are closed.
        """
        closing = asyncio.gather(*(session.close() for session in self._open_sessions()), return_exceptions=True)
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            while not closing.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([closing])
            raise

    def _open_sessions(self) -> list[Session | ScoringSession]:
        return [*self._sessions.values(), *self._scoring.values()]


async def _rewind(sessions: dict[Any, Any], num_steps: int) -> None:
    for key, session in list(sessions.items()):
        if isinstance(session, Rewindable):
            await session.rewind(num_steps)
        else:
            await sessions.pop(key).close()


@dataclass(slots=True)
class Turn:
    """The candidates and scores of one step: each is computed at its first use, and billed once."""

    history: History
    setting: Setting
    max_tokens: int
    """Budget of this step, in tokens."""
    on_text: OnText | None = None
    """Called while :meth:`keep` has a step written that no rule needed for its decision."""
    _candidates: dict[tuple[Source, int, int], asyncio.Task[Candidate]] = field(default_factory=dict)
    """By author, sample and number of tokens taken over."""
    _scores: dict[tuple[str, Source, int, int], asyncio.Task[Score]] = field(default_factory=dict)
    _batches: list[asyncio.Task[list[Candidate]]] = field(default_factory=list)
    """Calls that write several candidates together."""

    @property
    def index(self) -> int:
        """Position of this step in the solution, from 0."""
        return len(self.history.chosen)

    @property
    def steps(self) -> tuple[Candidate, ...]:
        """The steps kept so far."""
        return tuple(self.history.chosen)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates that are written by now, in the order of the calls."""
        return _results(self._candidates.values())

    async def draft(self, stop: Callable[[Progress], bool] | None = None) -> Candidate:
        """The draft's step.

        Args:
            stop: Whether the rule rejects the step however it goes on; the first call's then ends as ``GIVEN_UP``.
        """
        return await self.candidate(Source.DRAFT, stop=stop if self.setting.gives_up else None)

    async def completed_draft(self) -> Candidate:
        """The draft's step, completed where it was given up."""
        draft = await self.candidate(Source.DRAFT)
        is_whole = draft.finish is not Finish.GIVEN_UP
        return draft if is_whole else await self.candidate(Source.DRAFT, num_taken=draft.num_tokens)

    async def target(self) -> Candidate:
        """The target's step. A draft step that was written before goes along as a proposal."""
        return await self.candidate(Source.TARGET)

    async def candidate(
        self,
        source: Source,
        sample: int = 0,
        *,
        sampling: Sampling | None = None,
        num_taken: int = 0,
        stop: Callable[[Progress], bool] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Candidate:
        """A step that ``source`` writes from this prefix; only the first call writes it.

        Args:
            source: The author.
            sample: Different numbers are independent samples, each with a seed of its own.
            sampling: How tokens are chosen at the first call; None for the setting's.
            num_taken: The step begins with so many tokens of the draft's step, which must be written already. Draft and
                target must share a vocabulary.
            stop: See :attr:`arbitrage.core.ports.StepRequest.stop`.
            on_text: Gets the text while the first call writes it.
        """
        key = (source, sample, num_taken)
        if key not in self._candidates or self._candidates[key].cancelled():
            request = self._request(source, sample, sampling or self.setting.sampling)
            request = replace(request, stop=stop, on_text=on_text)
            work = self._propose(source, sample, self._with_proposal(request, source, num_taken))
            self._candidates[key] = asyncio.ensure_future(work)
        return await self._candidates[key]

    async def samples(self, source: Source, count: int, *, sampling: Sampling | None = None) -> tuple[Candidate, ...]:
        """Independent steps that ``source`` writes from this prefix, in one call; none is written twice.

        Args:
            source: The author.
            count: The number of steps; their sample numbers are 0, 1, …
            sampling: As for :meth:`candidate`.
        """
        keys = [(source, sample, 0) for sample in range(count)]
        missing = [key for key in keys if key not in self._candidates or self._candidates[key].cancelled()]
        if missing:
            work = self._propose_many(source, [sample for _, sample, _ in missing], sampling or self.setting.sampling)
            together = asyncio.ensure_future(work)
            self._batches.append(together)
            for index, key in enumerate(missing):
                self._candidates[key] = asyncio.ensure_future(_item(together, index))
        return tuple(await asyncio.gather(*(self._candidates[key] for key in keys)))

    async def score(self, scorer: Scorer, candidate: Candidate) -> float:
        """The score that ``scorer`` gives a candidate of this turn; only the first call computes it."""
        return (await self.scored(scorer, candidate)).value

    async def scored(self, scorer: Scorer, candidate: Candidate) -> Score:
        """The whole score, with its cost and log-probabilities; only the first call computes it."""
        key = (scorer.name, candidate.source, candidate.sample, candidate.num_taken)
        if key not in self._scores or self._scores[key].cancelled():
            self._scores[key] = asyncio.ensure_future(self._score(scorer, candidate))
        return await self._scores[key]

    async def _propose(self, source: Source, sample: int, request: StepRequest) -> Candidate:
        session = await self.history.session(source)
        return replace(await session.propose(request), sample=sample)

    async def _propose_many(self, source: Source, samples: Sequence[int], sampling: Sampling) -> list[Candidate]:
        session = await self.history.session(source)
        requests = [self._request(source, sample, sampling) for sample in samples]
        written = await session.propose_many(requests[0], [request.seed for request in requests])
        return [replace(candidate, sample=sample) for sample, candidate in zip(samples, written, strict=True)]

    def _request(self, source: Source, sample: int, sampling: Sampling) -> StepRequest:
        setting = self.setting
        seed = derive_seed(setting.seed, self.history.problem.id, setting.attempt, self.index, source, sample)
        return StepRequest(max_tokens=self.max_tokens, delimiter=setting.limits.delimiter, sampling=sampling, seed=seed)

    def _with_proposal(self, request: StepRequest, source: Source, num_taken: int) -> StepRequest:
        """With the draft's latest step, if the setting allows proposals, or ``num_taken`` needs its tokens."""
        drafted = _results(
            task for (author, sample, _), task in self._candidates.items() if (author, sample) == DRAFT_KEY
        )
        if not drafted or not (num_taken or (self.setting.use_proposals and source is Source.TARGET)):
            return request
        proposal = drafted[-1]
        if num_taken:
            end = None if self.setting.use_proposals else num_taken
            proposal = replace(proposal, source=source, token_ids=proposal.token_ids[:end])
        return replace(request, proposal=proposal, num_taken=num_taken)

    async def _score(self, scorer: Scorer, candidate: Candidate) -> Score:
        session = await self.history.scoring(scorer)
        return replace(await session.score(candidate), sample=candidate.sample)

    async def keep(self, decision: Decision) -> Step:
        """Commit the chosen candidate to every open session; return the step with all its candidates and scores.

        A candidate that the decision did not need is written now: :attr:`on_text` gets its text early.
        """
        on_text = _by_author(self.on_text, decision) if self.on_text else None
        candidate = await self.candidate(
            decision.source, decision.sample, num_taken=decision.num_taken, on_text=on_text
        )
        await self.abandon()
        await self.history.commit(candidate)
        return Step(
            candidate=candidate,
            decision=decision,
            finish=candidate.finish,
            candidates=self.candidates,
            scores=_results(self._scores.values()),
        )

    async def abandon(self) -> None:
        """Cancel the calls that still run; return when the engines are at rest."""
        calls = (*self._candidates.values(), *self._scores.values(), *self._batches)
        tasks = [task for task in calls if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _by_author(on_text: OnText, decision: Decision) -> Callable[[str], None]:
    """What an engine calls with the parts of a step; a beginning that is taken over is the draft's."""
    beginning = (Source.DRAFT,) if decision.num_taken else ()
    authors = chain(beginning, repeat(decision.source))

    def part(text: str) -> None:
        author = next(authors)
        if text:
            on_text(author, text)

    return part


async def _item(together: asyncio.Task[list[Candidate]], index: int) -> Candidate:
    return (await together)[index]


def _results(tasks: Iterable[asyncio.Task[R]]) -> tuple[R, ...]:
    """Results of the calls that succeeded: a policy may go on without one that failed or was cancelled."""
    return tuple(task.result() for task in tasks if task.done() and not task.cancelled() and not task.exception())
