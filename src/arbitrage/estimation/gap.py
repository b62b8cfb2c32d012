"""Where a draft's accuracy gap sits: how few of its steps a target would have to write instead.

The draft solves each problem alone, and so does the target. Each step of the draft has a doubt, such as its
improbability under the target. At a threshold, the steps with more doubt are escalated. A problem with an escalated
step is counted with the target's answer, one without with the draft's: no step escalated gives the draft's accuracy,
all steps escalated the target's. Real solutions differ behind an escalated step; `arbitrage eval` measures them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from arbitrage.evaluation.figures.intervals import Estimate, Interval, Resamples, percentiles, wilson
from arbitrage.evaluation.figures.paired import floor_of

MAX_POINTS: Final = 60
"""At most so many thresholds are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftedStep:
    """One step of the draft's own solution."""

    num_tokens: int
    doubt: Mapping[str, float]
    """By rule: a step with more doubt is escalated first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One problem, solved by each model alone."""

    problem: str
    draft_right: bool
    target_right: bool
    steps: Sequence[DraftedStep]
    """The draft's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What a threshold would give."""

    threshold: float
    """Steps with more doubt are escalated."""
    steps: float
    """Share of the steps that are escalated."""
    tokens: float
    """Share of the tokens in them."""
    accuracy: float


class Gap:
    """Accuracy against the share of escalated steps, of one sample of problems and in its resamples."""

    def __init__(self, outcomes: Sequence[Outcome], *, seed: int = 0) -> None:
        """Line up the outcomes.

        Args:
            outcomes: Of each problem, at least one, each with at least one step.
            seed: Seed of the resamples.
        """
        self._outcomes = outcomes
        self._resamples = Resamples(len(outcomes), seed=seed)

    @property
    def num_problems(self) -> int:
        """Problems whose answers could be graded."""
        return len(self._outcomes)

    @property
    def rules(self) -> list[str]:
        """The rules whose doubt every step has."""
        steps = [step for one in self._outcomes for step in one.steps]
        return [rule for rule in steps[0].doubt if all(rule in step.doubt for step in steps)]

    @cached_property
    def draft(self) -> Estimate:
        """The draft's accuracy, with Wilson's interval."""
        return _accuracy([one.draft_right for one in self._outcomes])

    @cached_property
    def target(self) -> Estimate:
        """The target's accuracy, with Wilson's interval."""
        return _accuracy([one.target_right for one in self._outcomes])

    @cached_property
    def difference(self) -> Estimate:
        """Accuracy of the target minus the draft's, with a paired interval."""
        values = [float(one.target_right) - float(one.draft_right) for one in self._outcomes]
        return Estimate(
            value=self.target.value - self.draft.value, interval=percentiles(_present(self._resamples.means(values)))
        )

    def curve(self, rule: str) -> list[Point]:
        """Accuracy by threshold, from no step escalated to all.

        Args:
            rule: Whose doubt orders the steps.
        """
        columns = self._columns(rule)
        return [column.point(range(len(self._outcomes))) for column in columns]

    def needed(self, rule: str, margin: float) -> Point:
        """The point with the fewest escalated tokens that reaches the target's accuracy minus the margin."""
        return _first(self.curve(rule), self.target.value, margin)

    def for_share(self, rule: str, share: float) -> Point:
        """The point with the fewest escalated tokens that closes a share of the gap.

        Args:
            rule: Whose doubt orders the steps.
            share: Of the gap, in [0, 1].
        """
        return _first(self.curve(rule), self.draft.value + share * self.difference.value, 0.0)

    def needed_in_resamples(self, rule: str, margin: float) -> list[Point]:
        """The same as :meth:`needed`, in each resample."""
        columns = self._columns(rule)
        targets = _present(self._resamples.means([float(one.target_right) for one in self._outcomes]))
        by_column = [column.resampled(self._resamples) for column in columns]
        return [_first(points, target, margin) for target, *points in zip(targets, *by_column, strict=True)]

    def _columns(self, rule: str) -> list["_Column"]:
        doubts = sorted({step.doubt[rule] for one in self._outcomes for step in one.steps}, reverse=True)
        stride = max(1, -(-len(doubts) // MAX_POINTS))
        return [_Column(self._outcomes, rule, threshold) for threshold in [*doubts[::stride], -math.inf]]


class _Column:
    """All problems at one threshold."""

    def __init__(self, outcomes: Sequence[Outcome], rule: str, threshold: float) -> None:
        escalated = [[step for step in one.steps if step.doubt[rule] > threshold] for one in outcomes]
        self._threshold = threshold
        is_all = threshold == -math.inf  # Then also a problem for which the draft wrote no step.
        self._right = [
            float(one.target_right if over or is_all else one.draft_right)
            for one, over in zip(outcomes, escalated, strict=True)
        ]
        self._steps = [float(len(over)) for over in escalated]
        self._all_steps = [float(len(one.steps)) for one in outcomes]
        self._tokens = [float(sum(step.num_tokens for step in over)) for over in escalated]
        self._all_tokens = [float(max(1, sum(step.num_tokens for step in one.steps))) for one in outcomes]

    def point(self, sample: Sequence[int]) -> Point:
        """The point on a sample of the problems."""
        steps, all_steps, tokens, all_tokens, right = (
            sum(values[index] for index in sample)
            for values in (self._steps, self._all_steps, self._tokens, self._all_tokens, self._right)
        )
        return self._point(steps / all_steps, tokens / all_tokens, right / len(sample))

    def resampled(self, resamples: Resamples) -> list[Point]:
        """The point in each resample."""
        columns = [
            _present(resamples.means(values))
            for values in (self._steps, self._all_steps, self._tokens, self._all_tokens, self._right)
        ]
        # A resample may hold only problems for which the draft wrote no step.
        return [self._point(a / b if b else 0.0, c / d, right) for a, b, c, d, right in zip(*columns, strict=True)]

    def _point(self, steps: float, tokens: float, accuracy: float) -> Point:
        return Point(threshold=self._threshold, steps=steps, tokens=tokens, accuracy=accuracy)


def _first(points: Sequence[Point], accuracy: float, margin: float) -> Point:
    """The first point that reaches an accuracy; the last one escalates all steps and has the target's."""
    floor = floor_of(accuracy, margin)
    return next((point for point in points if point.accuracy >= floor), points[-1])


def _accuracy(verdicts: Sequence[bool]) -> Estimate:
    interval: Interval = wilson(sum(verdicts), len(verdicts))
    return Estimate(value=sum(verdicts) / len(verdicts), interval=interval)


def _present(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]
