"""How likely the target would write a draft's step itself: one forward pass over the step, nothing decoded."""

import math
from dataclasses import dataclass
from typing import Final

from arbitrage.core.ports import OpenSolution
from arbitrage.core.types import Candidate, Score, Source

ROOT: Final = 10
"""Of a step's probability: the order of steps stays, and those of hundreds of tokens stay apart from 1."""


def score_of(log_probability: float) -> float:
    """How unlikely a step is, from its log-probability in nats: 1 - p ** (1 / ROOT)."""
    return -math.expm1(min(0.0, log_probability) / ROOT)


def log_probability_of(score: float) -> float:
    """The log-probability of a step (nats, down to -368) whose :func:`score_of` is ``score``."""
    return ROOT * math.log1p(-min(score, 1.0 - 1e-16))


@dataclass(frozen=True, slots=True, kw_only=True)
class LikelihoodScorer:
    """Scores a step by how unlikely the target finds it: 1 - p(step | prefix) ** (1 / ROOT).

    BiLD (arXiv 2302.07863) looks back on a small model's text with the large one in the same way, token by token. The
    target reads in the session in which it writes: where it is called after all, what it computed here is not
    computed again.
    """

    name: str = "likelihood"

    async def open(self, solution: OpenSolution) -> "LikelihoodScoring":
        """Start judging a solution; the target is not asked before the first score."""
        return LikelihoodScoring(self.name, solution)


@dataclass(frozen=True, slots=True)
class LikelihoodScoring:
    """Asks the target's session of one solution."""

    name: str
    solution: OpenSolution

    async def score(self, candidate: Candidate) -> Score:
        """Score a step; an empty one is certain."""
        session = await self.solution.session(Source.TARGET)
        read = await session.likelihood(candidate)
        return Score(scorer=self.name, source=candidate.source, value=score_of(sum(read.logprobs)), cost=read.cost)

    async def commit(self, candidate: Candidate) -> None:
        """The target's session hears of it on its own."""

    async def close(self) -> None:
        """The session is not this scorer's to close."""
