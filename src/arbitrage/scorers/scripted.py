"""A scorer whose scores come from a function, for tests."""

from collections.abc import Callable
from dataclasses import dataclass, field

from arbitrage.core.ports import OpenSolution
from arbitrage.core.types import Candidate, Cost, Score
from arbitrage.engines.scripted import Clock, VirtualClock


@dataclass(slots=True, kw_only=True)
class ScriptedScorer:
    """Scores a step by a function of its position and the candidate."""

    value: Callable[[int, Candidate], float]
    name: str = "scripted"
    seconds: Callable[[Candidate], float] = lambda candidate: 0.0
    """How long it takes to score a step."""
    clock: Clock = field(default_factory=VirtualClock)
    num_calls: int = 0

    async def open(self, solution: OpenSolution) -> "ScriptedScoring":
        """Open a session at position 0."""
        return ScriptedScoring(self)


class ScriptedScoring:
    """A session: the position in one solution."""

    def __init__(self, scorer: ScriptedScorer) -> None:
        self._scorer, self._index = scorer, 0

    async def score(self, candidate: Candidate) -> Score:
        """Score a step by the function."""
        scorer = self._scorer
        scorer.num_calls += 1
        value, seconds = scorer.value(self._index, candidate), scorer.seconds(candidate)
        if seconds:
            await scorer.clock.sleep(seconds)
        cost = Cost(num_calls=1, num_computed=candidate.num_tokens, seconds=seconds)
        return Score(scorer=scorer.name, source=candidate.source, value=value, cost=cost)

    async def commit(self, candidate: Candidate) -> None:
        """Advance to the next position."""
        self._index += 1

    async def close(self) -> None:
        """Do nothing: the session holds no resources."""
