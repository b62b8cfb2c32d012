"""Figures of one method on one set of problems."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from statistics import fmean
from typing import Final

from arbitrage.core.types import Source
from arbitrage.evaluation.figures.intervals import Interval, Resamples, percentiles, quantile, wilson
from arbitrage.evaluation.figures.rates import Rates, billed
from arbitrage.evaluation.running.entry import TARGET, Entry
from arbitrage.evaluation.running.solutions import Fates, Graded, Solution, StepFacts, by_problem

OUTSIDE: Final = "outside"
"""The role of seconds outside model calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Mean, median and 95th percentile of seconds over solutions."""

    mean: float
    p50: float
    p95: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Condense values, at least one."""
        return cls(mean=fmean(values), p50=quantile(values, 0.5), p95=quantile(values, 0.95))


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodFigures:
    """Figures of one entry; None where the solutions do not determine a figure."""

    entry: Entry
    accuracy: float | None
    """Mean over problems of the share of attempts that are right (pass@1)."""
    accuracy_low: float | None
    accuracy_high: float | None
    acceptance_rate: float | None
    """Share of steps kept whole from the draft, over all steps of all problems."""
    token_acceptance_rate: float | None
    """Share of tokens kept from the draft."""
    target_token_share: float | None
    """Share of kept tokens written by the target."""
    wasted_escalation_rate: float | None
    """Share of escalations with s_t <= s_d, over those where one scorer scored both candidates."""
    seconds_per_problem: float | None
    speedup_vs_target: float | None
    overhead_share: float | None
    """Share of the latency outside model calls."""
    num_failed: int
    repair_rate: float | None = None
    """Share of steps that the draft began and the target completed."""
    num_problems: int = 0
    num_solutions: int = 0
    num_ungraded: int = 0
    """Solutions without a verdict."""
    num_steps: int = 0
    num_audited: int = 0
    """Escalations where one scorer scored both candidates."""
    target_better_rate: float | None = None
    """P(s_t > s_d | escalated), over the audited escalations."""
    mean_advantage: float | None = None
    """Mean s_t - s_d of the audited escalations."""
    wasted_step_share: float | None = None
    """Share of all steps that are escalations without gain, if those not audited are like the audited ones."""
    wasted_token_share: float | None = None
    """Share of the kept target tokens of audited escalations that were written without gain: W of arXiv 2512.05033."""
    tokens: Fates = field(default_factory=Fates)
    """Over all solutions that did not fail."""
    seconds: Spread | None = None
    role_s: Mapping[str, Spread] = field(default_factory=dict)
    """Seconds by model, and ``outside`` of them; a solution that did not call a model spent 0 seconds there."""
    tokens_per_second: float | None = None
    """Kept tokens over seconds of one solution after another."""
    solutions_per_second: float | None = None
    """Solutions over the time in which this entry had solutions in flight; None if calls only measured."""
    flops_per_problem: float | None = None
    """Estimated from the parameter counts that the user gave."""
    cost_per_problem: float | None = None
    """Estimated from the prices that the user gave, in their currency."""
    energy_j_per_problem: float | None = None


def all_figures(solutions: Graded, rates: Rates | None = None) -> list[MethodFigures]:
    """Figures of every entry; speed-ups are over target-only of the same run.

    Args:
        solutions: By entry, of all problems and attempts.
        rates: To estimate operations and cost with.
    """
    target_s = _mean(solution.seconds for solution in solutions.get(TARGET, ()) if not solution.is_failed)
    return [figures_of(entry, of_entry, target_s, rates) for entry, of_entry in solutions.items()]


def figures_of(
    entry: Entry,
    solutions: Sequence[Solution],
    target_s: float | None,
    rates: Rates | None = None,
) -> MethodFigures:
    """Figures of one entry's solutions.

    Args:
        entry: The method.
        solutions: Of all problems and attempts. Failed ones are wrong, and left out of all figures but accuracy.
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
    mean_s = _mean(seconds)
    waste = _Waste([step for step in steps if step.is_wasted is not None])
    acceptance = _mean(step.source is Source.DRAFT for step in steps)
    return MethodFigures(
        entry=entry,
        accuracy=accuracy,
        accuracy_low=interval.low if interval else None,
        accuracy_high=interval.high if interval else None,
        acceptance_rate=acceptance,
        repair_rate=_mean(step.num_taken > 0 for step in steps),
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
    """Mean over problems of the share of attempts that are right, with its interval; ungraded solutions left out.

    With one attempt at each problem the interval is Wilson's. With several it is that of a bootstrap over problems,
    since attempts at one problem are not independent.
    """
    graded = [solution for solution in solutions if solution.is_correct is not None]
    if not graded:
        return None, None
    problems = list(by_problem(graded).values())
    shares = [fmean(attempt.is_correct is True for attempt in attempts) for attempts in problems]
    if max(map(len, problems)) == 1:
        return fmean(shares), wilson(round(sum(shares)), len(shares))
    means = Resamples(len(shares)).means(shares)
    return fmean(shares), percentiles([mean for mean in means if mean is not None])


@dataclass(frozen=True, slots=True)
class _Waste:
    """Gains of the audited escalations, those where one scorer scored both candidates."""

    audited: Sequence[StepFacts]

    @property
    def rate(self) -> float | None:
        return _mean(step.is_wasted is True for step in self.audited)

    @property
    def mean_advantage(self) -> float | None:
        return _mean(step.advantage for step in self.audited)

    @property
    def token_share(self) -> float | None:
        total = sum(step.num_target_tokens for step in self.audited)
        return sum(step.num_target_tokens for step in self.audited if step.is_wasted) / total if total else None


def role_seconds(solutions: Sequence[Solution]) -> dict[str, Spread]:
    """Seconds by model and outside models, over solutions."""
    if not solutions:
        return {}
    each = [solution.role_s for solution in solutions]
    roles = dict.fromkeys(chain.from_iterable(each))
    spreads = {role: Spread.of([seconds.get(role, 0.0) for seconds in each]) for role in roles}
    return {**spreads, OUTSIDE: Spread.of([solution.outside_s for solution in solutions])}


def throughput(solutions: Sequence[Solution]) -> float | None:
    """Solutions over the time in which at least one of them was in flight, within each session.

    Returns:
        None if starting times were not recorded, or calls that only measure took a part of the time.
    """
    spans: dict[int, list[tuple[float, float]]] = {}
    for solution in solutions:
        if solution.began_s is None or solution.measured_s:
            return None
        spans.setdefault(solution.session, []).append((solution.began_s, solution.began_s + solution.seconds))
    busy = sum(_length_of_union(of_session) for of_session in spans.values())
    return len(solutions) / busy if busy else None


def _length_of_union(spans: Sequence[tuple[float, float]]) -> float:
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean; None if there are no values, or one of them is None."""
    numbers = list(values)
    present = [number for number in numbers if number is not None]
    return fmean(present) if present and len(present) == len(numbers) else None
