"""The kinds of answers."""

from dataclasses import dataclass, replace
from typing import Final

from arbitrage.grading.units import Unit

LIST: Final = "list"
UNION: Final = "union"
MATRIX: Final = "matrix"


@dataclass(frozen=True, slots=True)
class Formula:
    """Anything that stands for one value: a number, an expression, an equation."""

    text: str
    """Without name, unit and percent sign."""
    name: str = ""
    """The other side of the equation: ``x``, ``f(x)``."""
    is_percent: bool = False
    unit: Unit | None = None
    product: str = ""
    """The text with its unit, where the unit may also be a product of variables: ``5 m``."""


@dataclass(frozen=True, slots=True)
class Words:
    """An answer in words, in lower case."""

    text: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A letter of a multiple choice, perhaps with its value."""

    letter: str
    rest: "Answer | None" = None


@dataclass(frozen=True, slots=True)
class Group:
    """Several answers together."""

    kind: str
    """``list`` (also sets), ``union``, ``matrix``, ``row``, or a pair of brackets such as ``(]``."""
    items: "tuple[Answer, ...]"
    text: str
    """In set notation where it was read from inequalities."""
    name: str = ""
    """The variable of inequalities."""


@dataclass(frozen=True, slots=True)
class Prose:
    """Sentences, an empty text, or one that is too long: no program can tell whether another answer says the same."""

    text: str


Answer = Formula | Words | Choice | Group | Prose


def named(answer: Answer, name: str) -> Answer:
    """The answer with a name; kinds without names and named answers stay as they are."""
    return replace(answer, name=name) if isinstance(answer, Formula | Group) and not answer.name else answer
