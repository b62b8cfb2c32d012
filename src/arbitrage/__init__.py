"""Step-level speculative reasoning.

A draft model writes each step; a router decides which steps the target model writes instead.
"""

from arbitrage.core.errors import ArbitrageError
from arbitrage.core.solve import solve
from arbitrage.core.trace import Trace
from arbitrage.core.turn import Pair, Setting, Turn
from arbitrage.core.types import Candidate, Cost, Decision, Finish, Limits, Problem, Sampling, Score, Source, Step
from arbitrage.pairs.loaded import LoadedPair, load
from arbitrage.policies.spec import MethodSpec
from arbitrage.policies.table import METHODS
from arbitrage.report.export import step_records, summary_records, trace_records
from arbitrage.version import __version__

__all__ = [
    "METHODS",
    "ArbitrageError",
    "Candidate",
    "Cost",
    "Decision",
    "Finish",
    "Limits",
    "LoadedPair",
    "MethodSpec",
    "Pair",
    "Problem",
    "Sampling",
    "Score",
    "Setting",
    "Source",
    "Step",
    "Trace",
    "Turn",
    "__version__",
    "load",
    "solve",
    "step_records",
    "summary_records",
    "trace_records",
]
