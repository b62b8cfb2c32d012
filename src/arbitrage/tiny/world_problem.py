"""A problem of the tiny world: a question with every true step of its solution, in two phrasings.

A problem holds every true step of its solution in every phrasing, so checking a step is a set membership: exact, and
without a parser.

Each step has two phrasings. The draft was trained on mostly *terse* steps, the target on mostly *verbose* steps; see
:class:`Habit`.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

DELIMITER: Final = "\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One true step in two phrasings, each without its delimiter."""

    terse: str
    verbose: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Statement):
    """A step that computes ``left op right = result``."""

    left: int
    op: str
    right: int
    result: int

    @property
    def expression(self) -> str:
        """The left-hand side as the models write it: ``3*14``, or ``120*25%`` for a percentage."""
        return f"{self.left}*{self.right}%" if self.op == "%" else f"{self.left}{self.op}{self.right}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldProblem:
    """A question with the steps of its solution, in order; ``level`` is the number of operations among them."""

    question: str
    family: str
    level: int
    steps: tuple[Statement, ...]
    id: str = ""
    truths: frozenset[str] = field(init=False, repr=False, compare=False)
    """The texts of all true steps, without delimiters."""

    def __post_init__(self) -> None:
        texts = {text for step in self.steps for text in (step.terse, step.verbose)}
        object.__setattr__(self, "truths", frozenset({*texts, self.closing}))

    @property
    def operations(self) -> list[Operation]:
        """The steps that compute a result."""
        return [step for step in self.steps if isinstance(step, Operation)]

    @property
    def answer(self) -> str:
        """The gold answer, an integer in decimal digits."""
        return str(self.operations[-1].result)

    @property
    def closing(self) -> str:
        """The last step of every solution."""
        return rf"The answer is \boxed{{{self.answer}}}."

    def is_correct(self, step: str, previous: Iterable[str] = ()) -> bool:
        """Check one step: it must be true in this problem, and it must not repeat a previous step.

        Args:
            step: The step's text, with or without its delimiter.
            previous: The texts of the steps before it.
        """
        text = step.strip()
        return text in self.truths and all(text != earlier.strip() for earlier in previous)

    def solution(self, habit: "Habit", rng: random.Random) -> str:
        """Write the whole solution in one habit; the phrasing of each step is drawn at random."""
        texts = [step.terse if rng.random() < habit.terse_share else step.verbose for step in self.steps]
        return DELIMITER.join([*texts, self.closing])


@dataclass(frozen=True, slots=True)
class Habit:
    """The mixture of phrasings in a model's training text."""

    terse_share: float
    """The share of terse steps."""


DRAFT_HABIT: Final = Habit(0.85)
TARGET_HABIT: Final = Habit(0.15)
