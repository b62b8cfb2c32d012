"""Rules that need no scorer: draft-only, target-only, and chance."""

import random
from dataclasses import dataclass

from arbitrage.core.errors import ConfigError
from arbitrage.core.turn import Turn
from arbitrage.core.types import Decision, Source, derive_seed


def check_threshold(value: float, name: str = "threshold") -> None:
    """Raise ConfigError unless ``value`` is in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name} must be in [0, 1], got {value}")


@dataclass(frozen=True, slots=True)
class DraftOnly:
    """Keep every draft step; the target does no work."""

    name: str = "draft"

    async def decide(self, turn: Turn) -> Decision:
        """Accept."""
        return Decision(source=Source.DRAFT)


@dataclass(frozen=True, slots=True)
class TargetOnly:
    """Let the target write every step; the draft does no work."""

    name: str = "target"

    async def decide(self, turn: Turn) -> Decision:
        """Escalate, without a draft."""
        return Decision(source=Source.TARGET)


@dataclass(frozen=True, slots=True)
class RandomEscalation:
    """Escalate each step with a fixed probability: a router must do better at the same rate."""

    probability: float
    name: str = "random"

    def __post_init__(self) -> None:
        check_threshold(self.probability, "probability")

    async def decide(self, turn: Turn) -> Decision:
        """Draw a number for the step from a seed of its own: order and concurrency do not change it."""
        await turn.draft()
        setting, problem = turn.setting, turn.history.problem
        seed = derive_seed(setting.seed, problem.id, setting.attempt, turn.index, Source.TARGET)
        drawn = random.Random(seed).random()
        return Decision(source=Source.TARGET if drawn < self.probability else Source.DRAFT, score=drawn)
