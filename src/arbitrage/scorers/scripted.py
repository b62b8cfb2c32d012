"""A scorer that reads its opinion from a function: for tests."""

from collections.abc import Callable
from dataclasses import dataclass

from arbitrage.core.ports import OpenSolution
from arbitrage.core.types import Candidate, Cost, Score


@dataclass(slots=True, kw_only=True)
class ScriptedScorer:
    """Scores by a function of the candidate and its position, for tests."""

    value: Callable[[int, Candidate], float]
    name: str = "scripted"
    num_calls: int = 0

    async def open(self, solution: OpenSolution) -> "ScriptedScoring":
        """Start at position 0."""
        return ScriptedScoring(self)


class ScriptedScoring:
    """One problem's position."""

    def __init__(self, scorer: ScriptedScorer) -> None:
        self._scorer, self._index = scorer, 0

    async def score(self, candidate: Candidate) -> Score:
        """Ask the function."""
        self._scorer.num_calls += 1
        value = self._scorer.value(self._index, candidate)
        cost = Cost(num_calls=1, num_computed=candidate.num_tokens)
        return Score(scorer=self._scorer.name, source=candidate.source, value=value, cost=cost)

    async def commit(self, candidate: Candidate) -> None:
        """Move on."""
        self._index += 1

    async def close(self) -> None:
        """Hold nothing."""
