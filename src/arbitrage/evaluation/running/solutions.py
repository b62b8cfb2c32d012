"""One solved problem, condensed: all that figures are computed from, so that a run need not hold its traces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Self

from arbitrage.core.trace import Trace
from arbitrage.core.types import Cost, Finish, Source, Step
from arbitrage.evaluation.running.entry import Entry
from arbitrage.grading import is_correct


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """One step in numbers."""

    source: Source
    num_tokens: int
    """Of the kept candidate."""
    decided_on: float | None
    """The number that the policy compared with its threshold."""
    draft_score: float | None
    """By a scorer that scored both candidates, the auditor where there is one; mean over several drafts."""
    target_score: float | None
    """Likewise; both are None where no scorer has seen both."""

    @property
    def advantage(self) -> float | None:
        """Target's score minus draft's, s_t - s_d; None where no scorer has seen both candidates."""
        if self.draft_score is None or self.target_score is None:
            return None
        return self.target_score - self.draft_score

    @property
    def is_wasted(self) -> bool | None:
        """Whether the target's step replaced one that was as good; None unless it was escalated and audited."""
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
            decided_on=step.decision.score,
            draft_score=draft,
            target_score=target,
        )


def both_scores(step: Step) -> tuple[float, float] | None:
    """Score of the draft's and of the target's candidate by the last scorer that has seen both; None without one."""
    found: dict[str, dict[Source, list[float]]] = {}
    for score in step.scores:
        found.setdefault(score.scorer, {}).setdefault(score.source, []).append(score.value)
    for by_source in reversed(found.values()):
        if len(by_source) == len(Source):
            return fmean(by_source[Source.DRAFT]), fmean(by_source[Source.TARGET])
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fates:
    """What became of the tokens that models wrote, each in its author's tokens; measurement left out."""

    draft_accepted: int = 0
    draft_discarded: int = 0
    target_kept: int = 0
    target_discarded: int = 0
    reused: int = 0
    """Of the target's tokens, those verified from a draft's proposal rather than decoded one by one."""

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
        """Sort the tokens of a step's candidates; what served only to measure is no fate of the served policy."""
        kept, lost = dict.fromkeys(Source, 0), dict.fromkeys(Source, 0)
        reused = 0
        for candidate in step.candidates:
            if candidate is step.candidate:
                kept[candidate.source] += candidate.num_tokens
            elif candidate.source not in step.decision.measured:
                lost[candidate.source] += candidate.num_tokens
            else:
                continue
            reused += candidate.cost.num_reused if candidate.source is Source.TARGET else 0
        return cls(
            draft_accepted=kept[Source.DRAFT],
            draft_discarded=lost[Source.DRAFT],
            target_kept=kept[Source.TARGET],
            target_discarded=lost[Source.TARGET],
            reused=reused,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """What one trace comes to."""

    entry: Entry
    problem: str
    """Its id."""
    level: str | None
    attempt: int
    answer: str | None
    is_correct: bool | None
    """None where there is no gold answer, or it cannot be read: ungraded, never wrong. A failure is wrong."""
    finish: Finish | None
    error: str | None
    steps: tuple[StepFacts, ...]
    fates: Fates
    usage: Mapping[str, Cost]
    """Cost by model, measurement excluded."""
    seconds: float
    """Wall-clock as it would be served."""
    measured_s: float
    """Seconds of calls that only measure, on top of it."""
    began_s: float | None = None
    """Since the session began; None where it was not recorded."""
    session: int = 0
    """Number of the start of the run that made it; a killed run has several."""
    energy_j: float | None = None
    """Joules while it was made, where the machine reports them and nothing was only measured."""

    @property
    def is_failed(self) -> bool:
        """Whether an engine or a scorer failed on the way."""
        return self.finish is Finish.FAILED

    @property
    def num_tokens(self) -> int:
        """Tokens of the kept steps."""
        return self.fates.draft_accepted + self.fates.target_kept

    @property
    def role_s(self) -> dict[str, float]:
        """Seconds by model; what guessing tokens for one of them took is a role of its own."""
        found = {model: cost.seconds - cost.guessing_s for model, cost in self.usage.items()}
        guessing = sum(cost.guessing_s for cost in self.usage.values())
        return found | ({"guessing": guessing} if guessing else {})

    @property
    def outside_s(self) -> float:
        """Seconds outside model calls: the loop, and waiting for a model that others use."""
        return self.seconds - sum(cost.seconds for cost in self.usage.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a trace stands in a run, and what was noted while it was made."""

    entry: Entry
    """As the run was told; a trace knows the rule's own name."""
    attempt: int = 0
    session: int = 0
    began_s: float | None = None
    energy_j: float | None = None


def condense(trace: Trace, place: Place) -> Solution:
    """Grade a trace, and take from it what figures need."""
    measurement, verdict = trace.measurement, is_correct(trace)
    return Solution(
        entry=place.entry,
        problem=trace.problem.id,
        level=trace.problem.metadata.get("level"),
        attempt=place.attempt,
        answer=trace.answer,
        is_correct=verdict and trace.finish is not Finish.FAILED,
        finish=trace.finish,
        error=trace.error,
        steps=tuple(StepFacts.of(step) for step in trace.steps),
        fates=sum(map(Fates.of, trace.steps), Fates()),
        usage=trace.usage,
        seconds=trace.latency_s,
        measured_s=sum(cost.seconds for cost in measurement.values()),
        began_s=place.began_s,
        session=place.session,
        energy_j=place.energy_j,
    )


Graded = Mapping[Entry, Sequence[Solution]]
"""For each entry the condensed traces, of all problems and attempts."""
