"""Policies compared on the same problems: batch 1 and interleaved, or so many at a time."""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import fmean
from typing import Final

from arbitrage.core.errors import ConfigError
from arbitrage.core.policy import Solver
from arbitrage.core.ports import Scorer
from arbitrage.core.trace import Trace
from arbitrage.core.turn import Setting
from arbitrage.core.types import Problem
from arbitrage.evaluation.figures.metrics import Row, row_of
from arbitrage.evaluation.figures.rates import Rates
from arbitrage.evaluation.running.audit import audited
from arbitrage.evaluation.running.entry import TARGET, Entry
from arbitrage.evaluation.running.solutions import Graded, Place, Solution, condense
from arbitrage.grading import grade_traces
from arbitrage.runtime.pool import each

CHUNK: Final = 8
"""In the throughput protocol, policies take turns after so many problems for each one in flight."""


Results = dict[Entry, list[Trace]]
"""For each entry one trace a problem, in the order of the problems."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A trace as a sweep hands it over."""

    entry: Entry
    attempt: int
    trace: Trace
    began_s: float
    """Since the sweep began."""
    energy_j: float | None = None
    """Joules of the whole machine meanwhile, where it reports them and nothing was only measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a sweep solves, in which order, and how many at a time.

    Raises:
        ConfigError: If a number is out of range.
    """

    problems: Sequence[Problem]
    methods: Mapping[Entry, Solver]
    setting: Setting
    num_attempts: int = 1
    jobs: int = 1
    """1 is the latency protocol: one at a time, the policies in a new random order for each problem, so that a drift
    of the machine's speed falls on all alike. More is the throughput protocol: so many of one policy in flight, and
    the policies take turns after some problems."""
    num_warmup: int = 2
    """So many problems are solved before the count starts."""
    auditor: Scorer | None = None
    """Scores every candidate of a solution once it is there; None for no audit."""

    def __post_init__(self) -> None:
        for name, value in (("samples", self.num_attempts), ("jobs", self.jobs)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")

    @property
    def num_solutions(self) -> int:
        """How many solutions there will be."""
        return len(self.problems) * len(self.methods) * self.num_attempts

    def blocks(self) -> Iterator[tuple[int, Entry, Sequence[Problem]]]:
        """The order of work: (attempt, entry, problems that are solved with it at a stretch)."""
        rng = random.Random(self.setting.seed)
        size = 1 if self.jobs == 1 else CHUNK * self.jobs
        for attempt in range(self.num_attempts):
            for start in range(0, len(self.problems), size):
                for entry in rng.sample(list(self.methods), len(self.methods)):
                    yield attempt, entry, self.problems[start : start + size]


async def sweep(
    plan: Plan,
    seen: Callable[[Finished], None],
    *,
    is_done: Callable[[Entry, Problem, int], bool] = lambda entry, problem, attempt: False,
    energy: Callable[[], float | None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Solve every problem under every policy, except for what is done already.

    Args:
        plan: What to solve.
        seen: Called with every solution as soon as it is there.
        is_done: Whether an earlier session has made it.
        energy: Reads the machine's meter, in joules; only asked where one solution is made at a time.
        clock: Seconds.
    """
    for problem in plan.problems[: plan.num_warmup]:
        for method in plan.methods.values():
            await method.solve(problem, plan.setting)
    began = clock()
    for attempt, entry, block in plan.blocks():
        setting = replace(plan.setting, attempt=attempt)

        async def one(problem: Problem, entry: Entry = entry, setting: Setting = setting) -> None:
            before, started = energy() if plan.jobs == 1 else None, clock() - began
            trace = await plan.methods[entry].solve(problem, setting)
            after = energy() if plan.jobs == 1 else None
            joules = None if before is None or after is None or trace.measurement else after - before
            trace = await audited(trace, plan.auditor) if plan.auditor else trace
            seen(Finished(entry=entry, attempt=setting.attempt, trace=trace, began_s=started, energy_j=joules))

        missing = [problem for problem in block if not is_done(entry, problem, attempt)]
        await each(missing, one, max_in_flight=plan.jobs)


def graded(results: Mapping[Entry, Sequence[Trace]]) -> dict[Entry, list[Solution]]:
    """Grade and condense traces."""
    grade_traces(chain.from_iterable(results.values()))  # Together, since they are graded side by side.
    return {entry: [condense(trace, Place(entry=entry)) for trace in traces] for entry, traces in results.items()}


def table_of(solutions: Graded, rates: Rates | None = None) -> list[Row]:
    """Condense solutions into one row an entry; speed-ups are against target-only of the same run."""
    target = [solution.seconds for solution in solutions.get(TARGET, ()) if not solution.is_failed]
    target_s = fmean(target) if target else None
    return [row_of(entry, found, target_s, rates) for entry, found in solutions.items()]


def rows_of(results: Results) -> list[Row]:
    """Condense traces into one row an entry; see :func:`table_of`."""
    return table_of(graded(results))
