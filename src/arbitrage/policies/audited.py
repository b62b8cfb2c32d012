"""Watch another policy: score what it made, without counting in its latency or changing its choice."""

from dataclasses import dataclass, replace

from arbitrage.core.ports import Policy, Scorer
from arbitrage.core.turn import Turn
from arbitrage.core.types import Decision


@dataclass(frozen=True, slots=True)
class Audited:
    """Adds a PRM's score of every candidate that ``policy`` asked for, tagged as measurement.

    The auditor needs a name of its own, so that its session, cost and cache stay apart from those of a PRM
    that the policy itself uses.
    """

    policy: Policy
    auditor: Scorer

    @property
    def name(self) -> str:
        """The audited policy's name: the rule is the same."""
        return self.policy.name

    async def decide(self, turn: Turn) -> Decision:
        """Decide as the audited policy does, then score."""
        decision = await self.policy.decide(turn)
        await turn.candidate(decision.source)
        for candidate in turn.made:
            await turn.score(self.auditor, candidate)
        return replace(decision, measured=decision.measured | {self.auditor.name})
