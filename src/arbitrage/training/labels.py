"""Training labels from advantages, balanced classes, and a split in which no problem is on both sides."""

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
    """Maps a mean advantage to a training label, and defines how a served head's output is read."""

    @property
    def readout(self) -> Readout:
        """The conversion of a served head's output to one number in [0, 1]."""

    @property
    def num_labels(self) -> int:
        """The number of outputs of the head."""

    def label(self, advantage: float) -> float:
        """The training label: a class number, or the value itself for a regression."""


@dataclass(frozen=True, slots=True)
class Binary:
    """y = 1{advantage > margin}; the paper's label has margin 0."""

    margin: float = 0.0
    num_labels: int = 2
    readout: Readout = Readout.PROBABILITY

    def __post_init__(self) -> None:
        _check_margin(self.margin)

    def label(self, advantage: float) -> int:
        """1 if the target's step is better, else 0."""
        return int(advantage > self.margin)


@dataclass(frozen=True, slots=True)
class Classes:
    """Bins of equal width over [-1, 1], with the middle edge moved to the margin.

    In serving, the score is the probability of the upper half.

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
        """The inner edges in ascending order; a value on an edge belongs to the bin below it."""
        half = self.num_labels // 2
        below = [-1.0 + (1.0 + self.margin) * i / half for i in range(1, half)]
        above = [self.margin + (1.0 - self.margin) * i / half for i in range(1, half)]
        return [*below, self.margin, *above]

    def label(self, advantage: float) -> int:
        """The number of the bin, from 0."""
        return bisect.bisect_left(self.edges, advantage)


@dataclass(frozen=True, slots=True)
class Ordinal:
    """Bins as in :class:`Classes`, learned as K - 1 questions "above edge k?" (Cheng et al. 2008, arXiv 0704.1028).

    In serving, the score is the output at the middle edge.
    """

    num_bins: int
    margin: float = 0.0
    readout: Readout = Readout.ORDINAL

    @property
    def num_labels(self) -> int:
        """The number of inner edges; each has one output."""
        return self.num_bins - 1

    def __post_init__(self) -> None:
        Classes(self.num_bins, self.margin)

    def label(self, advantage: float) -> int:
        """The number of the bin, from 0."""
        return Classes(self.num_bins, self.margin).label(advantage)


@dataclass(frozen=True, slots=True)
class Regression:
    """The advantage itself; the loss is the squared error between sigmoid(output) and (advantage + 1) / 2.

    In serving, the score is that sigmoid: 0.5 stands for an advantage of 0.
    """

    num_labels: int = 1
    readout: Readout = Readout.PROBABILITY

    def label(self, advantage: float) -> float:
        """The advantage, mapped from [-1, 1] to [0, 1]."""
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
    """Make a labelling by its name.

    Args:
        name: A key of :data:`LABELLINGS`.
        margin: An advantage up to this value counts as no gain.

    Raises:
        ConfigError: If the name is unknown, or the margin out of range.
    """
    family, _, bins = name.partition("-")
    if name not in LABELLINGS:
        raise ConfigError(f"unknown labelling {name!r}", hint=f"choose from {', '.join(LABELLINGS)}")
    if family == "binary":
        return Binary(margin)
    if family == "regression":
        return Regression()
    return Classes(int(bins), margin) if family == "classes" else Ordinal(int(bins), margin)


def _check_margin(margin: float) -> None:
    if not 0.0 <= margin < 1.0:
        raise ConfigError(f"margin must be in [0, 1), got {margin}")


def split_by_problem(rows: Iterable[Row], validation_share: float, *, seed: int) -> tuple[list[Row], list[Row]]:
    """Split rows so that no problem is on both sides.

    Args:
        rows: The rows to split.
        validation_share: The share of the problems for validation.
        seed: Chooses the problems for validation.

    Returns:
        Rows for training, and rows for validation.

    Raises:
        ConfigError: If the share is not in (0, 1).
        RowError: If there are fewer than two problems.
    """
    if not 0.0 < validation_share < 1.0:
        raise ConfigError(f"validation share must be in (0, 1), got {validation_share}")
    rows = list(rows)
    problems = sorted({row.problem.id for row in rows})
    if len(problems) < 2:
        raise RowError(f"a split needs rows of at least 2 problems, got {len(problems)}", hint="collect more problems")
    count = min(max(1, round(len(problems) * validation_share)), len(problems) - 1)
    held_out = set(random.Random(seed).sample(problems, count))
    sides: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        sides[row.problem.id in held_out].append(row)
    return sides


def downsample(items: Sequence[T], classes: Sequence[int], *, seed: int) -> list[T]:
    """Drop random members of the larger classes until all classes have the same size, as the paper does.

    Args:
        items: The items to choose from.
        classes: The class of each item.
        seed: Chooses the items to drop.

    Raises:
        RowError: If there are fewer than two classes.
    """
    smallest_size = min(check_classes(classes).values())
    rng, kept_indices = random.Random(seed), set[int]()
    for chosen_class in sorted(set(classes)):
        members = [i for i, its_class in enumerate(classes) if its_class == chosen_class]
        kept_indices.update(rng.sample(members, smallest_size))
    return [item for i, item in enumerate(items) if i in kept_indices]


def class_weights(classes: Sequence[int], num_classes: int) -> list[float]:
    """Loss weights by class that give each class the same total; their mean over items is 1.

    Args:
        classes: The class of each item.
        num_classes: The number of classes.

    Returns:
        One weight for each class; 0 for a class without items.

    Raises:
        RowError: If there are fewer than two classes.
    """
    counts = check_classes(classes)
    return [len(classes) / (len(counts) * counts[c]) if counts[c] else 0.0 for c in range(num_classes)]


def check_classes(classes: Sequence[int]) -> Counter[int]:
    """Count the members of each class.

    Raises:
        RowError: If there are fewer than two classes.
    """
    counts = Counter(classes)
    if len(counts) < 2:
        raise RowError(
            f"a router needs rows of at least two classes, got {dict(counts)}",
            hint="collect more problems, or lower the margin",
        )
    return counts
