"""The target as a judge: asked in words for a rating of the draft's step, read off its next token."""

import math
from dataclasses import dataclass, replace
from typing import Final

from arbitrage.core.ports import OpenSolution
from arbitrage.core.types import Candidate, Cost, Finish, Score, Source

RATING: Final = "Rate the last step: 0 is wrong, 9 is surely right. Answer with one digit."
"""What the target is asked, in the manner of SpecReason (arXiv 2504.07891)."""
DIGITS: Final = range(10)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeScorer:
    """Scores a step by the target's mean rating as a share of 9.

    The mean is over the probabilities of the ten digits as the next token, where SpecReason takes the likeliest: it
    costs nothing more and breaks ties. One forward pass over step and request in the session in which the target
    writes, behind everything that it has read before; what it computed of the step is not computed again where it
    writes after all.
    """

    request: str = f"\n\n{RATING}\n\n"
    """All that stands between the step and the digit: the marks of a chat template too, where the target has one."""
    name: str = "judge"

    async def open(self, solution: OpenSolution) -> "JudgeScoring":
        """Start judging a solution; the target is not asked before the first score."""
        return JudgeScoring(self, solution)


@dataclass(frozen=True, slots=True)
class JudgeScoring:
    """Asks the target's session of one solution."""

    scorer: JudgeScorer
    solution: OpenSolution

    async def score(self, candidate: Candidate) -> Score:
        """Rate a step."""
        session = await self.solution.session(Source.TARGET)
        reads = [await session.likelihood(self._rated(candidate, digit)) for digit in DIGITS]
        told = [sum(read.logprobs) for read in reads]
        weights = [math.exp(value - max(told)) for value in told]  # Step and request are in all: only digits differ.
        rating = sum(digit * weight for digit, weight in zip(DIGITS, weights, strict=True)) / sum(weights)
        # An engine reads the ten off one distribution; what it did compute for each is counted.
        total = sum((read.cost for read in reads), Cost())
        cost = replace(total, num_calls=1, num_cached=reads[0].cost.num_cached)
        return Score(scorer=self.scorer.name, source=candidate.source, value=rating / DIGITS[-1], cost=cost)

    def _rated(self, candidate: Candidate, digit: int) -> Candidate:
        text = f"{candidate.text}{self.scorer.request}{digit}"
        return Candidate(source=candidate.source, text=text, token_ids=(), finish=Finish.STEP_END, cost=Cost())

    async def commit(self, candidate: Candidate) -> None:
        """The target's session hears of it on its own."""

    async def close(self) -> None:
        """The session is not this scorer's to close."""
