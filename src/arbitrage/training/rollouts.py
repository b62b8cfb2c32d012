"""Score the steps of rows by rollouts: the share of continuations from a step that reach the gold answer.

A PRM estimates the quality of a single step. A rollout score measures the final answer, so it does not depend on the
PRM and is not myopic. Rows with rollout scores serve for training, evaluation and replay like rows with PRM scores.

Continuations are the cost, so none is written twice. Steps with one text have one score: a draft's step that the target
wrote too costs one continuation. A greedy continuation from a step is also the one from every step that it holds, so it
gives their scores as well.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeAlias

from arbitrage.core.boxes import last_box, last_boxed
from arbitrage.core.errors import ConfigError, RowError
from arbitrage.core.policy import Policy
from arbitrage.core.solve import finish
from arbitrage.core.trace import Trace
from arbitrage.core.turn import History, Pair, Setting
from arbitrage.core.types import Candidate, Cost, Finish, Limits, Problem, Source
from arbitrage.engines.cache import common_length
from arbitrage.runtime.pool import each
from arbitrage.runtime.store import GroupLog
from arbitrage.training.collect import RowsReport
from arbitrage.training.rows import Row, by_problem


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
        for name, value in (("continuations", self.num_continuations), ("samples", self.num_target_samples)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        if self.num_continuations > 1 and self.setting.sampling.temperature == 0.0:
            raise ConfigError(
                f"temperature 0 makes all {self.num_continuations} continuations equal",
                hint="choose a temperature above 0, or 1 continuation",
            )

    @property
    def is_determined(self) -> bool:
        """Whether a continuation from a step is also the continuation from each step that it holds."""
        return self.setting.sampling.temperature == 0.0

    def is_right(self, text: str, problem: Problem) -> bool:
        """Whether a solution reaches the gold answer."""
        assert problem.answer is not None
        return self.grade(last_boxed(text), problem.answer)


class ProblemRollouts:
    """Rollouts of one problem: one text is continued once, and sessions keep the cache of shared steps."""

    def __init__(self, problem: Problem, pair: Pair, rollouts: Rollouts, report: RowsReport) -> None:
        """Begin; nothing is computed.

        Args:
            problem: A problem with a gold answer.
            pair: Draft and target.
            rollouts: How continuations are written and graded.
            report: Counts continuations, tokens, and seconds inside models.
        """
        self._rollouts, self._report = rollouts, report
        self._history = History(problem, pair)
        self._values: dict[StartKey, float] = {}

    async def value(self, start: Sequence[Candidate]) -> float:
        """The share of continuations that reach the gold answer.

        Args:
            start: The steps before the continuations; the last is the step to score. If it ends the solution, it is
                graded as it is.

        Raises:
            RolloutFailed: If a model failed in a continuation.
        """
        key = start_key(start)
        if key not in self._values:
            if is_open(start, self._rollouts.setting.limits):
                self._values[key] = await self._rolled_out(start)
            else:
                self._values[key] = float(self._rollouts.is_right(_text(start), self._history.problem))
        return self._values[key]

    async def _rolled_out(self, start: Sequence[Candidate]) -> float:
        """The value of an open start."""
        rollouts, history, num_right = self._rollouts, self._history, 0
        await self._go_to(start)
        for attempt in range(rollouts.num_continuations):
            trace = await finish(history, rollouts.policy, replace(rollouts.setting, attempt=attempt))
            await history.rewind(len(start))
            self._count(trace)
            if trace.finish is Finish.FAILED:
                raise RolloutFailed(trace.error or "unknown")
            is_right = rollouts.is_right(_text(start) + trace.text, history.problem)
            num_right += is_right
            if rollouts.is_determined and trace.finish in (Finish.END_OF_SEQUENCE, Finish.ANSWERED):
                # Steps cut by a limit would be continued further from a later start.
                self._remember(start, trace, float(is_right))
        return num_right / rollouts.num_continuations

    async def _go_to(self, start: Sequence[Candidate]) -> None:
        """Make ``start`` the history; the cache keeps what both share."""
        chosen = self._history.chosen
        await self._history.rewind(common_length(chosen, start))
        for step in start[len(chosen) :]:
            await self._history.commit(step)

    def _remember(self, start: Sequence[Candidate], trace: Trace, value: float) -> None:
        written = [step.candidate for step in trace.steps]
        for count in range(1, len(written) + 1):
            self._values.setdefault(start_key([*start, *written[:count]]), value)

    def _count(self, trace: Trace) -> None:
        report, cost = self._report, sum(trace.usage.values(), Cost())
        report.num_continuations += 1
        report.num_generated += cost.num_generated
        report.num_computed += cost.num_computed
        report.num_cached += cost.num_cached
        report.model_s += trace.model_s

    async def close(self) -> None:
        """Free the sessions' memory."""
        await self._history.close()


