"""Figures of one policy on one set of problems."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import chain
from statistics import fmean
from typing import Any, Final

from arbitrage.core.types import Source
from arbitrage.evaluation.figures.intervals import Interval, Resamples, quantile, wilson
from arbitrage.evaluation.figures.rates import Rates, billed
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.solutions import Fates, Solution, StepFacts

OUTSIDE: Final = "outside"
"""The role of seconds that no model call explains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Seconds over solutions."""

    mean: float
    p50: float
    p95: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Condense values, at least one."""
        return cls(mean=fmean(values), p50=quantile(values, 0.5), p95=quantile(values, 0.95))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Figures of one policy at one threshold; None where a figure has no meaning."""

    entry: Entry
    accuracy: float | None
    """Mean over problems of the share of attempts that are right (pass@1)."""
    accuracy_low: float | None
    accuracy_high: float | None
    acceptance_rate: float | None
    """Share of steps kept from the draft, over all steps of all problems."""
    token_acceptance_rate: float | None
    """Share of tokens kept from the draft."""
    target_token_share: float | None
    wasted_escalation_rate: float | None
    """Share of escalations with s_t <= s_d, of those where both were scored."""
    seconds_per_problem: float | None
    speedup_vs_target: float | None
    overhead_share: float | None
    """Share of the latency outside model calls."""
    num_failed: int
    num_problems: int = 0
    num_solutions: int = 0
    num_ungraded: int = 0
    """Solutions without a verdict."""
    num_steps: int = 0
    num_audited: int = 0
    """Escalations where both candidates were scored."""
    target_better_rate: float | None = None
    """P(s_t > s_d | escalated), over the audited."""
    mean_advantage: float | None = None
    """Mean s_t - s_d of the audited escalations."""
    wasted_step_share: float | None = None
    """Share of all steps that are escalations without gain; audited ones speak for the others."""
    wasted_token_share: float | None = None
    """Share of the kept target tokens of audited escalations that were written without gain: W of arXiv 2512.05033."""
    tokens: Fates = field(default_factory=Fates)
    """Over all solutions that did not fail."""
    seconds: Spread | None = None
    role_s: Mapping[str, Spread] = field(default_factory=dict)
    """Seconds by model, and ``outside`` of them; a solution that did not call a model spent 0 there."""
    tokens_per_second: float | None = None
    """Kept tokens over seconds of one solution after another."""
    solutions_per_second: float | None = None
    """Over the time in which this policy had solutions in flight; None where calls only measured."""
    flops_per_problem: float | None = None
    """Estimated from the parameter counts that the user gave."""
    cost_per_problem: float | None = None
    """Estimated from the prices that the user gave, in their currency."""
    energy_j_per_problem: float | None = None


def row_of(
    entry: Entry,
    solutions: Sequence[Solution],
    target_s: float | None,
    rates: Rates | None = None,
) -> Row:
    """Figures of one entry's solutions.

    Args:
        entry: The method.
        solutions: Of all problems and attempts. Failed ones count as wrong, and in nothing else.
        target_s: Mean seconds of target-only on the same problems in the same run, if it ran.
        rates: To estimate operations and cost with.
    """
    rates = rates or Rates()
    accuracy, interval = accuracy_of(solutions)
    done = [solution for solution in solutions if not solution.is_failed]
    steps = [step for solution in done for step in solution.steps]
    seconds = [solution.seconds for solution in done]
    tokens = sum((solution.fates for solution in done), Fates())
    num_tokens = tokens.draft_accepted + tokens.target_kept
    mean_s = fmean(seconds) if seconds else None
    waste = _Waste([step for step in steps if step.is_wasted is not None])
    acceptance = fmean(step.source is Source.DRAFT for step in steps) if steps else None
    return Row(
        entry=entry,
        accuracy=accuracy,
        accuracy_low=interval.low if interval else None,
        accuracy_high=interval.high if interval else None,
        acceptance_rate=acceptance,
        token_acceptance_rate=tokens.draft_accepted / num_tokens if num_tokens else None,
        target_token_share=tokens.target_kept / num_tokens if num_tokens else None,
        wasted_escalation_rate=waste.rate,
        seconds_per_problem=mean_s,
        speedup_vs_target=target_s / mean_s if target_s and mean_s else None,
        overhead_share=sum(s.outside_s for s in done) / sum(seconds) if sum(seconds) else None,
        num_failed=len(solutions) - len(done),
        num_problems=len({solution.problem for solution in solutions}),
        num_solutions=len(solutions),
        num_ungraded=sum(solution.is_correct is None for solution in solutions),
        num_steps=len(steps),
        num_audited=len(waste.audited),
        target_better_rate=None if waste.rate is None else 1.0 - waste.rate,
        mean_advantage=waste.mean_advantage,
        wasted_step_share=None if waste.rate is None or acceptance is None else waste.rate * (1.0 - acceptance),
        wasted_token_share=waste.token_share,
        tokens=tokens,
        seconds=Spread.of(seconds) if seconds else None,
        role_s=role_seconds(done),
        tokens_per_second=num_tokens / sum(seconds) if sum(seconds) else None,
        solutions_per_second=throughput(done),
        flops_per_problem=_mean(rates.flops(billed(entry.method, solution.usage)) for solution in done),
        cost_per_problem=_mean(rates.money(billed(entry.method, solution.usage)) for solution in done),
        energy_j_per_problem=_mean(solution.energy_j for solution in done),
    )


def accuracy_of(solutions: Sequence[Solution]) -> tuple[float | None, Interval | None]:
    """Mean over problems of the share of attempts that are right, with its interval; ungraded ones left out.

    With one attempt a problem the interval is Wilson's; with several, that of a bootstrap over problems, since attempts
    at one problem are not independent.
    """
    right: dict[str, list[bool]] = {}
    for solution in solutions:
        if solution.is_correct is not None:
            right.setdefault(solution.problem, []).append(solution.is_correct)
    if not right:
        return None, None
    shares = [fmean(verdicts) for verdicts in right.values()]
    if max(map(len, right.values())) == 1:
        return fmean(shares), wilson(round(sum(shares)), len(shares))
    means = sorted(mean for mean in Resamples(len(shares)).means(shares) if mean is not None)
    return fmean(shares), Interval(low=quantile(means, 0.025), high=quantile(means, 0.975))


@dataclass(frozen=True, slots=True)
class _Waste:
    """What escalations gained, of those where both candidates were scored."""

    audited: Sequence[StepFacts]

    @property
    def rate(self) -> float | None:
        return fmean(step.is_wasted is True for step in self.audited) if self.audited else None

    @property
    def mean_advantage(self) -> float | None:
        return _mean(step.advantage for step in self.audited)

    @property
    def token_share(self) -> float | None:
        total = sum(step.num_tokens for step in self.audited)
        return sum(step.num_tokens for step in self.audited if step.is_wasted) / total if total else None


def role_seconds(solutions: Sequence[Solution]) -> dict[str, Spread]:
    """Seconds by role, and outside of models, over solutions."""
    if not solutions:
        return {}
    each = [solution.role_s for solution in solutions]
    roles = dict.fromkeys(chain.from_iterable(each))
    found = {role: Spread.of([seconds.get(role, 0.0) for seconds in each]) for role in roles}
    return {**found, OUTSIDE: Spread.of([solution.outside_s for solution in solutions])}


def throughput(solutions: Sequence[Solution]) -> float | None:
    """Solutions over the time in which at least one of them was in flight, within each session.

    Returns:
        None where times of beginning are not known, or calls that only measure took a part of them.
    """
    spans: dict[int, list[tuple[float, float]]] = {}
    for solution in solutions:
        if solution.began_s is None or solution.measured_s:
            return None
        spans.setdefault(solution.session, []).append((solution.began_s, solution.began_s + solution.seconds))
    busy = sum(_covered(session) for session in spans.values())
    return len(solutions) / busy if busy else None


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """Length of the union of spans."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean; None if there are no values, or one is not known."""
    found = list(values)
    known = [value for value in found if value is not None]
    return fmean(known) if known and len(known) == len(found) else None


def flat(record: Any, prefix: str = "") -> dict[str, Any]:
    """A dataclass as one level of columns: ``tokens.target_kept``, ``role_s.draft.p95``; an entry is two columns."""
    pairs = (
        [(f.name, getattr(record, f.name)) for f in fields(record)] if is_dataclass(record) else list(record.items())
    )
    columns: dict[str, Any] = {}
    for name, value in pairs:
        if isinstance(value, Entry):
            columns |= {f"{prefix}policy": value.policy, f"{prefix}threshold": value.threshold}
        else:
            is_nested = is_dataclass(value) or isinstance(value, Mapping)
            columns |= flat(value, f"{prefix}{name}.") if is_nested else {f"{prefix}{name}": value}
    return columns
