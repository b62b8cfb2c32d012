"""Choose a threshold for a budget on solved problems, with a bound on the risk of exceeding the budget.

Method: Learn-then-Test (Angelopoulos et al., arXiv 2110.01052). Each threshold is a hypothesis "its mean loss exceeds
the limit". Thresholds are tested one after another, the safest first, each at level 1 - confidence, until one cannot be
rejected (fixed-sequence testing). The test is the betting martingale of Waudby-Smith and Ramdas (arXiv 2010.09686),
valid for any loss in [0, 1] and any number of problems. Then, with the stated confidence over the choice of problems,
the mean loss on problems of the same kind is within the limit.
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
from arbitrage.evaluation.running.entry import TARGET, Entry
from arbitrage.evaluation.running.solutions import by_problem

try:
    import numpy as np
    from scipy.optimize import brentq
except ImportError as error:
    raise MissingExtra("train") from error

LATE_SHARE: Final = 0.1
"""Share of the problems that may exceed a budget of seconds."""


class Goal(enum.StrEnum):
    """The quantity that a budget limits."""

    TARGET_TOKENS = "target-tokens"
    """Share of a problem's tokens that the target writes, on average over problems; in (0, 1)."""
    SECONDS = "seconds"
    """Seconds that nine of ten problems take at most. The mean of times without a bound cannot be certified."""
    ACCURACY_LOSS = "accuracy-loss"
    """Accuracy of target-only minus accuracy; in (0, 1)."""


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
        """The budget as text, under which a checkpoint and ``solve --budget`` name it."""
        return f"{self.goal}<={self.limit:g}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a budget.

        Raises:
            ConfigError: If the text is not a budget.
        """
        match = re.fullmatch(rf"\s*({'|'.join(Goal)})\s*<=\s*([0-9.eE+-]+)\s*", text)
        try:
            if match:
                return cls(goal=Goal(match[1]), limit=float(match[2]))
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
        """The loss of one problem, in [0, 1]; the budget limits its mean.

        Args:
            attempts: Under the threshold in question. Several attempts at a problem are not independent, so their mean
                is one loss.
            reference: Under target-only; needed for a loss of accuracy.
        """
        if self.goal is Goal.TARGET_TOKENS:
            return fmean(outcome.target_token_share for outcome in attempts)
        if self.goal is Goal.SECONDS:
            return fmean(outcome.seconds > self.limit for outcome in attempts)
        own, other = (fmean(outcome.is_correct is True for outcome in group) for group in (attempts, reference))
        return (1.0 + other - own) / 2.0

    @property
    def is_safest_high(self) -> bool:
        """Whether the highest threshold, which escalates least, is the safest."""
        return self.goal is not Goal.ACCURACY_LOSS


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One attempt at a problem under one threshold; a failure has the largest loss for every budget."""

    problem: str
    """The problem's id."""
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
    """The test of one threshold."""

    threshold: float
    mean: float
    """Mean loss, in the budget's unit."""
    bound: float
    """Upper bound of the true mean with the required confidence, in the budget's unit."""
    is_certified: bool
    """Whether the bound is within the budget."""


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
    """Choose the threshold that uses a budget best and still keeps it.

    Of the certified thresholds it is the one with the most escalations for a budget of tokens or seconds, and with the
    fewest for a budget of accuracy.

    Args:
        outcomes: Of the same held-out problems under every threshold.
        reference: Of target-only on these problems; needed for a budget of accuracy.
        budget: The budget to keep.
        confidence: Probability that the budget is kept on new problems of the same kind, in (0, 1).
        seed: Seed of the order in which problems enter the test.

    Raises:
        ConfigError: If the confidence is out of range, or no threshold keeps the budget.
        TraceError: If outcomes are missing.
    """
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"confidence must be in (0, 1), got {confidence}")
    order = _shared_problems(outcomes, reference, budget)
    random.Random(seed).shuffle(order)
    of_target = by_problem(reference)
    tested: list[Tested] = []
    for threshold in sorted(outcomes, reverse=budget.is_safest_high):
        attempts = by_problem(outcomes[threshold])
        losses = [budget.loss(attempts[problem], of_target.get(problem, ())) for problem in order]
        tested.append(_test(threshold, losses, budget, confidence))
        if not tested[-1].is_certified:
            break
    if not (certified := [test for test in tested if test.is_certified]):
        raise ConfigError(
            f"no threshold keeps {budget.name} with confidence {confidence:g} on {len(order)} problems: the safest "
            f"threshold, {tested[0].threshold:g}, has a mean of {tested[0].mean:.4g} with an upper bound of "
            f"{tested[0].bound:.4g}",
            hint="raise the limit, or solve more problems",
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
    """Ids of the problems, which must be the same everywhere; for a budget of accuracy only the graded problems."""
    if not any(outcomes.values()):
        raise TraceError("a calibration needs solved problems, got none")
    groups = {f"threshold {threshold:g}": of_threshold for threshold, of_threshold in outcomes.items()}
    if budget.goal is Goal.ACCURACY_LOSS:
        groups["target-only"] = reference
    ids = {name: sorted(outcome.problem for outcome in group) for name, group in groups.items()}
    first = next(iter(ids))
    for name, own_ids in ids.items():
        if own_ids != ids[first]:
            raise TraceError(
                f"{name} has {len(own_ids)} solutions, {first} has {len(ids[first])}: they must be of the same "
                "problems",
                hint="evaluate all thresholds and target-only in one run",
            )
    if budget.goal is not Goal.ACCURACY_LOSS:
        return list(dict.fromkeys(ids[first]))
    ungraded = {outcome.problem for outcome in chain.from_iterable(groups.values()) if outcome.is_correct is None}
    graded = [problem for problem in dict.fromkeys(ids[first]) if problem not in ungraded]
    if not graded:
        raise TraceError(f"{budget.name} needs graded problems, got none", hint="solve problems with gold answers")
    return graded


def _test(threshold: float, losses: Sequence[float], budget: Budget, confidence: float) -> Tested:
    mean, bound = fmean(losses), upper_bound(losses, 1.0 - confidence)
    is_certified = bound <= budget.loss_limit
    if budget.goal is Goal.ACCURACY_LOSS:
        mean, bound = 2.0 * mean - 1.0, 2.0 * bound - 1.0
    return Tested(threshold=threshold, mean=mean, bound=bound, is_certified=is_certified)


def upper_bound(losses: Sequence[float], delta: float) -> float:
    """Upper bound of the true mean of losses, exceeded with a probability of at most ``delta``.

    Args:
        losses: In [0, 1], in an order that does not depend on them; shape [problems].
        delta: In (0, 1).
    """

    def excess(limit: float) -> float:
        return evidence(losses, limit, delta) - 1.0 / delta

    return 1.0 if excess(1.0) <= 0.0 else float(brentq(excess, 0.0, 1.0, xtol=1e-6))


def evidence(losses: Sequence[float], limit: float, delta: float) -> float:
    """Evidence against "the mean of the losses is at least ``limit``": the largest capital of a bettor against it.

    If the hypothesis is true, the capital ever reaches 1 / d with a probability of at most d, for every d (Ville's
    inequality).

    Args:
        losses: In [0, 1], in an order that does not depend on them; shape [problems].
        limit: In [0, 1].
        delta: Level that the bets are tuned for; the test is valid for any bets.
    """
    x = np.asarray(losses, dtype=float)
    count = np.arange(1, len(x) + 1)
    means = (0.5 + np.cumsum(x)) / (count + 1)
    variances = (0.25 + np.cumsum((x - means) ** 2)) / (count + 1)
    earlier = np.concatenate([[0.25], variances[:-1]])  # A bet may depend on earlier losses only.
    bets = np.minimum(1.0, np.sqrt(2.0 * np.log(1.0 / delta) / (len(x) * earlier)))
    with np.errstate(divide="ignore"):  # A bet of the whole capital can lose all of it.
        capital = np.cumsum(np.log1p(-bets * (x - limit)))
    return float(np.exp(np.minimum(capital.max(), 700.0)))


def outcomes_of(
    records: Iterable[tuple[Entry, Trace]], method: Entry
) -> tuple[dict[float, list[Outcome]], list[Outcome]]:
    """Sort the traces of a comparison.

    Args:
        records: Entry and trace.
        method: The method whose thresholds are calibrated.

    Returns:
        Outcomes of the method by threshold, and those of target-only.
    """
    outcomes: dict[float, list[Outcome]] = {}
    reference: list[Outcome] = []
    for entry, trace in records:
        if entry == TARGET:
            reference.append(Outcome.of(trace))
        elif entry.group == method and entry.threshold is not None:
            outcomes.setdefault(entry.threshold, []).append(Outcome.of(trace))
    return outcomes, reference
