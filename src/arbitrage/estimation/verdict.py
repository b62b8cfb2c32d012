"""Whether step-level speculation is worth it for a pair, on this machine and by the costs of another one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from arbitrage.bench.advice import LIKELIHOOD, NO_SCORER, Advice
from arbitrage.bench.costs import PairCosts
from arbitrage.estimation.gap import Gap, Point
from arbitrage.evaluation.figures.intervals import Estimate, percentiles
from arbitrage.report.words import ratio_text

SHARES: Final = (0.5, 0.8, 1.0)
"""Of the accuracy gap, for which the escalated steps are counted."""
MIN_SPEEDUP: Final = 1.05
"""The speed-up from which a pair is worth it: less is within the error of measured costs."""
RULES: Final = (LIKELIHOOD, NO_SCORER)
"""Rules whose order of steps follows from the draft's own solutions, the first one preferred."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """One rule on one machine, with as few steps escalated as the target's accuracy allows."""

    rule: str
    point: Point
    """The escalated steps."""
    speedup: Estimate
    """Over target-only."""
    worth_share: float
    """Share of the resamples in which the speed-up is at least :data:`MIN_SPEEDUP`."""
    break_even: float | None
    """The share of steps that the draft must keep for a speed-up of 1; None where no share suffices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a pair can gain by the costs of one machine."""

    name: str
    """In sentences, such as ``here``."""
    costs: PairCosts
    advice: Advice
    prospects: Sequence[Prospect]
    """By rule, the fastest first; empty if no rule can be timed."""

    @property
    def best(self) -> Prospect | None:
        """The fastest rule."""
        return self.prospects[0] if self.prospects else None

    @property
    def is_worth_it(self) -> bool:
        """Whether the fastest rule gains enough time at the target's accuracy."""
        return self.best is not None and self.best.speedup.value >= MIN_SPEEDUP

    @classmethod
    def of(cls, name: str, costs: PairCosts, gap: Gap, margin: float) -> "Machine":
        """Combine costs and gap.

        Args:
            name: The machine's, in sentences.
            costs: Of draft and target there.
            gap: The same pair's outcomes, which do not depend on the machine.
            margin: How far below the target's accuracy an accuracy counts as matched.
        """
        advice = Advice.of(costs)
        rules = [rule for rule in RULES if rule in gap.rules and rule in advice.scoring]
        prospects = [_prospect(rule, advice, gap, margin) for rule in rules]
        return cls(
            name=name,
            costs=costs,
            advice=advice,
            prospects=sorted(prospects, key=lambda one: -one.speedup.value),
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer, with everything that it follows from."""

    gap: Gap
    margin: float
    here: Machine
    elsewhere: Machine | None = None
    """By the costs of a file."""

    @property
    def machines(self) -> list[Machine]:
        """This one, and the file's."""
        return [self.here, *([self.elsewhere] if self.elsewhere else [])]

    @property
    def order(self) -> str:
        """The rule that orders the steps in :attr:`shares`."""
        return next(rule for rule in RULES if rule in self.gap.rules)

    @cached_property
    def shares(self) -> dict[float, Point]:
        """The fewest escalated steps that close each share of the gap; empty without a gap."""
        if self.gap.difference.value <= 0.0:
            return {}
        return {share: self.gap.for_share(self.order, share) for share in SHARES}

    @property
    def answer(self) -> str:
        """``worth it``, ``not worth it here``, or ``only with the costs in FILE``."""
        if self.here.is_worth_it:
            return "worth it"
        if self.elsewhere and self.elsewhere.is_worth_it:
            return f"only with the costs in {self.elsewhere.name}"
        return "not worth it here"

    @property
    def sentence(self) -> str:
        """The answer with its reason and its uncertainty."""
        machines = self.machines
        if not self.here.is_worth_it and self.elsewhere and self.elsewhere.is_worth_it:
            machines = machines[::-1]  # The one that decides comes first.
        return f"{self.answer}: {'; '.join(map(self._reason, machines))}"

    def _reason(self, machine: Machine) -> str:
        where = "here" if machine is self.here else f"with the costs in {machine.name}"
        best = machine.best
        if best is None:
            return f"{where} no rule can be timed"
        method = best.rule if best.point.steps else "the draft alone"
        return (
            f"{where} {method} is {ratio_text(best.speedup)} as fast as the target at its accuracy, with "
            f"{best.point.steps:.0%} of the steps escalated; at least {MIN_SPEEDUP:g} in {best.worth_share:.0%} of "
            f"resamples of {self.gap.num_problems} problems"
        )

    def to_json(self) -> dict[str, Any]:
        """All numbers and the sentence."""
        return {
            "answer": self.answer,
            "sentence": self.sentence,
            "num_problems": self.gap.num_problems,
            "margin": self.margin,
            "accuracy": {
                "draft": _estimate(self.gap.draft),
                "target": _estimate(self.gap.target),
                "difference": _estimate(self.gap.difference),
            },
            "gap": {
                "rule": self.order,
                "closed_by": [{"share": share, **_point(point)} for share, point in self.shares.items()],
            },
            "machines": [_machine(machine) for machine in self.machines],
        }


def _prospect(rule: str, advice: Advice, gap: Gap, margin: float) -> Prospect:
    point = gap.needed(rule, margin)
    speedups = [_speedup(one, rule, advice) for one in gap.needed_in_resamples(rule, margin)]
    return Prospect(
        rule=rule,
        point=point,
        speedup=Estimate(value=_speedup(point, rule, advice), interval=percentiles(speedups)),
        worth_share=sum(value >= MIN_SPEEDUP for value in speedups) / len(speedups),
        break_even=advice.break_even(rule),
    )


def _speedup(point: Point, rule: str, advice: Advice) -> float:
    """Speed-up over target-only; where no step is escalated, the draft alone does, without a rule."""
    return advice.speedup(1.0 - point.tokens, rule) if point.steps else advice.most_speedup


def _machine(machine: Machine) -> dict[str, Any]:
    advice = machine.advice
    return {
        "name": machine.name,
        "costs": machine.costs.pair,
        "cost_ratio": advice.draft,
        "draft_reading": advice.draft_reading,
        "target_reading": advice.target_reading,
        "most_speedup": advice.most_speedup,
        "is_worth_it": machine.is_worth_it,
        "rules": [
            {
                "rule": one.rule,
                "needed": _point(one.point),
                "speedup": _estimate(one.speedup),
                "worth_share": one.worth_share,
                "break_even": one.break_even,
            }
            for one in machine.prospects
        ],
    }


def _point(point: Point) -> dict[str, float]:
    return {"escalated_steps": point.steps, "escalated_tokens": point.tokens, "accuracy": point.accuracy}


def _estimate(one: Estimate) -> dict[str, Any]:
    return {"value": one.value, "interval": {"low": one.interval.low, "high": one.interval.high}}
