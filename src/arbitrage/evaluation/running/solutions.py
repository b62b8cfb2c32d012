"""A trace condensed to what the figures are computed from, so that a run's traces need not fit in memory."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import Protocol, Self, TypeVar

from arbitrage.core.trace import Trace
from arbitrage.core.types import Cost, Finish, Source, Step
from arbitrage.evaluation.running.entry import Entry
from arbitrage.grading import grade_traces, is_correct


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """One step in numbers."""

    source: Source
    num_tokens: int
    """Tokens of the kept candidate."""
    num_taken: int = 0
    """Those of them that the target took over from the draft's step: it repaired the step."""
    decided_on: float | None
    """The number that the policy compared with its threshold."""
    draft_score: float | None
    """Score of the draft's candidate by a scorer that scored both candidates, preferably the auditor; the mean over
    several drafts. None if no scorer scored both."""
    target_score: float | None
    """Score of the target's candidate by the same scorer; the mean over several."""

    @property
    def num_target_tokens(self) -> int:
        """Tokens of the kept candidate that the target wrote."""
        return self.num_tokens - self.num_taken if self.source is Source.TARGET else 0

    @property
    def advantage(self) -> float | None:
        """Target's score minus draft's, s_t - s_d; None if no scorer scored both candidates."""
        if self.draft_score is None or self.target_score is None:
            return None
        return self.target_score - self.draft_score

    @property
    def is_wasted(self) -> bool | None:
        """Whether the target's step replaced a draft step with at least the same score; None unless it was audited."""
        if self.source is not Source.TARGET or self.advantage is None:
            return None
        return self.advantage <= 0.0

    @classmethod
    def of(cls, step: Step) -> Self:
        """Condense a step."""
        draft, target = both_scores(step) or (None, None)
        return cls(
            source=step.source,
            num_tokens=step.candidate.num_tokens,
            num_taken=step.candidate.num_taken if step.source is Source.TARGET else 0,
            decided_on=step.decision.score,
            draft_score=draft,
            target_score=target,
        )


