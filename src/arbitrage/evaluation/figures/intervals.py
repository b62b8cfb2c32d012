"""Statistics of figures over problems: intervals, paired resamples, and a p-value."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

RESAMPLES: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    interval: Interval


def wilson(num_right: int, num: int) -> Interval:
    """Wilson's 95 % score interval of a proportion (Wilson 1927)."""
    z = 1.959964
    share, spread = num_right / num, z * z / num
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / num + spread / (4 * num))
    return Interval(low=max(0.0, centre - half), high=min(1.0, centre + half))


def percentiles(values: Sequence[float]) -> Interval:
    """The percentile bootstrap's interval, from a figure's values in resamples (Efron 1979)."""
    ordered, num = sorted(values), len(values)
    return Interval(low=ordered[int(0.025 * num)], high=ordered[min(num - 1, int(0.975 * num))])


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the values lie, interpolated linearly (Hyndman and Fan 1996, type 7)."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


class Resamples:
    """Samples of problems with replacement, the same for every figure, so that comparisons are paired."""

    def __init__(self, num: int, *, seed: int = 0, count: int = RESAMPLES) -> None:
        """Draw the samples.

        Args:
            num: Number of problems.
            seed: Seed of the draws.
            count: Number of samples.
        """
        rng, indices = random.Random(seed), list(range(num))
        self._samples = [rng.choices(indices, k=num) for _ in range(count)]

    def means(self, values: Sequence[float | None]) -> list[float | None]:
        """The mean of a figure in each sample, over the problems that have it; None if no problem of a sample has it.

        Args:
            values: The figure of each problem, None for a problem without it; shape [problems].

        Returns:
            Shape [samples].
        """
        numbers = [0.0 if value is None else float(value) for value in values]
        is_present = [value is not None for value in values]
        if all(is_present):
            return [sum(map(numbers.__getitem__, sample)) / len(sample) for sample in self._samples]
        counts = [sum(map(is_present.__getitem__, sample)) for sample in self._samples]
        sums = [sum(map(numbers.__getitem__, sample)) for sample in self._samples]
        return [total / count if count else None for total, count in zip(sums, counts, strict=True)]


def randomization_p(differences: Sequence[Fraction]) -> float:
    """Two-sided p-value of "both are equally accurate", from one difference per problem.

    Fisher's paired randomization test (1935), exact: under this hypothesis each difference could equally have the
    opposite sign. The p-value is the share of all choices of signs whose sum is at least as far from zero as the
    observed sum. With one attempt at each problem it is McNemar's exact test (1947).

    Args:
        differences: Share of attempts right under one method minus that under the other, for each problem.
    """
    scale = math.lcm(*(difference.denominator for difference in differences))
    sizes = [int(difference * scale) for difference in differences if difference]
    counts: dict[int, int] = {0: 1}  # Number of choices of signs, by the sum that they give.

    for size in sizes:
        extended: dict[int, int] = {}
        for total, count in counts.items():
            for signed in (total - size, total + size):
                extended[signed] = extended.get(signed, 0) + count
        counts = extended
    observed = abs(sum(sizes))
    num_extreme = sum(count for total, count in counts.items() if abs(total) >= observed)
    return num_extreme / (1 << len(sizes))
