"""Score the steps of rows by what comes of them: solutions carried on from each step to the final answer.

The PRM's score of a step is an opinion of that step; this is the share of its continuations that end right. It does not
depend on the PRM, and it is not myopic. Rows that are scored so train, judge and replay like any others.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from arbitrage.core.boxes import last_boxed
from arbitrage.core.errors import ConfigError, RowError
from arbitrage.core.policy import Policy
from arbitrage.core.solve import solve
from arbitrage.core.turn import Pair, Setting
from arbitrage.core.types import Candidate, Finish, Problem, Source
from arbitrage.runtime.pool import each
from arbitrage.runtime.store import GroupLog
from arbitrage.training.collect import Report
from arbitrage.training.rows import Row, Sample


class Unfinished(Exception):
    """A continuation failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """How steps are carried on.

    Raises:
        ConfigError: If a number is out of range, or all continuations would be the same.
    """

    policy: Policy
    """Who carries on."""
    grade: Callable[[str | None, str], bool]
    """Whether an answer (None: there is none) says what the gold one does."""
    setting: Setting
    num_continuations: int = 4
    """From each step."""
    num_target_samples: int = 1
    """So many of a row's target steps are scored; the others are dropped."""

    def __post_init__(self) -> None:
        for name in ("num_continuations", "num_target_samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_continuations > 1 and self.setting.sampling.temperature == 0.0:
            raise ConfigError(
                f"{self.num_continuations} greedy continuations would all be the same",
                hint="give a temperature above 0, or one continuation",
            )

    async def value(self, problem: Problem, start: Sequence[Candidate], pair: Pair, report: Report) -> float:
        """Share of the continuations that end right.

        Raises:
            Unfinished: If one failed.
        """
        written = "".join(step.text for step in start)
        if start[-1].finish is Finish.END_OF_SEQUENCE:
            return float(self._is_right(written, problem))
        num_right = 0
        for attempt in range(self.num_continuations):
            trace = await solve(problem, pair, self.policy, replace(self.setting, attempt=attempt), start=start)
            report.model_s += trace.model_s
            if trace.finish is Finish.FAILED:
                raise Unfinished(trace.error or "unknown")
            num_right += self._is_right(written + trace.text, problem)
        return num_right / self.num_continuations

    def _is_right(self, text: str, problem: Problem) -> bool:
        assert problem.answer is not None
        return self.grade(last_boxed(text), problem.answer)


async def score_by_rollouts(
    rows: Iterable[Row],
    pair: Pair,
    rollouts: Rollouts,
    log: GroupLog,
    *,
    max_in_flight: int = 8,
    seen: Callable[[str], None] = lambda problem: None,
) -> Report:
    """Score the rows of every problem that the log lacks, and append them as soon as the problem is done.

    Args:
        rows: With gold answers.
        pair: The pair that wrote the rows.
        rollouts: How steps are carried on.
        log: An open log, whose groups are problems.
        max_in_flight: How many problems at a time.
        seen: Called with the id of every problem when it is done.

    Raises:
        RowError: If a row has no gold answer, or fewer target samples than wanted.
    """
    by_problem: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        _check(row, rollouts)
        by_problem[row.problem.id].append(row)
    report = Report()

    async def one(problem: str) -> None:
        try:
            scored = [await _scored(row, pair, rollouts, report) for row in by_problem[problem]]
        except Unfinished as error:
            report.failures[problem] = str(error)
        else:
            log.append([row.to_json() for row in scored])
            report.num_rows += len(scored)
        seen(problem)

    await each([problem for problem in by_problem if problem not in log.done], one, max_in_flight=max_in_flight)
    return report


def _check(row: Row, rollouts: Rollouts) -> None:
    if row.problem.answer is None:
        raise RowError(f"problem {row.problem.id!r} has no gold answer", hint="rollouts are scored by it")
    if len(row.targets) < rollouts.num_target_samples:
        raise RowError(
            f"a row of problem {row.problem.id!r} has {len(row.targets)} target samples, "
            f"wanted {rollouts.num_target_samples}"
        )


async def _scored(row: Row, pair: Pair, rollouts: Rollouts, report: Report) -> Row:
    history = [past.as_candidate() for past in row.history]

    async def scored(sample: Sample, source: Source) -> Sample:
        start = [*history, sample.as_candidate(source)]
        return replace(sample, score=await rollouts.value(row.problem, start, pair, report))

    return replace(
        row,
        draft=await scored(row.draft, Source.DRAFT),
        targets=tuple([await scored(s, Source.TARGET) for s in row.targets[: rollouts.num_target_samples]]),
        models={**row.models, "prm": f"rollouts by {rollouts.policy.name}"},
    )
