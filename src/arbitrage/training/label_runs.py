"""Runs that score rows by rollouts, as ``arbitrage label`` starts them, and what they will cost.

The settings of a run are part of the file format, see :mod:`arbitrage.training.row_runs`.
"""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arbitrage.core.errors import RowError
from arbitrage.core.turn import Setting
from arbitrage.core.types import Limits, Sampling, Source
from arbitrage.grading import Verdict, grade, is_same
from arbitrage.pairs.loaded import LoadedPair, load
from arbitrage.policies.spec import MethodSpec
from arbitrage.runtime.store import GroupLog, read_manifest, run_key
from arbitrage.training.collect import RowsReport
from arbitrage.training.rollouts import Rollouts, check_row, is_open, score_by_rollouts, start_key, starts
from arbitrage.training.row_runs import DEFAULT_LIMITS, Progress, write_rows
from arbitrage.training.rows import FILE, SCHEMA, Row, Sample, by_problem, read_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOptions:
    """Options of rollout scores that change the rows."""

    policy: str = "target"
    """The name of the policy that writes the continuations."""
    threshold: float | None = None
    """The policy's threshold; None for its default."""
    num_continuations: int = 4
    """See :class:`arbitrage.training.rollouts.Rollouts`."""
    num_target_samples: int = 1
    """See :class:`arbitrage.training.rollouts.Rollouts`."""
    temperature: float = 0.7
    """The temperature of the continuations."""
    limits: Limits = DEFAULT_LIMITS
    """Bounds of a continuation."""
    seed: int = 0

    def rollouts(self, loaded: LoadedPair) -> Rollouts:
        """Build the rollouts.

        Raises:
            ConfigError: If a number is out of range, or the pair lacks what the policy needs.
        """
        return Rollouts(
            policy=loaded.policy(self.policy, self.threshold),
            grade=is_same,
            setting=Setting(limits=self.limits, sampling=Sampling(temperature=self.temperature), seed=self.seed),
            num_continuations=self.num_continuations,
            num_target_samples=self.num_target_samples,
        )

    def settings(self, loaded: LoadedPair, rows_key: str) -> dict[str, Any]:
        """The settings that identify the new rows.

        Args:
            loaded: The pair.
            rows_key: The key of the run that collected the old rows.
        """
        spec = loaded.resolved(self.policy, self.threshold)
        return {
            "row_schema": SCHEMA,
            "rows": rows_key,
            "models": loaded.identity(("draft", "target", *spec.scorer_roles)),
            "policy": self.policy,
            # A router's default threshold changes with its checkpoint.
            "threshold": spec.threshold if spec.scorer_roles else self.threshold,
            "continuations": self.num_continuations,
            "samples": self.num_target_samples,
            "temperature": self.temperature,
            "seed": self.seed,
            # Only values other than the default have a key: rows that are older than the option can be continued.
            **({"max_tokens": self.limits.max_tokens} if self.limits.max_tokens != DEFAULT_LIMITS.max_tokens else {}),
            **({"until_boxed": True} if self.limits.stops_at_answer else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPlan:
    """The rows that a run scores, and what that costs at most."""

    rows_key: str
    """The key of the run that collected the rows."""
    rows: Sequence[Row]
    """The rows to score, those that an earlier run scored included."""
    num_done: int
    """Problems that an earlier run scored."""
    num_rows: int
    """Rows that are left to score."""
    num_continuations: int
    """Continuations that these rows need at most. Greedy ones give the scores of later steps too, so fewer do."""
    max_tokens: int
    """The most tokens that these continuations may have."""
    expected_tokens: float
    """Their tokens if each is as long as the rest of the collected solution."""
    seconds_per_token: float | None
    """Of the model that writes them, as measured in the rows; None if the rows have no seconds."""
    ungraded: Sequence[Row]
    """One row of each problem that is left out, because its gold answer cannot be graded."""

    @property
    def problems(self) -> list[str]:
        """Ids of the problems to score, in order."""
        return list(by_problem(self.rows))

    @property
    def expected_s(self) -> float | None:
        """Seconds that the continuations take, by the figures above."""
        return None if self.seconds_per_token is None else self.seconds_per_token * self.expected_tokens


def plan_labelling(rows: Path, out: Path, options: LabelOptions, *, limit: int | None) -> LabelPlan:
    """Find out what there is to score; loads no model.

    Args:
        rows: A folder of collected rows.
        out: The folder for the new rows; it need not exist.
        options: The options that change the new rows.
        limit: Score the rows of the first ``limit`` problems; None for all.

    Raises:
        RowError: If the rows cannot be read or scored.
        StoreError: If ``rows`` has no rows.
    """
    rows_key, collected = run_key(read_manifest(rows)), list(read_rows(rows))
    selected = [row for rows_of_problem in list(by_problem(collected).values())[:limit] for row in rows_of_problem]
    for row in selected:
        check_row(row, options.num_target_samples)
    ungraded = _ungraded(selected)
    selected = [row for row in selected if row.problem.id not in ungraded]
    if not selected:
        raise RowError(
            f"the gold answers of these rows cannot be graded, first {_gold(next(iter(ungraded.values())))}",
            hint="collect from a dataset whose answers are numbers or formulas",
        )
    done = {row.problem.id for row in read_rows(out)} if (out / FILE).is_file() else set()
    remaining = [row for row in selected if row.problem.id not in done]
    open_starts = {
        (row.problem.id, start_key(start)): _rest(row, selected_of_problem)
        for selected_of_problem in by_problem(remaining).values()
        for row in selected_of_problem
        for start in starts(row, options.num_target_samples)
        if is_open(start, options.limits)
    }
    num_continuations = len(open_starts) * options.num_continuations
    return LabelPlan(
        rows_key=rows_key,
        rows=selected,
        num_done=len(done & {row.problem.id for row in selected}),
        num_rows=len(remaining),
        num_continuations=num_continuations,
        max_tokens=num_continuations * options.limits.max_tokens,
        expected_tokens=sum(open_starts.values()) * options.num_continuations,
        seconds_per_token=_seconds_per_token(selected, MethodSpec.parse(options.policy).rule_name),
        ungraded=list(ungraded.values()),
    )


def _ungraded(rows: Sequence[Row]) -> dict[str, Row]:
    """A row of each problem whose gold answer cannot be compared with any answer, by problem."""
    one_each = {problem: of_problem[-1] for problem, of_problem in by_problem(rows).items()}
    verdicts = grade(("0", row.problem.answer) for row in one_each.values())
    unclear = (Verdict.UNGRADED, Verdict.TIMED_OUT)
    return {name: row for (name, row), verdict in zip(one_each.items(), verdicts, strict=True) if verdict in unclear}


def _gold(row: Row) -> str:
    return f"{row.problem.answer!r} of problem {row.problem.id!r}"


def ungraded_line(plan: LabelPlan) -> str:
    """One line about the problems that are left out; empty if there are none."""
    if not plan.ungraded:
        return ""
    return (
        f"{len(plan.ungraded)} problems left out: their gold answers cannot be graded, first {_gold(plan.ungraded[0])}"
    )


def _rest(row: Row, solution: Sequence[Row]) -> float:
    """Tokens of the collected solution behind a row; behind its last row, those of a mean step."""
    tokens = [_kept(other).num_tokens for other in solution]
    later = [count for other, count in zip(solution, tokens, strict=True) if other.step > row.step]
    return float(sum(later)) if later else sum(tokens) / len(tokens)


def _kept(row: Row) -> Sample:
    return row.draft if row.kept is Source.DRAFT else row.targets[0]


def _seconds_per_token(rows: Iterable[Row], policy: str) -> float | None:
    """Measured seconds per token of the draft if it writes all, else of the target, which is the slower one."""
    samples = [sample for row in rows for sample in ((row.draft,) if policy == Source.DRAFT else row.targets)]
    num_tokens, seconds = sum(s.num_tokens for s in samples), sum(s.seconds for s in samples)
    return seconds / num_tokens if num_tokens and seconds else None


def run_labelling(
    plan: LabelPlan,
    out: Path,
    options: LabelOptions,
    *,
    pair: str | Path,
    max_in_flight: int,
    progress: Progress,
) -> RowsReport:
    """Score rows by rollouts, or those that a stopped run left; blocks until it is done.

    Args:
        plan: The rows.
        out: The folder for the new rows.
        options: The options that change the new rows.
        pair: The pair's name or file.
        max_in_flight: The number of problems in progress at a time.
        progress: Shows the progress.

    Raises:
        ConfigError: If an option is out of range, or the pair cannot be used.
        CheckpointError: If a model is missing or broken.
        StoreError: If ``out`` belongs to another run, or cannot be written.
    """
    loaded = load(pair, policies=[options.policy])
    rollouts, settings = options.rollouts(loaded), options.settings(loaded, plan.rows_key)

    def work(log: GroupLog, advance: Callable[[], None]) -> Coroutine[Any, Any, RowsReport]:
        return score_by_rollouts(
            plan.rows, loaded.pair, rollouts, log, max_in_flight=max_in_flight, on_problem=lambda problem: advance()
        )

    return write_rows(out, settings, plan.problems, work, progress)