StartKey: TypeAlias = tuple[tuple[str, ...], bool]
"""The texts of steps, and whether the last one ended the solution. Who wrote them does not count."""


def start_key(start: Sequence[Candidate]) -> StartKey:
    """Identifies steps whose continuations are the same."""
    return tuple(step.text for step in start), start[-1].finish is Finish.END_OF_SEQUENCE


def is_open(start: Sequence[Candidate], limits: Limits) -> bool:
    """Whether the outcome of these steps depends on their continuation; else they are graded as they are."""
    if start[-1].finish is Finish.END_OF_SEQUENCE:
        return False
    box = last_box(_text(start)) if limits.stops_at_answer else None
    return box is None or not box.is_answer


def starts(row: Row, num_target_samples: int) -> list[list[Candidate]]:
    """The steps that rollouts of a row start from: the history with the draft's step, and with each target step."""
    history = [past.as_candidate() for past in row.history]
    targets = [sample.as_candidate(Source.TARGET) for sample in row.targets[:num_target_samples]]
    return [[*history, step] for step in (row.draft.as_candidate(Source.DRAFT), *targets)]


def _text(steps: Sequence[Candidate]) -> str:
    return "".join(step.text for step in steps)


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
    groups = by_problem(rows)
    for row in chain.from_iterable(groups.values()):
        check_row(row, rollouts.num_target_samples)
    report = RowsReport()

    async def score_problem(problem: str) -> None:
        rows_of_problem = groups[problem]
        work = ProblemRollouts(rows_of_problem[0].problem, pair, rollouts, report)
        try:
            scored = [await _scored(row, work, rollouts) for row in rows_of_problem]
        except RolloutFailed as error:
            report.failures[problem] = str(error)
        else:
            log.append([row.to_json() for row in scored])
            report.num_rows += len(scored)
        finally:
            await work.close()
        on_problem(problem)

    remaining = [problem for problem in groups if problem not in log.done]
    await each(remaining, score_problem, max_in_flight=max_in_flight)
    return report


def check_row(row: Row, num_target_samples: int) -> None:
    """Refuse a row that rollouts cannot score.

    Raises:
        RowError: If it has no gold answer, or fewer target samples than are to be scored.
    """
    if row.problem.answer is None:
        raise RowError(
            f"problem {row.problem.id!r} has no gold answer, which rollouts are graded with",
            hint="collect from a dataset with answers",
        )
    if len(row.targets) < num_target_samples:
        raise RowError(
            f"num_target_samples is {num_target_samples}, "
            f"but a row of problem {row.problem.id!r} has {len(row.targets)} target samples",
            hint="score fewer samples, or collect more",
        )


async def _scored(row: Row, problem: ProblemRollouts, rollouts: Rollouts) -> Row:
    """The row with rollout scores in place of its PRM scores."""
    draft, *targets = [await problem.value(start) for start in starts(row, rollouts.num_target_samples)]
    return replace(
        row,
        draft=replace(row.draft, score=draft),
        targets=tuple(replace(sample, score=score) for sample, score in zip(row.targets, targets, strict=False)),
        models={**row.models, "prm": f"rollouts by {rollouts.policy.name}"},
    )
