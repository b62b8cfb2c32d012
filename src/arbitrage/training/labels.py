"""What a router learns from a row: labels, balance, and a split that shares no problem."""

import bisect
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from arbitrage.core.errors import ConfigError, RowError
from arbitrage.scorers.format import Readout
from arbitrage.training.rows import Row

T = TypeVar("T")


class Labelling(Protocol):
    """From a mean advantage to what the head is trained on, and how its output is read when served."""

    @property
    def readout(self) -> Readout:
        """How a served head's output becomes one number in [0, 1]."""

    @property
    def num_labels(self) -> int:
        """Outputs of the head."""

    def label(self, advantage: float) -> float:
        """The training target: a class number, or for a regression the value itself."""


@dataclass(frozen=True, slots=True)
class Binary:
    """y = 1{advantage > margin}: the paper's label, there with margin 0."""

    margin: float = 0.0
    num_labels: int = 2
    readout: Readout = Readout.PROBABILITY

    def __post_init__(self) -> None:
        _check_margin(self.margin)

    def label(self, advantage: float) -> int:
        """1 where the target is better."""
        return int(advantage > self.margin)


@dataclass(frozen=True, slots=True)
class Classes:
    """Bins of equal width over [-1, 1], the middle edge moved to the margin.

    The score when served is the probability of the upper half.

    Raises:
        ConfigError: If the number of bins is odd or below 2.
    """

    num_labels: int
    margin: float = 0.0
    readout: Readout = Readout.UPPER_HALF

    def __post_init__(self) -> None:
        _check_margin(self.margin)
        if self.num_labels < 2 or self.num_labels % 2:
            raise ConfigError(f"the number of classes must be even and at least 2, got {self.num_labels}")

    @property
    def edges(self) -> list[float]:
        """The inner edges, ascending; a value on one belongs below it."""
        half = self.num_labels // 2
        below = [-1.0 + (1.0 + self.margin) * i / half for i in range(1, half)]
        above = [self.margin + (1.0 - self.margin) * i / half for i in range(1, half)]
        return [*below, self.margin, *above]

    def label(self, advantage: float) -> int:
        """The bin, from 0."""
        return bisect.bisect_left(self.edges, advantage)


@dataclass(frozen=True, slots=True)
class Ordinal:
    """Bins as in :class:`Classes`, learned as K - 1 questions "above edge k?" (Cheng et al. 2008, 0704.1028).

    The score when served is the answer at the middle edge.
    """

    num_bins: int
    margin: float = 0.0
    readout: Readout = Readout.ORDINAL

    @property
    def num_labels(self) -> int:
        """One output for each inner edge."""
        return self.num_bins - 1

    def __post_init__(self) -> None:
        Classes(self.num_bins, self.margin)

    def label(self, advantage: float) -> int:
        """The bin, from 0."""
        return Classes(self.num_bins, self.margin).label(advantage)


@dataclass(frozen=True, slots=True)
class Regression:
    """The advantage itself, by the squared error of sigmoid(output) from (advantage + 1) / 2.

    The score when served is that sigmoid: 0.5 is an advantage of nothing.
    """

    num_labels: int = 1
    readout: Readout = Readout.PROBABILITY

    def label(self, advantage: float) -> float:
        """In [0, 1]."""
        return (advantage + 1.0) / 2.0


LABELLINGS: Final[Mapping[str, str]] = {
    "binary": "two classes, y = 1{advantage > margin}",
    "classes-4": "four bins of the advantage",
    "classes-10": "ten bins",
    "ordinal-4": "four ordered bins",
    "ordinal-10": "ten ordered bins",
    "regression": "the advantage itself",
}


def labelling(name: str, margin: float = 0.0) -> Labelling:
    """A labelling by name.

    Raises:
        ConfigError: If there is none, or the margin is out of range.
    """
    kind, _, bins = name.partition("-")
    if name not in LABELLINGS:
        raise ConfigError(f"unknown labelling {name!r}", hint=f"choose from {', '.join(LABELLINGS)}")
    if kind == "binary":
        return Binary(margin)
    if kind == "regression":
        return Regression()
    return Classes(int(bins), margin) if kind == "classes" else Ordinal(int(bins), margin)


def _check_margin(margin: float) -> None:
    if not 0.0 <= margin < 1.0:
        raise ConfigError(f"margin must be in [0, 1), got {margin}")


def split_by_problem(rows: Iterable[Row], validation_share: float, *, seed: int) -> tuple[list[Row], list[Row]]:
    """Split rows so that no problem is on both sides.

    Returns:
        Rows for training and for validation.

    Raises:
        ConfigError: If the share is not in (0, 1).
        RowError: If there are too few problems for two sides.
    """
    if not 0.0 < validation_share < 1.0:
        raise ConfigError(f"validation share must be in (0, 1), got {validation_share}")
    rows = list(rows)
    problems = sorted({row.problem.id for row in rows})
    if len(problems) < 2:
        raise RowError(f"a split needs rows of at least 2 problems, got {len(problems)}", hint="collect more")
    count = min(max(1, round(len(problems) * validation_share)), len(problems) - 1)
    held_out = set(random.Random(seed).sample(problems, count))
    sides: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        sides[row.problem.id in held_out].append(row)
    return sides


def downsample(items: Sequence[T], classes: Sequence[int], *, seed: int) -> list[T]:
    """Drop members of the larger classes at random until all are equal (method).

    Args:
        items: What to choose from.
        classes: The class of each.
        seed: Chooses what to drop.

    Raises:
        RowError: If there is only one class.
    """
    smallest = min(check_classes(classes).values())
    rng, kept = random.Random(seed), set[int]()
    for wanted in sorted(set(classes)):
        kept.update(rng.sample([i for i, found in enumerate(classes) if found == wanted], smallest))
    return [item for i, item in enumerate(items) if i in kept]


def class_weights(classes: Sequence[int], num_classes: int) -> list[float]:
    """Weights of the loss by class under which all classes count the same; mean 1 over items, 0 for empty ones."""
    counts = check_classes(classes)
    return [len(classes) / (len(counts) * counts[c]) if counts[c] else 0.0 for c in range(num_classes)]


def check_classes(classes: Sequence[int]) -> Counter[int]:
    """Count the classes.

    Raises:
        RowError: If there is only one, or none.
    """
    counts = Counter(classes)
    if len(counts) < 2:
        raise RowError(
            f"a router needs rows of at least two classes, got {dict(counts)}",
            hint="collect more problems, or lower the margin",
        )
    return counts
