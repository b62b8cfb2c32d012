"""Score a draft step by its probability under the target: one forward pass over the step, without decoding."""

import math
from dataclasses import dataclass, replace
from typing import Final

from arbitrage.core.ports import OpenSolution
from arbitrage.core.types import Candidate, Score, Source

ROOT: Final = 10
"""The root of a step's probability that makes its score. The root keeps the order of steps, and it keeps the scores of
steps with hundreds of tokens below 1."""


def score_of(log_probability: float) -> float:
    """The score 1 - p ** (1 / ROOT) of a step with the given log-probability (nats); a likely step has a low score."""
    return -math.expm1(min(0.0, log_probability) / ROOT)


def log_probability_of(score: float) -> float:
    """The inverse of :func:`score_of`: the log-probability of a step (nats, at least -368) from its score."""
    return ROOT * math.log1p(-min(score, 1.0 - 1e-16))


@dataclass(frozen=True, slots=True, kw_only=True)
class LikelihoodScorer:
    """Scores a step by its improbability under the target: 1 - p(step | prefix) ** (1 / ROOT).

    BiLD (arXiv 2302.07863) checks a small model's text with the large model in the same way, token by token. The target
    reads the step in the session in which it also writes. If the target then writes the step, it does not compute the
    prefix again.
    """

    name: str = "likelihood"
    shares_ids: bool = False
    """Whether draft and target have one vocabulary, and the draft's ids are read as they are; else its text is
    encoded."""

    async def open(self, solution: OpenSolution) -> "LikelihoodScoring":
        """Open a session for one solution; the target is not called before the first score."""
        return LikelihoodScoring(self.name, solution, shares_ids=self.shares_ids)


@dataclass(frozen=True, slots=True)
class LikelihoodScoring:
    """A session that scores with the target's session of the same solution."""

    name: str
    solution: OpenSolution
    shares_ids: bool = False

    async def score(self, candidate: Candidate) -> Score:
        """Score a step; an empty step has the probability 1."""
        session = await self.solution.session(Source.TARGET)
        read = replace(candidate, source=Source.TARGET) if self.shares_ids else candidate
        likelihood = await session.likelihood(read)
        return Score(
            scorer=self.name,
            source=candidate.source,
            value=score_of(sum(likelihood.logprobs)),
            cost=likelihood.cost,
            logprobs=likelihood.logprobs,
        )

    async def commit(self, candidate: Candidate) -> None:
        """Do nothing: the turn commits the step to the target's session."""

    async def close(self) -> None:
        """Do nothing: the solution closes the target's session."""
