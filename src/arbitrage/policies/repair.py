"""Repair: an escalated step keeps the beginning of the draft's, up to the first token unlikely under the target."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from arbitrage.core.ports import Scorer
from arbitrage.core.turn import Turn
from arbitrage.core.types import Candidate, Decision, Finish, Source
from arbitrage.policies.basic import check_threshold
from arbitrage.policies.learned import scored_draft
from arbitrage.scorers.likelihood import LikelihoodScorer

READER: Final = LikelihoodScorer(name="likelihood", shares_ids=True)


@dataclass(frozen=True, slots=True)
class Repair:
    """Escalate as the router does; then keep the draft's tokens up to the first that is less likely than ``epsilon``.

    The target reads the draft's step in one forward pass. Where each token is likely enough, the draft's step stays.
    BiLD (arXiv 2302.07863) rolls back to such a token as well; here a router chooses the steps that are read at all.
    Draft and target must have one vocabulary.
    """

    router: Scorer
    threshold: float
    epsilon: float
    """The step is cut before the first token whose probability under the target is below it; 0 cuts nowhere."""
    reader: Scorer = READER
    """Gives the target's log-probability of each of the draft's tokens."""
    name: str = "repair"

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
        check_threshold(self.epsilon, "epsilon")

    async def decide(self, turn: Turn) -> Decision:
        """One call of the router; where it escalates, one of the target to read the step."""
        # A step is completed with other random numbers than it was begun: only a greedy one stays the same.
        is_greedy = turn.setting.sampling.temperature == 0.0
        draft, gain = await scored_draft(turn, self.router, self.threshold, may_give_up=is_greedy)
        if gain <= self.threshold:
            return Decision(source=Source.DRAFT, score=gain)
        cut = await self._cut(turn, draft)
        if cut is None and draft.finish is Finish.GIVEN_UP:
            draft = await turn.completed_draft()
            cut = await self._cut(turn, draft)
        if cut is None:
            return Decision(source=Source.DRAFT, score=gain, num_taken=draft.num_taken)
        return Decision(source=Source.TARGET, score=gain, num_taken=cut)

    async def _cut(self, turn: Turn, draft: Candidate) -> int | None:
        read = await turn.scored(self.reader, draft)
        return first_unlikely(read.logprobs or (), self.epsilon)


def first_unlikely(logprobs: Sequence[float], epsilon: float) -> int | None:
    """The index of the first token whose probability is below ``epsilon``; None where there is none."""
    bound = math.log(epsilon) if epsilon else -math.inf
    return next((index for index, logprob in enumerate(logprobs) if logprob < bound), None)
