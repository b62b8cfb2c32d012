"""Reward-guided speculative decoding, arXiv 2501.19324."""

from dataclasses import dataclass

from arbitrage.core.ports import Scorer
from arbitrage.core.turn import Turn
from arbitrage.core.types import Decision, Source
from arbitrage.policies.basic import check_threshold


@dataclass(frozen=True, slots=True)
class RSD:
    """Accept a draft step iff its PRM score exceeds the threshold.

    The rule is absolute: it escalates a low score also where the target would do no better.
    """

    prm: Scorer
    threshold: float
    name: str = "rsd"

    def __post_init__(self) -> None:
        check_threshold(self.threshold)

    async def decide(self, turn: Turn) -> Decision:
        """Score the draft step."""
        reward = await turn.score(self.prm, await turn.draft())
        return Decision(source=Source.DRAFT if reward > self.threshold else Source.TARGET, score=reward)
