"""A threshold for a budget, chosen on solved problems with a bound on the risk of missing it.

Method: Learn-then-Test (Angelopoulos et al., arXiv 2110.01052). Each threshold is a hypothesis "its mean loss exceeds
the limit"; thresholds are tested one after another, beginning with the safest, each at level 1 - confidence, until one
cannot be rejected (fixed-sequence testing). The test is the betting martingale of Waudby-Smith and Ramdas
(arXiv 2010.09686), valid for any loss in [0, 1] and any number of problems. Then, with the stated confidence over the
choice of problems, the mean loss on problems of the same kind is within the limit.
"""

import enum
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import Final, Self

from arbitrage import grading
from arbitrage.core.errors import ConfigError, MissingExtra, TraceError
from arbitrage.core.trace import Trace
from arbitrage.core.types import Finish

try:
    import numpy as np
    from scipy.optimize import brentq
except ImportError as error:
    raise MissingExtra("train") from error

LATE_SHARE: Final = 0.1
"""A budget of seconds allows so many problems to take longer."""


class Goal(enum.StrEnum):
    """What a budget limits."""

    TARGET_TOKENS = "target-tokens"
    """Share of a problem's tokens that the target writes, on average over problems; in (0, 1)."""
    SECONDS = "seconds"
    """Seconds that nine of ten problems take at most: a mean of times without a bound cannot be certified."""
    ACCURACY_LOSS = "accuracy-loss"
    """Share of problems right minus that of target-only, at most so much below; in (0, 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A limit, written as ``target-tokens<=0.3``.

    Raises:
        ConfigError: If the limit is out of range.
    """

    goal: Goal
    limit: float

    def __post_init__(self) -> None:
        largest = float("inf") if self.goal is Goal.SECONDS else 1.0
        if not 0.0 < self.limit < largest:
            raise ConfigError(f"the limit of {self.goal} must be above 0 and below {largest:g}, got {self.limit:g}")

    @property
    def name(self) -> str:
        """The budget in words, as checkpoints and ``solve --budget`` know it."""
        return f"{self.goal}<={self.limit:g}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a budget.

        Raises:
            ConfigError: If it is none.
        """
        found = re.fullmatch(rf"\s*({'|'.join(Goal)})\s*<=\s*([0-9.eE+-]+)\s*", text)
        try:
            if found:
                return cls(goal=Goal(found[1]), limit=float(found[2]))
        except ValueError:
            pass
        raise ConfigError(
            f"not a budget: {text!r}", hint="write " + ", ".join(f"{g}<=NUMBER" for g in Goal) + ", in quotes"
        )

    @property
    def loss_limit(self) -> float:
        """The limit of the mean :meth:`loss`."""
        if self.goal is Goal.SECONDS:
            return LATE_SHARE
        return self.limit if self.goal is Goal.TARGET_TOKENS else (1.0 + self.limit) / 2.0

    def loss(self, attempts: Sequence["Outcome"], reference: Sequence["Outcome"]) -> float:
        """What one problem adds to the mean that is limited, in [0, 1].

        Args:
            attempts: Under the threshold in question; of several the mean counts, since they are not independent.
            reference: Under target-only; needed for the loss of accuracy.
        """
        if self.goal is Goal.TARGET_TOKENS:
            return fmean(outcome.target_token_share for outcome in attempts)
        if self.goal is Goal.SECONDS:
            return fmean(outcome.seconds > self.limit for outcome in attempts)
        own, theirs = (fmean(outcome.is_correct is True for outcome in found) for found in (attempts, reference))
        return (1.0 + theirs - own) / 2.0

    @property
    def is_safest_high(self) -> bool:
        """Whether the highest threshold, which escalates least, is the safest."""
        return self.goal is not Goal.ACCURACY_LOSS


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one attempt at a problem under one threshold came to; a failure is the worst of all."""

    problem: str
    """Its id."""
    target_token_share: float
    seconds: float
    is_correct: bool | None
    """None if it cannot be graded."""

    @classmethod
    def of(cls, trace: Trace, *, grade: grading.Grade = grading.is_correct) -> Self:
        """Condense a trace."""
        if trace.finish is Finish.FAILED:
            return cls(problem=trace.problem.id, target_token_share=1.0, seconds=float("inf"), is_correct=False)
        return cls(
            problem=trace.problem.id,
            target_token_share=trace.target_token_share or 0.0,
            seconds=trace.latency_s,
            is_correct=grade(trace),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """One threshold's mean loss, in the budget's unit, with the bound that holds with the wanted confidence."""

    threshold: float
    mean: float
    bound: float
    is_certified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A threshold that keeps a budget."""

    budget: str
    threshold: float
    confidence: float
    num_problems: int
    tested: Sequence[Tested]
    """In order of testing; the last may be the one that failed."""


def calibrate(
    outcomes: Mapping[float, Sequence[Outcome]],
    reference: Sequence[Outcome],
    budget: Budget,
    *,
    confidence: float = 0.9,
    seed: int = 0,
) -> Calibration:
    """Choose the threshold that makes the most of a budget and still keeps it.

    Of the thresholds that are certified, that is the one with the most escalations for a budget of tokens or seconds,
    and with the fewest for one of accuracy.

    Args:
        outcomes: Of the same held-out problems under every threshold.
        reference: Of target-only on these; only a budget of accuracy needs it.
        budget: What to keep.
        confidence: That the budget is kept on new problems of the same kind, in (0, 1).
        seed: Of the order in which problems are looked at.

    Raises:
        ConfigError: If the confidence is out of range, or no threshold keeps the budget.
        TraceError: If outcomes are missing.
    """
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"confidence must be in (0, 1), got {confidence}")
    order = _shared_problems(outcomes, reference, budget)
    random.Random(seed).shuffle(order)
    of_target = _by_problem(reference)
    tested: list[Tested] = []
    for threshold in sorted(outcomes, reverse=budget.is_safest_high):
        found = _by_problem(outcomes[threshold])
        losses = [budget.loss(found[problem], of_target.get(problem, ())) for problem in order]
        tested.append(_test(threshold, losses, budget, confidence))
        if not tested[-1].is_certified:
            break
    certified = [test for test in tested if test.is_certified]
    if not certified:
        raise ConfigError(
            f"no threshold keeps {budget.name} with confidence {confidence:g} on {len(order)} problems: the safest, "
            f"{tested[0].threshold:g}, has {tested[0].mean:.4g}, and at most {tested[0].bound:.4g} can be promised",
            hint="allow more, or solve more problems",
        )
    return Calibration(
        budget=budget.name,
        threshold=certified[-1].threshold,
        confidence=confidence,
        num_problems=len(order),
        tested=tested,
    )


def _shared_problems(
    outcomes: Mapping[float, Sequence[Outcome]], reference: Sequence[Outcome], budget: Budget
) -> list[str]:
    """The problems, which must be the same everywhere; for a budget of accuracy those that could be graded."""
    if not any(outcomes.values()):
        raise TraceError("a calibration needs solved problems, got none")
    groups = {f"threshold {threshold:g}": found for threshold, found in outcomes.items()}
    if budget.goal is Goal.ACCURACY_LOSS:
        groups["target-only"] = reference
    ids = {name: sorted(outcome.problem for outcome in found) for name, found in groups.items()}
    first = next(iter(ids))
    for name, found in ids.items():
        if found != ids[first]:
            raise TraceError(
                f"{name} has {len(found)} solutions, {first} has {len(ids[first])}: they must be of the same problems",
                hint="evaluate all thresholds and target-only in one run",
            )
    needs_grade = budget.goal is Goal.ACCURACY_LOSS
    known = chain.from_iterable(groups.values()) if needs_grade else ()
    ungraded = {outcome.problem for outcome in known if outcome.is_correct is None}
    graded = [problem for problem in dict.fromkeys(ids[first]) if problem not in ungraded]
    if not graded:
        raise TraceError(f"{budget.name} needs graded problems, got none", hint="solve problems with gold answers")
    return graded


def _by_problem(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.problem, []).append(outcome)
    return found


def _test(threshold: float, losses: Sequence[float], budget: Budget, confidence: float) -> Tested:
    mean, bound = fmean(losses), upper_bound(losses, 1.0 - confidence)
    is_certified = bound <= budget.loss_limit
    if budget.goal is Goal.ACCURACY_LOSS:
        mean, bound = 2.0 * mean - 1.0, 2.0 * bound - 1.0
    return Tested(threshold=threshold, mean=mean, bound=bound, is_certified=is_certified)


def upper_bound(losses: Sequence[float], delta: float) -> float:
    """What the true mean exceeds with a chance of at most ``delta``.

    Args:
        losses: In [0, 1], in an order that does not depend on them.
        delta: In (0, 1).
    """

    def excess(limit: float) -> float:
        return evidence(losses, limit, delta) - 1.0 / delta

    return 1.0 if excess(1.0) <= 0.0 else float(brentq(excess, 0.0, 1.0, xtol=1e-6))


def evidence(losses: Sequence[float], limit: float, delta: float) -> float:
    """How strongly losses speak against "their mean is at least ``limit``": the largest capital of a bettor.

    If that were true, the chance of ever reaching 1 / d is at most d, for every d (Ville's inequality).

    Args:
        losses: In [0, 1], in an order that does not depend on them.
        limit: In [0, 1].
        delta: The bets are tuned for a test at this level and valid at all.
    """
    x = np.asarray(losses, dtype=float)
    count = np.arange(1, len(x) + 1)
    means = (0.5 + np.cumsum(x)) / (count + 1)
    variances = (0.25 + np.cumsum((x - means) ** 2)) / (count + 1)
    known = np.concatenate([[0.25], variances[:-1]])  # A bet may depend on what was seen before only.
    bets = np.minimum(1.0, np.sqrt(2.0 * np.log(1.0 / delta) / (len(x) * known)))
    with np.errstate(divide="ignore"):  # A bet of everything can be lost.
        capital = np.cumsum(np.log1p(-bets * (x - limit)))
    return float(np.exp(np.minimum(capital.max(), 700.0)))


def outcomes_of(
    records: Iterable[tuple[float | None, Trace]], policy: str
) -> tuple[dict[float, list[Outcome]], list[Outcome]]:
    """Sort traces of a comparison: those of ``policy`` by threshold, and those of target-only.

    Args:
        records: Threshold and trace.
        policy: Whose thresholds are calibrated.
    """
    found: dict[float, list[Outcome]] = {}
    reference: list[Outcome] = []
    for threshold, trace in records:
        if trace.policy == "target":
            reference.append(Outcome.of(trace))
        elif trace.policy == policy and threshold is not None:
            found.setdefault(threshold, []).append(Outcome.of(trace))
    return found, reference
