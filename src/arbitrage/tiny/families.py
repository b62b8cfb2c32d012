"""Three families of problems that share one arithmetic.

Quantities that depend on one another (in shuffled order, with distractors), linear equations in one unknown, and rates
with percentages.
"""

import operator
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Final

from arbitrage.tiny.world_problem import Operation, Statement, WorldProblem

HARD_SHARE: Final = 0.05
"""The share of operations that are products of numbers with several digits; both models fail at these steps."""


class Arithmetic:
    """Draws operands; most results are below 200, and few have more than three digits."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def is_hard(self, value: int) -> bool:
        """Whether the next operation becomes a product that is too hard for both models."""
        return 12 <= value <= 999 and self.rng.random() < HARD_SHARE

    def addend(self) -> int:
        """A number to add."""
        return self.rng.randint(2, self._largest())

    def subtrahend(self, value: int) -> int:
        """A number to subtract from ``value``; the result is at least 1."""
        return self.rng.randint(1, min(value - 1, self._largest()))

    def _largest(self) -> int:
        return self.rng.choices((20, 99, 399), (0.4, 0.45, 0.15))[0]

    def factor(self, value: int) -> int:
        """A one-digit factor with a product of at most 199, or sometimes at most 999; 1 if there is none."""
        largest_product = self.rng.choices((199, 999), (0.7, 0.3))[0]
        largest = min(9, largest_product // value)
        return self.rng.randint(2, largest) if largest >= 2 else 1

    def divisor(self, value: int, choices: Sequence[int]) -> int:
        """One of ``choices`` that divides ``value`` without remainder; 1 if there is none."""
        divisors = [k for k in choices if value % k == 0 and value > k]
        return self.rng.choice(divisors) if divisors else 1

    def hard_factor(self) -> int:
        """A factor of two digits."""
        return self.rng.randint(12, 99)


# --- family 1: quantities that depend on one another -----------------------------------------------

NAMES: Final = tuple("Mia Leo Zoe Ben Ava Max Eva Sam Ivy Tom Amy Dan Kim Joe Lia Rob".split())  # noqa: SIM905
VERBS: Final = tuple("has owns holds stores takes brings earns gives".split())  # noqa: SIM905
OBJECTS: Final = tuple("stamps coins books shells cards pens beads keys".split())  # noqa: SIM905
_OPERATIONS: Final = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}
PARTS: Final = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth"}


def quantities(rng: random.Random, level: int) -> WorldProblem:
    """People who own things: each fact except the first depends on another person's number.

    "Compared to Leo Mia owns" has no comma, and each fact has its own verb. The number that a step needs therefore
    follows directly after a word that identifies it, which a small model learns many times faster (``dev/LOG.md``).
    """
    maths, thing, unrelated = Arithmetic(rng), *rng.sample(OBJECTS, 2)
    names = rng.sample(NAMES, level + 2)
    verbs = cycle(rng.sample(VERBS, len(VERBS)))
    value, verb = rng.randint(3, 60), next(verbs)
    facts = [f"{names[0]} {verb} {value} {thing}."]
    steps: list[Statement] = [Statement(terse=f"{names[0]} {verb} {value}.", verbose=facts[0])]
    for name, base, verb in zip(names[1 : level + 1], names, verbs, strict=False):
        text, left, op, right = relation_words(maths, value)
        value = _OPERATIONS[op](left, right)
        relation = text.removesuffix(" {}").removesuffix(" as many")
        facts.append(f"Compared to {base} {name} {verb} {text.format(thing)}.")
        equation = f"{left}{op}{right}={value}"
        steps.append(
            Operation(
                left=left,
                op=op,
                right=right,
                result=value,
                terse=f"{name} {verb} {relation}: {equation}.",
                verbose=f"{facts[-1].removesuffix('.')}, so {equation}.",
            )
        )
    if level > 1 and rng.random() < 0.4:
        facts.append(f"{names[-1]} {next(verbs)} {rng.randint(2, 99)} {unrelated}.")
    rng.shuffle(facts)
    question = " ".join([*facts, f"How many {thing} does {names[level]} have?"])
    return WorldProblem(question=question, family="quantities", level=level, steps=tuple(steps))


def relation_words(maths: Arithmetic, value: int) -> tuple[str, int, str, int]:
    """Draw how one quantity depends on the previous one: (words with a slot for the object, left, op, right)."""
    relation = maths.rng.choice(["more", "fewer", "times", "times", "part"])
    if maths.is_hard(value):
        k = maths.hard_factor()
        return f"{k} times as many {{}}", k, "*", value
    if relation == "times" and (k := maths.factor(value)) > 1:
        return f"{k} times as many {{}}", k, "*", value
    if relation == "part" and (k := maths.divisor(value, tuple(PARTS))) > 1:
        return f"{PARTS[k]} as many {{}}", value, "/", k
    if relation == "fewer" and value > 4:
        b = maths.subtrahend(value)
        return f"{b} fewer {{}}", value, "-", b
    b = maths.addend()
    return f"{b} more {{}}", value, "+", b


# --- family 2: linear equations in one unknown -----------------------------------------------------


def equations(rng: random.Random, level: int) -> WorldProblem:
    """Operations around an unknown; the solution undoes them from the outermost to the innermost."""
    maths = Arithmetic(rng)
    value, text = rng.randint(2, 40), "x"
    wrapped: list[Operation] = []
    is_product = rng.random() < 0.5
    for _ in range(level):
        inner, inner_value = text, value
        text, value, op, operand = _wrap(maths, text, value, is_product)
        undo, action = _UNDO[op]
        equation = f"{inner}={value}{undo}{operand}={inner_value}"
        wrapped.append(
            Operation(
                left=value,
                op=undo,
                right=operand,
                result=inner_value,
                terse=f"{equation}.",
                verbose=f"{action.format(operand)}, so {equation}.",
            )
        )
        is_product = op in "+-"
    opening = rng.choice(["Solve for x:", "Find x if", "What is x when"])
    question = f"{opening} {text}={value}{'?' if opening.startswith('What') else '.'}"
    return WorldProblem(question=question, family="equations", level=level, steps=tuple(reversed(wrapped)))


_UNDO: Final = {
    "+": ("-", "Subtract {} from both sides"),
    "-": ("+", "Add {} to both sides"),
    "*": ("/", "Divide both sides by {}"),
    "/": ("*", "Multiply both sides by {}"),
}


def _wrap(maths: Arithmetic, text: str, value: int, is_product: bool) -> tuple[str, int, str, int]:
    """Apply one operation to an expression; returns (new expression, its value, operation, operand)."""
    inner = text if text == "x" else f"({text})"
    if is_product:
        if maths.is_hard(value):
            k = maths.hard_factor()
            return f"{k}{inner}", value * k, "*", k
        if maths.rng.random() < 0.35 and (k := maths.divisor(value, range(2, 10))) > 1:
            return f"{inner}/{k}", value // k, "/", k
        if (k := maths.factor(value)) > 1:
            return f"{k}{inner}", value * k, "*", k
    if maths.rng.random() < 0.5 and value > 4:
        b = maths.subtrahend(value)
        return f"{text}-{b}", value - b, "-", b
    b = maths.addend()
    return f"{text}+{b}", value + b, "+", b


# --- family 3: rates and percentages ---------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The texts of one story; ``{v}`` is an amount, ``{r}`` a rate, ``{t}`` a time, ``{p}`` a percentage."""

    start: str
    gain: str
    loss: str
    grow: str
    shrink: str
    question: str
    distractor: str


