"""Collect training rows: from every prefix one draft step and several target steps, scored by a PRM if there is one."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from arbitrage.core.errors import ConfigError, ScorerError
from arbitrage.core.policy import Policy
from arbitrage.core.ports import Scorer
from arbitrage.core.solve import solve
from arbitrage.core.trace import Trace
from arbitrage.core.turn import Pair, Setting, Turn
from arbitrage.core.types import Candidate, Decision, Finish, Problem, Sampling, Source, derive_seed
from arbitrage.runtime.pool import each
from arbitrage.runtime.store import GroupLog
from arbitrage.training.rows import rows_from_trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Collecting:
    """A policy that writes and scores all steps of a row; a behaviour policy then decides how the solution continues.

    Any policy can be the behaviour. It causes no model call of its own, because the turn already holds the draft's step
    and the target's. With ``Oracle`` at threshold 0 the solution continues with the better step, as in the authors'
    public code.

    Raises:
        ConfigError: If a number is out of range.
    """

    behaviour: Policy
    prm: Scorer | None = None
    """Scores all steps; None for rows without scores."""
    num_target_samples: int = 4
    target_sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.7))
    keep_draft: float = 0.0
    """Where the behaviour escalates, continue with the draft's step with this probability. A router also needs
    histories that contain mistakes."""
    name: str = "collect"

    def __post_init__(self) -> None:
        if self.num_target_samples < 1:
            raise ConfigError(f"samples must be at least 1, got {self.num_target_samples}")
        if self.num_target_samples > 1 and self.target_sampling.temperature == 0.0:
            raise ConfigError(
                f"temperature 0 makes all {self.num_target_samples} target samples equal",
                hint="choose a temperature above 0, or 1 sample",
            )
        if not 0.0 <= self.keep_draft <= 1.0:
            raise ConfigError(f"keep_draft must be in [0, 1], got {self.keep_draft}")

    async def decide(self, turn: Turn) -> Decision:
        """Write the draft's step and the target's samples, score them, and let the behaviour decide."""
        draft = await turn.draft()
        targets = await turn.samples(Source.TARGET, self.num_target_samples, sampling=self.target_sampling)
        if self.prm is not None:
            for candidate in (draft, *targets):
                await _score(turn, candidate, self.prm)
        decision = await self.behaviour.decide(turn)
        if decision.source is Source.TARGET and self._keeps_draft(turn):
            return Decision(source=Source.DRAFT, score=decision.score)
        return decision

    def _keeps_draft(self, turn: Turn) -> bool:
        setting, problem = turn.setting, turn.history.problem
        seed = derive_seed(setting.seed, problem.id, setting.attempt, turn.index, Source.DRAFT, sample=1)
        return random.Random(seed).random() < self.keep_draft


async def _score(turn: Turn, candidate: Candidate, prm: Scorer) -> None:
    value = await turn.score(prm, candidate)
    if not 0.0 <= value <= 1.0:
        raise ScorerError(
            f"a score of the PRM {prm.name!r} must be in [0, 1], got {value}",
            hint="use a head with sigmoid or softmax",
        )


@dataclass(slots=True, kw_only=True)
class RowsReport:
    """Counts and times of one run that writes rows."""

    num_rows: int = 0
    """Rows that this run added."""
    total_rows: int = 0
    """Rows in the folder after this run."""
    wall_s: float = 0.0
    """Seconds of this run; models are loaded before."""
    model_s: float = 0.0
    """Seconds inside model calls, summed over all problems."""
    num_continuations: int = 0
    """Continuations that rollouts wrote."""
    num_generated: int = 0
    """Tokens of these continuations."""
    num_computed: int = 0
    """Prompt tokens that went through a model for them."""
    num_cached: int = 0
    """Prompt tokens that a cache held."""
    failures: dict[str, str] = field(default_factory=dict)
    """Errors by problem id. These problems have no rows; the next run tries them again."""


async def collect(
    problems: Sequence[Problem],
    pair: Pair,
    policy: Collecting,
    setting: Setting,
    log: GroupLog,
    *,
    max_in_flight: int = 8,
    on_trace: Callable[[Trace], None] = lambda trace: None,
) -> RowsReport:
    """Solve every problem that the log lacks, and append its rows as soon as it is solved.

    Args:
        problems: The problems to solve.
        pair: Draft and target.
        policy: Writes and scores the steps of each row.
        setting: Limits, sampling of the draft, and seed.
        log: An open log; each problem is a group.
        max_in_flight: The number of problems in progress at a time.
        on_trace: Called with every finished trace.

    Raises:
        ConfigError: If ``max_in_flight`` is below 1.
        StoreError: If the log cannot be written.
    """
    report = RowsReport()
    prm = policy.prm.name if policy.prm else None
    models = {"draft": pair.draft.name, "target": pair.target.name, **({"prm": prm} if prm else {})}

    async def collect_problem(problem: Problem) -> None:
        trace = await solve(problem, pair, policy, setting)
        report.model_s += trace.model_s + sum(cost.seconds for cost in trace.measurement.values())
        if trace.finish is Finish.FAILED:
            report.failures[problem.id] = trace.error or "unknown"
        else:
            rows = rows_from_trace(trace, models, prm)
            log.append([row.to_json() for row in rows])
            report.num_rows += len(rows)
        on_trace(trace)

    remaining = [problem for problem in problems if problem.id not in log.done]
    await each(remaining, collect_problem, max_in_flight=max_in_flight)
    return report
