"""The plan of a comparison: which problems are solved by which methods, and in which order. It holds no model."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from arbitrage.core.errors import ConfigError
from arbitrage.core.policy import Solver
from arbitrage.core.ports import Scorer
from arbitrage.core.turn import Setting
from arbitrage.core.types import Problem
from arbitrage.evaluation.running.entry import Entry
from arbitrage.policies.spec import MethodSpec

CHUNK: Final = 8
"""In the throughput protocol one method solves this many problems for each job before the next method's turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The work of a comparison: a value that can be compared and pickled.

    Raises:
        ConfigError: If a number is out of range.
    """

    problems: Sequence[Problem]
    entries: Sequence[Entry]
    """The methods, default thresholds included."""
    setting: Setting
    num_attempts: int = 1
    """Attempts at each problem."""
    jobs: int = 1
    """Solutions in flight. With 1 (latency protocol) each problem is solved by all methods in a new random order, so
    that a change of the machine's speed affects all methods alike. With more (throughput protocol) all solutions in
    flight are of one method, and the methods take turns after a block of problems."""
    num_warmup: int = 2
    """Problems that every method solves first, without a record."""

    def __post_init__(self) -> None:
        for name, value in (("samples", self.num_attempts), ("jobs", self.jobs)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")

    @property
    def num_solutions(self) -> int:
        """Solutions of the whole comparison."""
        return len(self.problems) * len(self.entries) * self.num_attempts

    def blocks(self) -> Iterator[tuple[int, Entry, Sequence[Problem]]]:
        """The order of work as (attempt, entry, block of problems for this entry)."""
        rng = random.Random(self.setting.seed)
        size = 1 if self.jobs == 1 else CHUNK * self.jobs
        for attempt in range(self.num_attempts):
            for start in range(0, len(self.problems), size):
                for entry in rng.sample(self.entries, len(self.entries)):
                    yield attempt, entry, self.problems[start : start + size]


class SolvingPair(Protocol):
    """What an evaluation needs of a pair, whether its models are in this process or elsewhere."""

    @property
    def name(self) -> str:
        """The pair's name."""

    @property
    def auditor(self) -> Scorer | None:
        """Scores every candidate of finished solutions, where it can."""

    @property
    def paths(self) -> Mapping[str, str]:
        """How forward passes of draft and target run, by role."""

    def resolved(self, method: MethodSpec) -> MethodSpec:
        """See :meth:`arbitrage.pairs.loaded.LoadedPair.resolved`."""

    def method(self, method: MethodSpec) -> Solver:
        """See :meth:`arbitrage.pairs.loaded.LoadedPair.method`."""

    def identity(self, roles: Sequence[str]) -> Mapping[str, Any]:
        """See :meth:`arbitrage.pairs.loaded.LoadedPair.identity`."""


def resolved_entries(pair: SolvingPair, methods: Sequence[MethodSpec]) -> list[Entry]:
    """The entries of methods with default thresholds filled in: a later version may have other defaults.

    Raises:
        ConfigError: If a router is not loaded whose checkpoint holds the default threshold.
    """
    return list(dict.fromkeys(Entry(pair.resolved(method)) for method in methods))


def solvers_of(pair: SolvingPair, plan: Plan) -> dict[Entry, Solver]:
    """Build the methods of a plan on a loaded pair.

    Raises:
        ConfigError: If the pair lacks what a method needs.
    """
    return {entry: pair.method(entry.method) for entry in plan.entries}


def needs_audit(methods: Sequence[MethodSpec], jobs: int, requested: bool | None = None) -> bool:
    """Whether the PRM audits a comparison's solutions.

    Args:
        methods: The methods; only those with a threshold write two candidates for a step.
        jobs: Solutions in flight. With several the audit would keep the models busy, so it is off by default.
        requested: The user's choice; None for the default.
    """
    return any(method.has_threshold for method in methods) and (jobs == 1 if requested is None else requested)
