"""The target as a judge: a request in words follows the draft's step, and the next token is the rating."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from arbitrage.core.ports import OpenSolution
from arbitrage.core.types import Candidate, Cost, Finish, Score, Source
from arbitrage.engines.encoding import Mark, part_ids

RATING: Final = "Rate the last step: 0 is wrong, 9 is surely right. Answer with one digit."
"""The request to the target, after SpecReason (arXiv 2504.07891)."""
DIGITS: Final = range(10)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeScorer:
    """Scores a step by the target's mean rating as a share of 9.

    The mean is over the probabilities of the ten digits as the next token. SpecReason takes the likeliest digit; the
    mean costs the same and has fewer ties. A score is one forward pass over step and request in the session in which
    the target writes; if the target then writes the step itself, the tokens that it has read are cached.
    """

    request: str = f"\n\n{RATING}\n\n"
    """The text between the step and the digit, with the marks of the target's chat template if it has one."""
    name: str = "judge"
    encode: Callable[[str, str], Sequence[int]] | None = None
    """From a step and the request behind it to ids of the target: control tokens come only from the request. None for
    an engine that encodes both as text."""

    @classmethod
    def of(cls, target: Any) -> "JudgeScorer":
        """A judge whose request follows the target's chat template; plain words for an engine without a tokenizer.

        Args:
            target: An engine.

        Raises:
            ConfigError: If its chat template refuses the request.
        """
        prompt, tokenizer = getattr(target, "prompt", None), getattr(target, "tokenizer", None)
        if prompt is None:
            return cls()
        return cls(
            request=prompt.follow_up(tokenizer, RATING),
            encode=lambda step, request: part_ids(tokenizer, [step, Mark(request)]),
        )

    async def open(self, solution: OpenSolution) -> "JudgeScoring":
        """Start judging a solution; the target computes nothing before the first score."""
        return JudgeScoring(self, solution)


@dataclass(frozen=True, slots=True)
class JudgeScoring:
    """Rates the steps of one solution in the target's session."""

    scorer: JudgeScorer
    solution: OpenSolution

    async def score(self, candidate: Candidate) -> Score:
        """Rate a step."""
        session = await self.solution.session(Source.TARGET)
        reads = [await session.likelihood(self._rated(candidate, digit)) for digit in DIGITS]
        totals = [sum(read.logprobs) for read in reads]
        weights = [math.exp(value - max(totals)) for value in totals]  # Step and request cancel: only digits differ.
        rating = sum(digit * weight for digit, weight in zip(DIGITS, weights, strict=True)) / sum(weights)
        # An engine reads all ten from one distribution; the cost is what it computed for each of them.
        total = sum((read.cost for read in reads), Cost())
        cost = replace(total, num_calls=1, num_cached=reads[0].cost.num_cached)
        return Score(scorer=self.scorer.name, source=candidate.source, value=rating / DIGITS[-1], cost=cost)

    def _rated(self, candidate: Candidate, digit: int) -> Candidate:
        """Step, request and digit as one step of the target."""
        request = f"{self.scorer.request}{digit}"
        encode, text = self.scorer.encode, candidate.text + request
        ids = () if encode is None else tuple(encode(candidate.text, request))
        return Candidate(source=Source.TARGET, text=text, token_ids=ids, finish=Finish.STEP_END, cost=Cost())

    async def commit(self, candidate: Candidate) -> None:
        """Nothing to do: the history commits steps to the target's session."""

    async def close(self) -> None:
        """Nothing to do: the history closes the target's session."""
