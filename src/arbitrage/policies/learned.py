"""Advantage-aware rules of Arbitrage, arXiv 2512.05033: the oracle and the router that imitates it."""

import math
from dataclasses import dataclass
from typing import Final

from arbitrage.core.ports import BoundsScores, Scorer
from arbitrage.core.turn import Turn
from arbitrage.core.types import Candidate, Decision, Finish, Progress, Source
from arbitrage.policies.basic import check_threshold

WORST: Final = Progress(num_tokens=1, max_tokens=1, logprob=-math.inf, first_entropy=math.inf)


@dataclass(slots=True)
class Rejection:
    """A stopping condition: the scorer's bound says that the step's score will exceed the threshold."""

    scorer: BoundsScores
    threshold: float
    score: float = 0.0
    """The bound of the latest step."""

    @classmethod
    def of(cls, scorer: Scorer, threshold: float) -> "Rejection | None":
        """The condition; None for a scorer that is never sure before the step is complete."""
        if isinstance(scorer, BoundsScores) and scorer.lowest(WORST) > threshold:
            return cls(scorer, threshold)
        return None

    def __call__(self, progress: Progress) -> bool:
        """Whether the step is sure to be rejected."""
        self.score = self.scorer.lowest(progress)
        return self.score > self.threshold


async def scored_draft(
    turn: Turn, router: Scorer, threshold: float, *, may_give_up: bool = True
) -> tuple[Candidate, float]:
    """The draft's step with the router's score.

    Args:
        turn: The step's turn.
        router: Gives the score.
        threshold: A step with a score above it is rejected.
        may_give_up: Whether the draft may stop within a step that is sure to be rejected. The score is then a bound,
            which is above the threshold too.
    """
    stop = Rejection.of(router, threshold) if may_give_up else None
    draft = await turn.draft(stop)
    if stop is not None and draft.finish is Finish.GIVEN_UP:
        return draft, stop.score
    return draft, await turn.score(router, draft)


@dataclass(frozen=True, slots=True)
class RouterPolicy:
    """Accept iff the predicted chance that the target writes a better step is at most the threshold."""

    router: Scorer
    threshold: float
    name: str = "router"

    def __post_init__(self) -> None:
        check_threshold(self.threshold)

    async def decide(self, turn: Turn) -> Decision:
        """One call of the router; the target writes only where the score exceeds the threshold.

        A step that the router is sure to reject is given up while the draft writes it.
        """
        _, gain = await scored_draft(turn, self.router, self.threshold)
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
