"""Score the steps of rows by rollouts: the share of continuations from a step that reach the gold answer.

A PRM estimates the quality of a single step. A rollout score measures the final answer, so it does not depend on the
PRM and is not myopic. Rows with rollout scores serve for training, evaluation and replay like rows with PRM scores.
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
from arbitrage.training.collect import RowsReport
from arbitrage.training.rows import Row, Sample


class RolloutFailed(Exception):
    """A continuation ended with a model error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """How continuations are written and graded.

    Raises:
        ConfigError: If a number is out of range, or several continuations are greedy and so equal.
    """

    policy: Policy
    """Writes the continuations."""
    grade: Callable[[str | None, str], bool]
    """Whether an answer equals the gold answer; None for a solution without an answer."""
    setting: Setting
    """Limits, sampling and seed of the continuations."""
    num_continuations: int = 4
    """The number of continuations from each step."""
    num_target_samples: int = 1
    """The number of target steps of a row that are scored; the others are dropped."""

    def __post_init__(self) -> None:
        for name in ("num_continuations", "num_target_samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_continuations > 1 and self.setting.sampling.temperature == 0.0:
            raise ConfigError(
                f"temperature 0 makes all {self.num_continuations} continuations equal",
                hint="choose a temperature above 0, or 1 continuation",
            )

    async def value(self, problem: Problem, start: Sequence[Candidate], pair: Pair, report: RowsReport) -> float:
        """The share of continuations that reach the gold answer.

        Args:
            problem: A problem with a gold answer.
            start: The steps before the continuations; the last is the step to score. If it ends the solution, it is
                graded as it is.
            pair: Draft and target.
            report: Counts the seconds inside models.

        Raises:
            RolloutFailed: If a model failed in a continuation.
        """
        prefix = "".join(step.text for step in start)
        if start[-1].finish is Finish.END_OF_SEQUENCE:
            return float(self._is_right(prefix, problem))
        num_right = 0
        for attempt in range(self.num_continuations):
            trace = await solve(problem, pair, self.policy, replace(self.setting, attempt=attempt), start=start)
            report.model_s += trace.model_s
            if trace.finish is Finish.FAILED:
                raise RolloutFailed(trace.error or "unknown")
            num_right += self._is_right(prefix + trace.text, problem)
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
    on_problem: Callable[[str], None] = lambda problem: None,
) -> RowsReport:
    """Score the rows of every problem that the log lacks, and append them as soon as the problem is done.

    Args:
        rows: Rows of problems with gold answers.
        pair: The pair that wrote the rows.
        rollouts: How continuations are written and graded.
        log: An open log; each problem is a group.
        max_in_flight: The number of problems in progress at a time.
        on_problem: Called with the id of every problem when it is done.

    Raises:
        ConfigError: If ``max_in_flight`` is below 1.
        RowError: If a row has no gold answer, or fewer target samples than ``rollouts`` scores.
        StoreError: If the log cannot be written.
    """
    by_problem: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        _check(row, rollouts)
        by_problem[row.problem.id].append(row)
    report = RowsReport()

    async def score_problem(problem: str) -> None:
        try:
            scored = [await _scored(row, pair, rollouts, report) for row in by_problem[problem]]
        except RolloutFailed as error:
            report.failures[problem] = str(error)
        else:
            log.append([row.to_json() for row in scored])
            report.num_rows += len(scored)
        on_problem(problem)

    remaining = [problem for problem in by_problem if problem not in log.done]
    await each(remaining, score_problem, max_in_flight=max_in_flight)
    return report


def _check(row: Row, rollouts: Rollouts) -> None:
    if row.problem.answer is None:
        raise RowError(
            f"problem {row.problem.id!r} has no gold answer, which rollouts are graded with",
            hint="collect from a data set with answers",
        )
    if len(row.targets) < rollouts.num_target_samples:
        raise RowError(
            f"num_target_samples is {rollouts.num_target_samples}, "
            f"but a row of problem {row.problem.id!r} has {len(row.targets)} target samples",
            hint="score fewer samples, or collect more",
        )


async def _scored(row: Row, pair: Pair, rollouts: Rollouts, report: RowsReport) -> Row:
    """The row with rollout scores in place of its PRM scores."""
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
