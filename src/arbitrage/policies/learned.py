"""Advantage-aware rules of Arbitrage, arXiv 2512.05033: the oracle and the router that imitates it."""

from dataclasses import dataclass

from arbitrage.core.ports import Scorer
from arbitrage.core.turn import Turn
from arbitrage.core.types import Decision, Source
from arbitrage.policies.basic import check_threshold


@dataclass(frozen=True, slots=True)
class RouterPolicy:
    """Accept iff the predicted chance that the target writes a better step is at most the threshold."""

    router: Scorer
    threshold: float
    name: str = "router"

    def __post_init__(self) -> None:
        check_threshold(self.threshold)

    async def decide(self, turn: Turn) -> Decision:
        """One call of the router; the target writes only where the score exceeds the threshold."""
        gain = await turn.score(self.router, await turn.draft())
        return Decision(source=Source.DRAFT if gain <= self.threshold else Source.TARGET, score=gain)


@dataclass(frozen=True, slots=True)
class Oracle:
    """Escalate iff the advantage s_t - s_d exceeds the threshold: an upper bound, not a product.

    It needs both candidates of every step. A perfect router would run neither the target for an accepted step nor the
    PRM: these calls are tagged as measurement, and count neither in the latency nor in the tokens.
    """

    prm: Scorer
    threshold: float
    name: str = "oracle"

    def __post_init__(self) -> None:
        check_threshold(self.threshold)

    async def decide(self, turn: Turn) -> Decision:
        """Score both candidates."""
        draft, target = await turn.draft(), await turn.target()
        advantage = await turn.score(self.prm, target) - await turn.score(self.prm, draft)
        if advantage > self.threshold:
            return Decision(source=Source.TARGET, score=advantage, measured=frozenset({self.prm.name}))
        return Decision(source=Source.DRAFT, score=advantage, measured=frozenset({self.prm.name, Source.TARGET.value}))
