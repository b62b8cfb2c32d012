"""Rules that decide, step by step, whose text to keep."""

from arbitrage.policies.audited import Audited
from arbitrage.policies.basic import DraftOnly, RandomEscalation, TargetOnly
from arbitrage.policies.learned import Oracle, RouterPolicy
from arbitrage.policies.rsd import RSD

__all__ = ["RSD", "Audited", "DraftOnly", "Oracle", "RandomEscalation", "RouterPolicy", "TargetOnly"]