SCENES: Final = (
    Scene(
        start="A tank holds {v} liters",
        gain="A pump adds {r} liters per minute for {t} minutes",
        loss="A drain takes {r} liters per minute for {t} minutes",
        grow="Rain adds {p}% to the water",
        shrink="Plants use {p}% of the water",
        question="How many liters are in the tank?",
        distractor="The tank is {v} years old",
    ),
    Scene(
        start="Nora owns {v} dollars",
        gain="Nora earns {r} dollars per hour for {t} hours",
        loss="Nora spends {r} dollars per day for {t} days",
        grow="Interest adds {p}% to the money",
        shrink="Nora gives away {p}% of the money",
        question="How many dollars does Nora own?",
        distractor="Nora is {v} years old",
    ),
    Scene(
        start="A shop stores {v} boxes",
        gain="A truck brings {r} boxes per day for {t} days",
        loss="Workers sell {r} boxes per hour for {t} hours",
        grow="A delivery adds {p}% to the boxes",
        shrink="Customers buy {p}% of the boxes",
        question="How many boxes does the shop store?",
        distractor="The shop has {v} windows",
    ),
)
PERCENTAGES: Final = (10, 20, 25, 30, 40, 50, 75)


def rates(rng: random.Random, level: int) -> WorldProblem:
    """An amount that events change at a rate or by a percentage, in order of time.

    Each event has two operations: the change, then the new amount. In a problem without a starting amount, the first
    event is a rate with one operation.
    """
    maths, scene = Arithmetic(rng), rng.choice(SCENES)
    facts: list[str] = []
    operations: list[Operation] = []
    if level % 2:
        value = _rate_event(maths, scene.gain, facts, operations)
    else:
        value = rng.randint(2, 40) * rng.choice((1, 5, 10))
        facts.append(scene.start.format(v=value))
    while len(operations) < level:
        value = _event(maths, scene, value, facts, operations)
    if level > 1 and rng.random() < 0.3:
        facts.insert(rng.randint(0, len(facts)), scene.distractor.format(v=rng.randint(2, 99)))
    question = " ".join([*(f"{fact}." for fact in facts), scene.question])
    return WorldProblem(question=question, family="rates", level=level, steps=tuple(operations))


