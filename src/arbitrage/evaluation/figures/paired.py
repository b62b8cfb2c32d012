"""The same problems under every policy: what paired comparisons are computed from."""

import operator
import random
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from statistics import fmean
from typing import Final

from arbitrage.evaluation.figures.intervals import RESAMPLES, Resamples, quantile
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.solutions import Graded, Solution

DRAWS: Final = 40_000
"""So many that a bound is known to one part in a hundred."""


class Paired:
    """For every entry, accuracy and seconds of each problem, means over its attempts, and of each resample."""

    def __init__(self, solutions: Graded, *, seed: int = 0, resamples: int = RESAMPLES) -> None:
        """Line up solutions by problem.

        Only problems that every entry has solved and that could be graded take part: others cannot be paired.

        Args:
            solutions: By entry.
            seed: Of the resamples.
            resamples: How many.
        """
        by_problem = {entry: _by_problem(found) for entry, found in solutions.items()}
        first = next(iter(by_problem.values()), {})
        self.problems = [problem for problem in first if all(problem in found for found in by_problem.values())]
        """Ids, in order."""
        self.entries = list(by_problem)
        self._right = {e: [_accuracy(found[p]) for p in self.problems] for e, found in by_problem.items()}
        self._seconds = {e: [_seconds(found[p]) for p in self.problems] for e, found in by_problem.items()}
        samples = Resamples(len(self.problems), seed=seed, count=resamples)
        self.accuracies = cache(lambda entry: samples.means([float(share) for share in self._right[entry]]))
        """Accuracy of an entry in each resample."""
        self.times = cache(lambda entry: samples.means(self._seconds[entry]))
        """Mean seconds of an entry in each resample; None where all its solutions failed."""
        self.lowest_gap = cache(self._lowest_gap)
        """Of an entry and a reference: what the gap between their accuracies is at least."""

    def of(self, group: Entry) -> list[Entry]:
        """The entries of a method, at whatever threshold, that have times."""
        return [entry for entry in self.entries if entry.group == group and self.seconds(entry) is not None]

    def accuracy(self, entry: Entry) -> float:
        """Share of problems right; of a problem's attempts the mean."""
        return float(fmean(self._right[entry]))

    def seconds(self, entry: Entry) -> float | None:
        """Mean seconds of a problem, failures left out; None if there is nothing else."""
        known = [seconds for seconds in self._seconds[entry] if seconds is not None]
        return fmean(known) if known else None

    def differences(self, entry: Entry, reference: Entry) -> list[Fraction]:
        """Share of attempts right minus the reference's, for each problem."""
        return [a - b for a, b in zip(self._right[entry], self._right[reference], strict=True)]

    def _lowest_gap(self, entry: Entry, reference: Entry) -> float:
        """What an entry's accuracy minus the reference's is at least, with 97.5 % confidence.

        Rubin's Bayesian bootstrap (1981) over the problems and one more, which is lost outright: problems without a
        loss say nothing of losses, although the next one may well be lost. Of ``n`` problems with ``k`` losses and no
        gain it is the 97.5 % quantile of Beta(k + 1, n - k), Clopper and Pearson's exact bound (1934).
        """
        counts = Counter([*self.differences(entry, reference), Fraction(-1)])
        values, rng = [float(value) for value in counts], random.Random(0)  # A verdict must not hang on a run's seed.
        gaps = []
        for _ in range(DRAWS):  # Equal differences are drawn together: a sum of weights is a gamma variate.
            weights = [rng.gammavariate(count, 1.0) for count in counts.values()]
            gaps.append(sum(map(operator.mul, weights, values)) / sum(weights))
        return quantile(gaps, 0.025)


def _by_problem(solutions: Sequence[Solution]) -> dict[str, list[Solution]]:
    found: dict[str, list[Solution]] = {}
    for solution in solutions:
        if solution.is_correct is not None:
            found.setdefault(solution.problem, []).append(solution)
    return found


def _accuracy(solutions: Sequence[Solution]) -> Fraction:
    return Fraction(sum(solution.is_correct is True for solution in solutions), len(solutions))


def _seconds(solutions: Sequence[Solution]) -> float | None:
    known = [solution.seconds for solution in solutions if not solution.is_failed]
    return fmean(known) if known else None
