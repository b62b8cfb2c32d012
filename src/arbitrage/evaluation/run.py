"""Policies compared on the same problems: batch 1, interleaved, warmed up."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from arbitrage.core.ports import Policy, Solver
from arbitrage.core.solve import solve_by
from arbitrage.core.trace import Trace
from arbitrage.core.turn import Pair, Setting
from arbitrage.core.types import Problem
from arbitrage.evaluation.grading import Grade, is_correct
from arbitrage.evaluation.metrics import Row, summarize


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a comparison: a policy at a threshold, or at none; or a solver."""

    policy: str
    threshold: float | None = None


Results = dict[Entry, list[Trace]]
"""For each entry one trace a problem, in the order of the problems."""


async def compare(
    problems: Sequence[Problem],
    pair: Pair,
    policies: Mapping[Entry, Policy | Solver],
    setting: Setting,
    *,
    num_warmup: int = 2,
    seen: Callable[[Entry, Trace], None] = lambda entry, trace: None,
) -> Results:
    """Solve every problem under every policy, one at a time.

    For each problem the policies run in a new random order, so that a drift of the machine's speed falls on
    all alike.

    Args:
        problems: What to solve.
        pair: Draft and target, for the policies.
        policies: The policies and solvers by entry.
        setting: Limits, sampling and seed.
        num_warmup: So many problems are solved before the count starts.
        seen: Called with every finished trace.
    """
    rng = random.Random(setting.seed)
    results: Results = {entry: [] for entry in policies}
    for problem in problems[:num_warmup]:
        for policy in policies.values():
            await solve_by(policy, problem, pair, setting)
    for problem in problems:
        for entry in rng.sample(list(policies), len(policies)):
            trace = await solve_by(policies[entry], problem, pair, setting)
            results[entry].append(trace)
            seen(entry, trace)
    return results


def rows_of(results: Results, *, grade: Grade = is_correct) -> list[Row]:
    """Condense results into one row an entry; speed-ups are against target-only of the same run."""
    target = [trace.latency_s for trace in results.get(Entry("target"), ())]
    target_s = fmean(target) if target else None
    return [summarize(entry.policy, entry.threshold, found, target_s, grade=grade) for entry, found in results.items()]
