"""Rules that decide, step by step, whose text to keep."""

from arbitrage.policies.basic import DraftOnly, RandomEscalation, TargetOnly
from arbitrage.policies.gates import Confidence, FirstEntropy, Judge
from arbitrage.policies.learned import Oracle, RouterPolicy
from arbitrage.policies.repair import Repair
from arbitrage.policies.rsd import RSD
from arbitrage.policies.solvers import Majority, RuleSolver

__all__ = [
    "RSD",
    "Confidence",
    "DraftOnly",
    "FirstEntropy",
    "Judge",
    "Majority",
    "Oracle",
    "RandomEscalation",
    "Repair",
    "RouterPolicy",
    "RuleSolver",
    "TargetOnly",
]
