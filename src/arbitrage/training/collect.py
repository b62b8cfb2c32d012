"""Collect router rows: from every prefix one draft step and several target steps, scored by the PRM."""

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
from arbitrage.training.rows import rows_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Collecting:
    """Makes and scores all that a row holds, then goes on as the behaviour policy decides.

    Any policy can be the behaviour; whatever it asks of the turn is there already. With ``Oracle`` at threshold 0
    the solution continues with the better of two, as the authors' public code does.

    Raises:
        ConfigError: If a number is out of range.
    """

    prm: Scorer
    behaviour: Policy
    num_target_samples: int = 4
    target_sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.7))
    keep_draft: float = 0.0
    """Where the behaviour escalates, go on with the draft's step all the same with this probability: the router
    must also know the histories that follow a mistake."""
    name: str = "collect"

    def __post_init__(self) -> None:
        if self.num_target_samples < 1:
            raise ConfigError(f"the number of target samples must be at least 1, got {self.num_target_samples}")
        if self.num_target_samples > 1 and self.target_sampling.temperature == 0.0:
            raise ConfigError(
                f"{self.num_target_samples} greedy target samples would all be the same",
                hint="give a temperature above 0, or one sample",
            )
        if not 0.0 <= self.keep_draft <= 1.0:
            raise ConfigError(f"keep_draft must be in [0, 1], got {self.keep_draft}")

    async def decide(self, turn: Turn) -> Decision:
        """Draft, sample the target, score all, and ask the behaviour."""
        draft = await turn.draft()
        targets = await turn.samples(Source.TARGET, self.num_target_samples, sampling=self.target_sampling)
        for candidate in (draft, *targets):
            await self._score(turn, candidate)
        decision = await self.behaviour.decide(turn)
        if decision.source is Source.TARGET and self._keeps_draft(turn):
            return Decision(source=Source.DRAFT, score=decision.score)
        return decision

    async def _score(self, turn: Turn, candidate: Candidate) -> None:
        value = await turn.score(self.prm, candidate)
        if not 0.0 <= value <= 1.0:
            raise ScorerError(
                f"the PRM {self.prm.name!r} gave {value}, no probability",
                hint="advantages need scores in [0, 1]; use a head with sigmoid or softmax",
            )

    def _keeps_draft(self, turn: Turn) -> bool:
        setting, problem = turn.setting, turn.history.problem
        seed = derive_seed(setting.seed, problem.id, setting.attempt, turn.index, Source.DRAFT, sample=1)
        return random.Random(seed).random() < self.keep_draft


@dataclass(slots=True, kw_only=True)
class Report:
    """What a collection did."""

    num_rows: int = 0
    model_s: float = 0.0
    """Seconds inside model calls, over all problems."""
    failures: dict[str, str] = field(default_factory=dict)
    """Errors by problem id; these problems have no rows, and the next run tries them again."""


async def collect(
    problems: Sequence[Problem],
    pair: Pair,
    policy: Collecting,
    setting: Setting,
    log: GroupLog,
    *,
    max_in_flight: int = 8,
    seen: Callable[[Trace], None] = lambda trace: None,
) -> Report:
    """Solve every problem that the log lacks, and append its rows as soon as it is solved.

    Args:
        problems: What to solve.
        pair: Draft and target.
        policy: How rows are made and solutions go on.
        setting: Limits, sampling of the draft, and seed.
        log: An open log, whose groups are problems.
        max_in_flight: How many problems at a time.
        seen: Called with every finished trace.
    """
    report = Report()
    models = {"draft": pair.draft.name, "target": pair.target.name, "prm": policy.prm.name}

    async def one(problem: Problem) -> None:
        trace = await solve(problem, pair, policy, setting)
        report.model_s += trace.model_s + sum(cost.seconds for cost in trace.measurement.values())
        if trace.finish is Finish.FAILED:
            report.failures[problem.id] = trace.error or "unknown"
        else:
            rows = rows_of(trace, models, policy.prm.name)
            log.append([row.to_json() for row in rows])
            report.num_rows += len(rows)
        seen(trace)

    await each([p for p in problems if p.id not in log.done], one, max_in_flight=max_in_flight)
    return report
