"""Repair: an escalated step keeps the beginning of the draft's, up to the first token that the target objects to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from arbitrage.core.ports import Scorer
from arbitrage.core.turn import Turn
from arbitrage.core.types import Decision, Source
from arbitrage.policies.basic import check_threshold
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
    """The target objects to a token that it gives a smaller probability; 0 never objects."""
    reader: Scorer = READER
    """Gives the target's log-probability of each of the draft's tokens."""
    name: str = "repair"

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
        check_threshold(self.epsilon, "epsilon")

    async def decide(self, turn: Turn) -> Decision:
        """One call of the router; where it escalates, one of the target to read the step."""
        draft = await turn.draft()
        gain = await turn.score(self.router, draft)
        if gain <= self.threshold:
            return Decision(source=Source.DRAFT, score=gain)
        read = await turn.scored(self.reader, draft)
        cut = first_objection(read.logprobs or (), self.epsilon)
        if cut is None:
            return Decision(source=Source.DRAFT, score=gain)
        return Decision(source=Source.TARGET, score=gain, num_taken=cut)


def first_objection(logprobs: Sequence[float], epsilon: float) -> int | None:
    """The index of the first token whose probability is below ``epsilon``; None where there is none."""
    bound = math.log(epsilon) if epsilon else -math.inf
    return next((index for index, logprob in enumerate(logprobs) if logprob < bound), None)
