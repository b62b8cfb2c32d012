"""The workload of an evaluation before it runs: bounds from its limits, an estimate from finished solutions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from arbitrage.core.turn import Setting
from arbitrage.core.types import Cost, Problem
from arbitrage.evaluation.running.folder import TRACES, read_run
from arbitrage.evaluation.running.solutions import Graded, Solution
from arbitrage.policies.spec import MethodSpec

CALLS_PER_STEP: Final = 5
"""At most, under a method with a threshold: a candidate of each model, the score that the rule needs, and the
audit's scores of both candidates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Model calls and generated tokens of an evaluation."""

    num_calls: float
    num_tokens: float
    seconds: float | None = None
    """None for a bound: limits do not bound the time."""

    @classmethod
    def bound(cls, methods: Sequence[MethodSpec], setting: Setting, num_each: int) -> Self:
        """Bounds by the limits, for methods that generate at most one step by each model and use one scorer.

        Args:
            methods: The methods.
            setting: Holds the limits.
            num_each: Solutions by each method.
        """
        limits, with_threshold = setting.limits, sum(method.has_threshold for method in methods)
        without = len(methods) - with_threshold
        discarded = limits.max_steps * limits.max_step_tokens
        return cls(
            num_calls=num_each * limits.max_steps * (CALLS_PER_STEP * with_threshold + without),
            num_tokens=num_each * (limits.max_tokens * len(methods) + discarded * with_threshold),
        )

    @classmethod
    def estimate(cls, finished: Iterable[Sequence[Solution]], num_each: int) -> Self:
        """An estimate from the means of finished solutions.

        Args:
            finished: For each method its finished solutions, at least one.
            num_each: Solutions by each method in the whole run.
        """
        calls = tokens = seconds = 0.0
        for solutions in finished:
            scale = num_each / len(solutions)
            cost = sum((cost for solution in solutions for cost in solution.usage.values()), Cost())
            calls += scale * cost.num_calls
            tokens += scale * cost.num_generated
            seconds += scale * sum(solution.seconds + solution.measured_s for solution in solutions)
        return cls(num_calls=calls, num_tokens=tokens, seconds=seconds)


def workload_lines(
    methods: Sequence[MethodSpec], problems: Sequence[Problem], setting: Setting, attempts: int, out: Path | None
) -> list[str]:
    """The workload in words: number of solutions, bounds, and an estimate where the run folder holds solutions.

    Args:
        methods: The methods, thresholds included.
        problems: The problems.
        setting: Holds the limits.
        attempts: Attempts at each problem.
        out: The run folder, which need not exist; None for none.
    """
    num_each, limits = len(problems) * attempts, setting.limits
    bound = Workload.bound(methods, setting, num_each)
    lines = [
        f"{num_each * len(methods)} solutions: {len(problems)} problems, {len(methods)} policies and thresholds, "
        f"{attempts} attempt{'s' if attempts > 1 else ''} each; 2 more problems of each to warm up",
        f"at most {bound.num_calls:,.0f} model calls and {bound.num_tokens:,.0f} generated tokens, by the limits of "
        f"{limits.max_steps} steps and {limits.max_tokens} tokens, for policies that generate one step by each model "
        "and use one scorer",
    ]
    finished = _finished(methods, out)
    missing = [str(method) for method, solutions in finished.items() if not solutions]
    if missing:
        others = f" and {len(missing) - 3} others" if len(missing) > 3 else ""
        return [*lines, f"no estimate: nothing is solved yet by {', '.join(missing[:3])}{others}"]
    mean = Workload.estimate(finished.values(), num_each)
    return [
        *lines,
        f"about {mean.num_calls:,.0f} calls and {mean.num_tokens:,.0f} generated tokens in "
        f"{(mean.seconds or 0.0) / 60:,.1f} minutes, by the means of finished solutions",
    ]


def _finished(methods: Sequence[MethodSpec], out: Path | None) -> Mapping[MethodSpec, Sequence[Solution]]:
    """For each method the solutions that a run folder holds."""
    has_traces = out is not None and (out / TRACES).is_file() and (out / TRACES).stat().st_size > 0
    solutions: Graded = read_run(out).solutions if out is not None and has_traces else {}
    return {method: _solved_by(method, solutions) for method in methods}


def _solved_by(method: MethodSpec, solutions: Graded) -> Sequence[Solution]:
    """A method's solutions; for a method without a threshold those at the first one, since a run names defaults."""
    for entry, of_entry in solutions.items():
        if entry.method == method or (method.threshold is None and entry.method.at(None) == method):
            return of_entry
    return ()
