"""A scorer whose scores come from a function, for tests."""

from collections.abc import Callable
from dataclasses import dataclass

from arbitrage.core.ports import OpenSolution
from arbitrage.core.types import Candidate, Cost, Score


@dataclass(slots=True, kw_only=True)
class ScriptedScorer:
    """Scores a step by a function of its position and the candidate."""

    value: Callable[[int, Candidate], float]
    name: str = "scripted"
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
        self._scorer.num_calls += 1
        value = self._scorer.value(self._index, candidate)
        cost = Cost(num_calls=1, num_computed=candidate.num_tokens)
        return Score(scorer=self._scorer.name, source=candidate.source, value=value, cost=cost)

    async def commit(self, candidate: Candidate) -> None:
        """Advance to the next position."""
        self._index += 1

    async def close(self) -> None:
        """Do nothing: the session holds no resources."""