def both_scores(step: Step) -> tuple[float, float] | None:
    """Scores of the draft's and the target's candidate by the last scorer that scored both; None without one."""
    values: dict[str, dict[Source, list[float]]] = {}
    for score in step.scores:
        values.setdefault(score.scorer, {}).setdefault(score.source, []).append(score.value)
    for by_source in reversed(values.values()):
        if len(by_source) == len(Source):
            return fmean(by_source[Source.DRAFT]), fmean(by_source[Source.TARGET])
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fates:
    """Numbers of generated tokens, by author and by whether they were kept. Tokens that only measure are left out."""

    draft_accepted: int = 0
    draft_discarded: int = 0
    target_kept: int = 0
    target_discarded: int = 0
    reused: int = 0
    """Those of the target's tokens that were verified from a draft's proposal rather than decoded one by one."""

    def __add__(self, other: "Fates") -> "Fates":
        return Fates(
            draft_accepted=self.draft_accepted + other.draft_accepted,
            draft_discarded=self.draft_discarded + other.draft_discarded,
            target_kept=self.target_kept + other.target_kept,
            target_discarded=self.target_discarded + other.target_discarded,
            reused=self.reused + other.reused,
        )

    @classmethod
    def of(cls, step: Step) -> Self:
        """Count the tokens of a step's candidates. A served policy would not generate those that only measure."""
        kept = {source: step.candidate.num_tokens_by(source) for source in Source}
        written, reused = dict.fromkeys(Source, 0), 0
        for candidate in step.candidates:
            if candidate is step.candidate or candidate.source not in step.decision.measured:
                written[candidate.source] += candidate.num_written
                reused += candidate.cost.num_reused if candidate.source is Source.TARGET else 0
        return cls(
            draft_accepted=kept[Source.DRAFT],
            draft_discarded=written[Source.DRAFT] - kept[Source.DRAFT],
            target_kept=kept[Source.TARGET],
            target_discarded=written[Source.TARGET] - kept[Source.TARGET],
            reused=reused,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """One attempt at one problem under one entry: a condensed trace."""

    entry: Entry
    problem: str
    """The problem's id."""
    level: str | None
    attempt: int
    answer: str | None
    is_correct: bool | None
    """None if the problem has no gold answer that can be read: it is ungraded. A failed solution is wrong."""
    finish: Finish | None
    error: str | None
    steps: tuple[StepFacts, ...]
    fates: Fates
    usage: Mapping[str, Cost]
    """Cost by model, without calls that only measure."""
    seconds: float
    """Wall-clock time as it would be served."""
    measured_s: float
    """Further seconds, of calls that only measure."""
    began_s: float | None = None
    """Seconds from the start of the session to the start of the solution; None if it was not recorded."""
    session: int = 0
    """Number of the session that solved it: a run that was killed and resumed has several."""
    energy_j: float | None = None
    """Joules while it was solved; None if the machine does not report them, or a call only measured."""

    @property
    def is_failed(self) -> bool:
        """Whether an engine or a scorer failed during the solution."""
        return self.finish is Finish.FAILED

    @property
    def num_tokens(self) -> int:
        """Tokens of the kept steps."""
        return self.fates.draft_accepted + self.fates.target_kept

    @property
    def role_s(self) -> dict[str, float]:
        """Seconds by model; seconds spent on guessing tokens for a model are under ``guessing``."""
        seconds = {model: cost.seconds - cost.guessing_s for model, cost in self.usage.items()}
        guessing = sum(cost.guessing_s for cost in self.usage.values())
        return seconds | ({"guessing": guessing} if guessing else {})

    @property
    def outside_s(self) -> float:
        """Seconds outside model calls: the loop itself, and waiting for a model that is busy."""
        return self.seconds - sum(cost.seconds for cost in self.usage.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class TracePosition:
    """Which part of a run a trace is, and what was recorded beside it."""

    entry: Entry
    """The method as the run's plan names it; a trace holds only the rule's own name."""
    attempt: int = 0
    session: int = 0
    began_s: float | None = None
    energy_j: float | None = None


def condense(trace: Trace, position: TracePosition) -> Solution:
    """Grade a trace and keep what the figures need."""
    measurement, verdict = trace.measurement, is_correct(trace)
    return Solution(
        entry=position.entry,
        problem=trace.problem.id,
        level=trace.problem.metadata.get("level"),
        attempt=position.attempt,
        answer=trace.answer,
        is_correct=verdict and trace.finish is not Finish.FAILED,
        finish=trace.finish,
        error=trace.error,
        steps=tuple(StepFacts.of(step) for step in trace.steps),
        fates=sum(map(Fates.of, trace.steps), Fates()),
        usage=trace.usage,
        seconds=trace.latency_s,
        measured_s=sum(cost.seconds for cost in measurement.values()),
        began_s=position.began_s,
        session=position.session,
        energy_j=position.energy_j,
    )


Graded = Mapping[Entry, Sequence[Solution]]
"""For each entry its solutions of all problems and attempts."""


def graded(traces: Mapping[Entry, Sequence[Trace]]) -> dict[Entry, list[Solution]]:
    """Grade and condense traces. Answers are graded together first, because the grader runs in parallel."""
    grade_traces(chain.from_iterable(traces.values()))
    return {
        entry: [condense(trace, TracePosition(entry=entry)) for trace in entry_traces]
        for entry, entry_traces in traces.items()
    }


class OfProblem(Protocol):
    """Anything that belongs to one problem."""

    @property
    def problem(self) -> str:
        """The problem's id."""


T = TypeVar("T", bound=OfProblem)


def by_problem(attempts: Iterable[T]) -> dict[str, list[T]]:
    """Attempts by their problem's id, problems in the order in which they first occur."""
    groups: dict[str, list[T]] = {}
    for attempt in attempts:
        groups.setdefault(attempt.problem, []).append(attempt)
    return groups
