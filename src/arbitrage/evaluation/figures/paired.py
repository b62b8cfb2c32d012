"""Solutions lined up by problem: the base of all paired comparisons."""

import operator
import random
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from statistics import fmean
from typing import Final

from arbitrage.evaluation.figures.frontier import Point, pareto, seconds_at
from arbitrage.evaluation.figures.intervals import (
    RESAMPLES,
    Estimate,
    Resamples,
    percentiles,
    quantile,
    randomization_p,
)
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.solutions import Graded, Solution, by_problem

DRAWS: Final = 40_000
"""Draws for a bound, which give it to one part in a hundred."""


class Paired:
    """Accuracy and seconds of every entry: for each problem, on all problems, and in each resample.

    Figures of a problem are means over its attempts. Every comparison is computed once.
    """

    def __init__(self, solutions: Graded, *, seed: int = 0, resamples: int = RESAMPLES) -> None:
        """Line up solutions by problem.

        Only problems that every entry has solved and that could be graded take part: others cannot be paired.

        Args:
            solutions: By entry.
            seed: Seed of the resamples.
            resamples: Number of resamples.
        """
        attempts = {
            entry: by_problem(solution for solution in of_entry if solution.is_correct is not None)
            for entry, of_entry in solutions.items()
        }
        first = next(iter(attempts.values()), {})
        self.problems = [p for p in first if all(p in of_entry for of_entry in attempts.values())]
        """Ids, in order."""
        self.entries = list(attempts)
        self._right = {e: [_accuracy(of_entry[p]) for p in self.problems] for e, of_entry in attempts.items()}
        self._seconds = {e: [_seconds(of_entry[p]) for p in self.problems] for e, of_entry in attempts.items()}
        samples = Resamples(len(self.problems), seed=seed, count=resamples)
        self.accuracies = cache(lambda entry: samples.means([float(share) for share in self._right[entry]]))
        """Accuracy of an entry in each resample."""
        self.times = cache(lambda entry: samples.means(self._seconds[entry]))
        """Mean seconds of an entry in each resample; None if all its solutions failed."""
        self.gap = cache(self._gap)
        """Accuracy of an entry minus that of a reference, with its interval."""
        self.p_value = cache(lambda entry, reference: randomization_p(self.differences(entry, reference)))
        """Two-sided p-value of "entry and reference are equally accurate"."""
        self.lowest_gap = cache(self._lowest_gap)
        """Lower 97.5 % bound of an entry's accuracy minus that of a reference."""
        self.speedup = cache(self._speedup)
        """Mean seconds of a reference over mean seconds of an entry; None if one of them has no seconds."""
        self.frontier = cache(self._frontier)
        """Pareto frontier of a method's thresholds."""
        self.seconds_at = cache(self._seconds_at)
        """From a method, a reference and a margin: the seconds in each resample at which the method's frontier there
        reaches the reference's accuracy there minus the margin; None where it does not."""

    def of(self, method: Entry) -> list[Entry]:
        """The entries of a method, at any threshold, that have seconds."""
        return [entry for entry in self.entries if entry.group == method.group and self.seconds(entry) is not None]

    def accuracy(self, entry: Entry) -> float:
        """Share of problems right; for a problem with several attempts their mean."""
        return float(fmean(self._right[entry]))

    def seconds(self, entry: Entry) -> float | None:
        """Mean seconds of a problem, failed solutions left out; None if all failed."""
        return _mean_of_present(self._seconds[entry])

    def differences(self, entry: Entry, reference: Entry) -> list[Fraction]:
        """Share of attempts right minus the reference's, for each problem."""
        return [a - b for a, b in zip(self._right[entry], self._right[reference], strict=True)]

    def _gap(self, entry: Entry, reference: Entry) -> Estimate:
        pairs = zip(self.accuracies(entry), self.accuracies(reference), strict=True)
        return Estimate(
            value=self.accuracy(entry) - self.accuracy(reference),
            interval=percentiles([a - b for a, b in pairs if a is not None and b is not None]),
        )

    def _speedup(self, entry: Entry, reference: Entry) -> Estimate | None:
        own, other = self.seconds(entry), self.seconds(reference)
        if not own or not other:
            return None
        pairs = zip(self.times(reference), self.times(entry), strict=True)
        return Estimate(value=other / own, interval=percentiles([a / b for a, b in pairs if a and b]))

    def _lowest_gap(self, entry: Entry, reference: Entry) -> float:
        """Lower bound of an entry's accuracy minus the reference's, with 97.5 % confidence.

        Rubin's Bayesian bootstrap (1981) over the problems and one added problem that is lost. Without the added
        problem, a sample without losses would exclude losses altogether. For ``n`` problems with ``k`` losses and no
        gains the bound is the 97.5 % quantile of Beta(k + 1, n - k), the exact bound of Clopper and Pearson (1934).
        """
        counts = Counter([*self.differences(entry, reference), Fraction(-1)])
        values, rng = [float(value) for value in counts], random.Random(0)  # A verdict must not depend on a seed.
        gaps = []
        for _ in range(DRAWS):  # Equal differences are drawn together: a sum of weights is a gamma variate.
            weights = [rng.gammavariate(count, 1.0) for count in counts.values()]
            gaps.append(sum(map(operator.mul, weights, values)) / sum(weights))
        return quantile(gaps, 0.025)

    def _frontier(self, method: Entry) -> list[Point]:
        return pareto((self.seconds(entry) or 0.0, self.accuracy(entry)) for entry in self.of(method))

    def _seconds_at(self, method: Entry, reference: Entry, margin: float) -> list[float | None]:
        levels = [floor_of(accuracy, margin) for accuracy in self.accuracies(reference) if accuracy is not None]
        columns = [zip(self.times(entry), self.accuracies(entry), strict=True) for entry in self.of(method)]
        seconds: list[float | None] = []
        for level, *points in zip(levels, *columns, strict=True):
            seconds.append(seconds_at(pareto((s, a) for s, a in points if s is not None and a is not None), level))
        return seconds


def floor_of(accuracy: float, margin: float) -> float:
    """The accuracy to reach; a tolerance keeps rounding errors from excluding an equal one."""
    return accuracy - margin - 1e-9


def _accuracy(attempts: Sequence[Solution]) -> Fraction:
    return Fraction(sum(solution.is_correct is True for solution in attempts), len(attempts))


def _seconds(attempts: Sequence[Solution]) -> float | None:
    return _mean_of_present([None if solution.is_failed else solution.seconds for solution in attempts])


def _mean_of_present(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present else None
