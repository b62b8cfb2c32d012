"""The sweep: solve every problem of a plan by every method."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from arbitrage.core.policy import Solver
from arbitrage.core.ports import Scorer
from arbitrage.core.trace import Trace
from arbitrage.core.turn import Setting
from arbitrage.core.types import Problem
from arbitrage.evaluation.running.audit import audited
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.plan import Plan
from arbitrage.runtime.pool import each

Results = dict[Entry, list[Trace]]
"""For each entry one trace per problem, in the order of the problems."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A finished solution as a sweep reports it."""

    entry: Entry
    attempt: int
    trace: Trace
    began_s: float
    """Seconds since the sweep began."""
    energy_j: float | None = None
    """Joules of the whole machine during the solution; None if it does not report them, or a call only measured."""


async def sweep(
    plan: Plan,
    methods: Mapping[Entry, Solver],
    on_finished: Callable[[Finished], None],
    *,
    auditor: Scorer | None = None,
    is_done: Callable[[Entry, Problem, int], bool] = lambda entry, problem, attempt: False,
    energy: Callable[[], float | None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Solve every problem by every method, except for solutions that an earlier session finished.

    Args:
        plan: The work.
        methods: The plan's entries, built.
        on_finished: Called with every solution as soon as it is finished.
        auditor: Scores every candidate of a finished solution; None for no audit.
        is_done: Whether an earlier session finished a solution.
        energy: Reads the machine's energy meter in joules; called only with one solution in flight.
        clock: Returns seconds.
    """
    for problem in plan.problems[: plan.num_warmup]:
        for entry in plan.entries:
            await methods[entry].solve(problem, plan.setting)
    began = clock()
    for attempt, entry, block in plan.blocks():
        setting = replace(plan.setting, attempt=attempt)

        async def solve_one(problem: Problem, entry: Entry = entry, setting: Setting = setting) -> None:
            before, started = energy() if plan.jobs == 1 else None, clock() - began
            trace = await methods[entry].solve(problem, setting)
            after = energy() if plan.jobs == 1 else None
            joules = None if before is None or after is None or trace.measurement else after - before
            trace = await audited(trace, auditor) if auditor else trace
            on_finished(Finished(entry=entry, attempt=setting.attempt, trace=trace, began_s=started, energy_j=joules))

        missing = [problem for problem in block if not is_done(entry, problem, attempt)]
        await each(missing, solve_one, max_in_flight=plan.jobs)
