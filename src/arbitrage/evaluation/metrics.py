"""Figures of one policy on one set of problems, and intervals for comparing two."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from arbitrage.core.trace import Trace
from arbitrage.core.types import Finish, Source
from arbitrage.evaluation.grading import Grade, is_correct


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Figures of one policy at one threshold; None where a figure has no meaning."""

    policy: str
    threshold: float | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    acceptance_rate: float | None
    """Share of steps kept from the draft, over all steps of all problems."""
    token_acceptance_rate: float | None
    """Share of tokens kept from the draft."""
    target_token_share: float | None
    wasted_escalation_rate: float | None
    """Share of escalations with s_t <= s_d."""
    seconds_per_problem: float | None
    speedup_vs_target: float | None
    overhead_share: float | None
    """Share of the latency outside model calls."""
    num_failed: int
    num_ungraded: int = 0
    """Answers whose gold answer is unknown or unreadable, or whose grading timed out; not in the accuracy."""


def summarize(
    policy: str,
    threshold: float | None,
    traces: Sequence[Trace],
    target_s: float | None,
    *,
    grade: Grade = is_correct,
) -> Row:
    """Condense the traces of one policy.

    Args:
        policy: Its name.
        threshold: Its threshold, if it has one.
        traces: One per problem. Failed ones count as wrong, and not in the times.
        target_s: Mean seconds of target-only on the same problems in the same run, if it ran.
        grade: Says which are right.
    """
    graded = [correct for trace in traces if (correct := grade(trace)) is not None]
    interval = wilson(sum(graded), len(graded)) if graded else None
    done = [trace for trace in traces if trace.finish is not Finish.FAILED]
    steps = [step for trace in done for step in trace.steps]
    num_tokens = sum(trace.num_tokens for trace in done)
    target_tokens = sum(s.candidate.num_tokens for s in steps if s.source is Source.TARGET)
    wasted = [is_wasted for trace in done for is_wasted in wasted_escalations(trace)]
    latency = sum(trace.latency_s for trace in done)
    seconds = latency / len(done) if done else None
    return Row(
        policy=policy,
        threshold=threshold,
        accuracy=fmean(graded) if graded else None,
        accuracy_low=interval.low if interval else None,
        accuracy_high=interval.high if interval else None,
        acceptance_rate=fmean(step.source is Source.DRAFT for step in steps) if steps else None,
        token_acceptance_rate=1 - target_tokens / num_tokens if num_tokens else None,
        target_token_share=target_tokens / num_tokens if num_tokens else None,
        wasted_escalation_rate=fmean(wasted) if wasted else None,
        seconds_per_problem=seconds,
        speedup_vs_target=target_s / seconds if target_s and seconds else None,
        overhead_share=1 - sum(trace.model_s for trace in done) / latency if latency else None,
        num_failed=len(traces) - len(done),
        num_ungraded=len(traces) - len(graded),
    )


def wasted_escalations(trace: Trace) -> list[bool]:
    """For each escalation whose two candidates were both scored by one PRM: was s_t <= s_d?

    Scores are there where the policy compared both, or was audited.
    """
    wasted = []
    for step in trace.steps:
        by_source: dict[Source, float] = {score.source: score.value for score in step.scores}
        if step.source is Source.TARGET and len(by_source) == len(Source):
            wasted.append(by_source[Source.TARGET] <= by_source[Source.DRAFT])
    return wasted


def wilson(num_right: int, num: int, z: float = 1.959964) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927)."""
    share, spread = num_right / num, z * z / num
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / num + spread / (4 * num))
    return Interval(low=max(0.0, centre - half), high=min(1.0, centre + half))


def bootstrap(
    statistic: Callable[[Sequence[int]], float], num: int, *, rng: random.Random, resamples: int = 2000
) -> Interval:
    """Percentile bootstrap over problems; paired, since ``statistic`` sees the same indices for all policies.

    Args:
        statistic: From a sample of problem indices to a figure.
        num: Number of problems.
        rng: Source of chance.
        resamples: How many samples to draw.
    """
    values = sorted(statistic(rng.choices(range(num), k=num)) for _ in range(resamples))
    return Interval(low=values[int(0.025 * resamples)], high=values[min(resamples - 1, int(0.975 * resamples))])
