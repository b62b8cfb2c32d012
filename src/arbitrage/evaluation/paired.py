"""The same problems under every policy: what paired comparisons are computed from."""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from statistics import fmean

from arbitrage.evaluation.intervals import RESAMPLES, Resamples, percentiles
from arbitrage.evaluation.run import Entry, Graded
from arbitrage.evaluation.solutions import Solution


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
        self._one_more = cache(lambda: Resamples(len(self.problems) + 1, seed=seed, count=resamples))

    def of(self, policy: str) -> list[Entry]:
        """The entries of a policy that have times."""
        return [entry for entry in self.entries if entry.policy == policy and self.seconds(entry) is not None]

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

    def lowest_gap(self, entry: Entry, reference: Entry) -> float:
        """What an entry's accuracy minus the reference's is at least, with 97.5 % confidence.

        A percentile bootstrap over the problems and one more, which is lost outright: resamples of problems without a
        loss know none, although the next one may well be lost. Where losses are rare and nothing is gained, that is
        close to Clopper and Pearson's exact bound (1934).
        """
        differences = [float(difference) for difference in self.differences(entry, reference)]
        means = self._one_more().means([*differences, -1.0])
        return percentiles([mean for mean in means if mean is not None]).low


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
