"""What chance does to a figure: intervals, paired resamples, and a p-value."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

RESAMPLES: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


def wilson(num_right: int, num: int, z: float = 1.959964) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927)."""
    share, spread = num_right / num, z * z / num
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / num + spread / (4 * num))
    return Interval(low=max(0.0, centre - half), high=min(1.0, centre + half))


def bootstrap(
    statistic: Callable[[Sequence[int]], float], num: int, *, rng: random.Random, resamples: int = RESAMPLES
) -> Interval:
    """Percentile bootstrap over problems; paired, since ``statistic`` sees the same indices for all policies.

    Args:
        statistic: From a sample of problem indices to a figure.
        num: Number of problems.
        rng: Source of chance.
        resamples: How many samples to draw.
    """
    return percentiles([statistic(rng.choices(range(num), k=num)) for _ in range(resamples)])


def percentiles(values: Sequence[float]) -> Interval:
    """The interval that leaves out 2.5 % of resampled figures on each side (Efron 1979)."""
    ordered, num = sorted(values), len(values)
    return Interval(low=ordered[int(0.025 * num)], high=ordered[min(num - 1, int(0.975 * num))])


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the values lie, interpolated linearly (Hyndman and Fan 1996, type 7)."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


class Resamples:
    """Samples of problems with replacement, the same ones for every figure: what is compared stays paired."""

    def __init__(self, num: int, *, seed: int = 0, count: int = RESAMPLES) -> None:
        """Draw the samples.

        Args:
            num: Number of problems.
            seed: Of the draw.
            count: How many samples.
        """
        rng, everyone = random.Random(seed), list(range(num))
        self._samples = [rng.choices(everyone, k=num) for _ in range(count)]

    def means(self, values: Sequence[float | None]) -> list[float | None]:
        """The mean of a figure in each sample; a problem without the figure is left out, None if all are.

        Args:
            values: One a problem.
        """
        plain = [0.0 if value is None else float(value) for value in values]
        known = [value is not None for value in values]
        if all(known):
            return [sum(map(plain.__getitem__, sample)) / len(sample) for sample in self._samples]
        counts = [sum(map(known.__getitem__, sample)) for sample in self._samples]
        sums = [sum(map(plain.__getitem__, sample)) for sample in self._samples]
        return [total / count if count else None for total, count in zip(sums, counts, strict=True)]


def randomization_p(differences: Sequence[Fraction]) -> float:
    """Two-sided p-value of "neither is better", from one difference a problem.

    Fisher's paired randomization test (1935), exact: if neither is better, each difference could as well have the
    other sign, and the p-value is the share of all choices of signs whose sum is as far from zero as the one that was
    seen. With one attempt a problem it is McNemar's exact test (1947).

    Args:
        differences: Share of attempts right under one policy minus that under the other.
    """
    scale = math.lcm(*(difference.denominator for difference in differences))
    sizes = [int(difference * scale) for difference in differences if difference]
    counts: dict[int, int] = {0: 1}
    for size in sizes:
        grown: dict[int, int] = {}
        for total, count in counts.items():
            for signed in (total - size, total + size):
                grown[signed] = grown.get(signed, 0) + count
        counts = grown
    seen = abs(sum(sizes))
    extreme, total_count = sum(count for total, count in counts.items() if abs(total) >= seen), 1 << len(sizes)
    return extreme / total_count
