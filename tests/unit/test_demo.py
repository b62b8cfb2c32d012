"""The demo's comparison ends in time, and every method has solved the same problems."""

import pytest

from arbitrage.core.turn import Pair, Setting
from arbitrage.core.types import Problem
from arbitrage.evaluation.running.deadline import Deadline
from arbitrage.evaluation.running.plan import Plan
from arbitrage.evaluation.running.sweep import sweep
from arbitrage.policies import DraftOnly, TargetOnly
from helpers import entry_of, on_pair, scripted

PROBLEMS = [Problem(id=f"p{i}", question="?") for i in range(9)]


@pytest.mark.parametrize(("seconds", "num"), [(0.0, 0), (1.0, 1), (5.0, 3), (1000.0, 9)])
async def test_a_deadline_ends_a_comparison_behind_a_problem_that_all_have_solved(seconds, num):
    ticks = iter(range(1000))  # A second passes between two questions.
    pair, done = Pair(draft=scripted("a"), target=scripted("b")), []
    methods = on_pair({entry_of("draft"): DraftOnly(), entry_of("target"): TargetOnly()}, pair)
    plan = Plan(problems=PROBLEMS, entries=list(methods), setting=Setting(), num_warmup=2)
    await sweep(plan, methods, done.append, is_done=Deadline(seconds, lambda: float(next(ticks))))
    solved = [(one.entry.policy, one.trace.problem.id) for one in done]
    assert sorted(solved) == sorted((name, f"p{i}") for name in ("draft", "target") for i in range(num))