def _rate_event(maths: Arithmetic, template: str, facts: list[str], operations: list[Operation], bound: int = 0) -> int:
    """Add an event at a rate; returns rate times duration, which is below ``bound`` unless ``bound`` is 0."""
    rng = maths.rng
    if not bound and rng.random() < HARD_SHARE:
        rate, duration = maths.hard_factor(), maths.hard_factor()
    else:
        duration = rng.randint(2, 9)
        rate = rng.choice((rng.randint(2, 30), 5 * rng.randint(1, 12)))
        rate = min(rate, (bound - 1) // duration) if bound else rate
    facts.append(template.format(r=rate, t=duration))
    equation = f"{rate}*{duration}={rate * duration}"
    operations.append(
        Operation(
            left=rate,
            op="*",
            right=duration,
            result=rate * duration,
            terse=f"Change: {equation}.",
            verbose=f"{facts[-1]}, so {equation}.",
        )
    )
    return rate * duration


def _event(maths: Arithmetic, scene: Scene, value: int, facts: list[str], operations: list[Operation]) -> int:
    """Add one event with two operations; returns the new amount."""
    rng = maths.rng
    percentages = [p for p in PERCENTAGES if value * p % 100 == 0 and value < 1000]
    is_loss = rng.random() < 0.5 and value > 20
    if percentages and rng.random() < 0.6:
        p = rng.choice(percentages)
        change = value * p // 100
        facts.append((scene.shrink if is_loss else scene.grow).format(p=p))
        equation = f"{value}*{p}%={change}"
        operations.append(
            Operation(
                left=value,
                op="%",
                right=p,
                result=change,
                terse=f"Change: {equation}.",
                verbose=f"{facts[-1]}, so {equation}.",
            )
        )
    else:
        change = _rate_event(maths, scene.loss if is_loss else scene.gain, facts, operations, value if is_loss else 0)
    op, new = ("-", value - change) if is_loss else ("+", value + change)
    equation = f"{value}{op}{change}={new}"
    operations.append(
        Operation(
            left=value,
            op=op,
            right=change,
            result=new,
            terse=f"Now: {equation}.",
            verbose=f"{'Take this from' if is_loss else 'Add this to'} {value}, so {equation}.",
        )
    )
    return new


FAMILIES: Final[dict[str, Callable[[random.Random, int], WorldProblem]]] = {
    "quantities": quantities,
    "equations": equations,
    "rates": rates,
}
