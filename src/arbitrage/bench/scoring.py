"""The costs of one PRM or router, measured through its sessions."""

import random
from dataclasses import replace
from typing import Final

from arbitrage.bench.costs import Figure, Runtime, ScorerCosts, Settings, Timed
from arbitrage.bench.writers import DELIMITER, PROBLEM, Clock
from arbitrage.core.ports import Scorer, ScoringSession, Session, StepRequest
from arbitrage.core.turn import History, Pair
from arbitrage.core.types import Candidate, Cost, Finish, Sampling, Source
from arbitrage.engines.widths import TEXT

LOGPROB: Final = -2.0
"""Of each token of a scored step: so unlikely that no probe decides without the model that it may ask."""


class ScorerRun:
    """Measures one scorer, round by round, on steps of the draft."""

    def __init__(
        self,
        role: str,
        scorer: Scorer,
        pair: Pair,
        settings: Settings,
        *,
        clock: Clock,
        rng: random.Random,
        runtime: Runtime,
    ) -> None:
        """Prepare; nothing is computed before :meth:`start`.

        Args:
            role: The scorer's in its pair.
            scorer: The scorer.
            pair: The draft counts tokens; scorers may ask both models.
            settings: How much is measured.
            clock: Measures the caller's time.
            rng: Draws the words of the steps.
            runtime: What runs the scorer.
        """
        self._role, self._scorer, self._pair, self._settings = role, scorer, pair, settings
        self._clock, self._rng, self._runtime = clock, rng, runtime
        self._history = History(PROBLEM, pair)
        self._session: ScoringSession | None = None
        self._words_per_token = 1.0
        self._drafted: Candidate | None = None
        """A step that the draft wrote, for what only a model can tell: its hidden state."""
        self._asks_target = False
        self._rounds: list[tuple[tuple[int, float], tuple[int, float]]] = []
        """For the short and the long step of each round: tokens, and milliseconds to score them."""

    @property
    def name(self) -> str:
        """The role."""
        return self._role

    async def start(self) -> None:
        """Open the scorer's session behind a context.

        Raises:
            ArbitrageError: If the scorer or a model that it asks fails, or the context is too short.
        """
        words = TEXT.split()
        num_tokens = await self._num_tokens(" ".join(words))
        self._words_per_token = len(words) / num_tokens
        context = TEXT * max(1, self._settings.prompt_tokens // num_tokens)
        await self._history.commit(_step(context))
        request = StepRequest(max_tokens=2, delimiter=DELIMITER, sampling=Sampling(), seed=0)
        self._drafted = await (await self._history.session(Source.DRAFT)).propose(request)
        target = _Counted(self._history)
        self._session = await self._scorer.open(target)
        await self._session.commit(_step(context))
        await self._score(self._settings.tokens)
        self._asks_target = target.num_asked > 0

    async def round(self, *, is_timed: bool) -> None:
        """Score a short and a long step.

        Args:
            is_timed: Whether the figures count; the first round warms up.
        """
        lengths = self._settings.tokens // 4, self._settings.tokens
        short, long = [await self._score(length) for length in lengths]
        if is_timed:
            self._rounds.append((short, long))

    def costs(self) -> ScorerCosts:
        """The figures of all timed rounds."""
        scored = [
            Timed(tokens=round(Figure.of([tokens for tokens, _ in calls]).value), ms=Figure.of([ms for _, ms in calls]))
            for calls in zip(*self._rounds, strict=True)
        ]
        slopes = [max(0.0, (long[1] - short[1]) / max(1, long[0] - short[0])) for short, long in self._rounds]
        return ScorerCosts(
            name=self._scorer.name,
            runtime=self._runtime,
            asks_target=self._asks_target,
            scored=tuple(scored),
            token_ms=Figure.of(slopes),
        )

    async def close(self) -> None:
        """Close all sessions."""
        if self._session is not None:
            await self._session.close()
        await self._history.close()

    async def _score(self, length: int) -> tuple[int, float]:
        """Score a new step of about so many tokens; returns its tokens, and the milliseconds that it took."""
        assert self._session is not None
        assert self._drafted is not None
        text = " ".join(self._rng.choices(TEXT.split(), k=max(1, round(length * self._words_per_token))))
        num_tokens = await self._num_tokens(text)
        step = replace(
            _step(text),
            logprobs=(LOGPROB,) * num_tokens,
            hidden_state=self._drafted.hidden_state,
            first_entropy=1.0,
        )
        started = self._clock()
        await self._session.score(step)
        return num_tokens, 1000.0 * (self._clock() - started)

    async def _num_tokens(self, text: str) -> int:
        """Length of a text in the draft's tokens."""
        session = await self._pair.draft.open(PROBLEM, Source.DRAFT)
        try:
            num_before = len(session.token_ids)
            await session.commit(_step(text))
            return len(session.token_ids) - num_before
        finally:
            await session.close()


class _Counted:
    """A solution that counts how often a scorer asks for the target's session."""

    def __init__(self, history: History) -> None:
        self._history, self.num_asked = history, 0
        self.problem = history.problem

    async def session(self, source: Source) -> Session:
        """The session of ``source``."""
        self.num_asked += source is Source.TARGET
        return await self._history.session(source)


def _step(text: str) -> Candidate:
    """A step of the draft by its text."""
    return Candidate(source=Source.DRAFT, text=text, token_ids=(), finish=Finish.STEP_END, cost=Cost())
