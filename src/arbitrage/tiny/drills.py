"""Drills for the tiny models: bare equations, wrong results, and facts to recall."""

import random

from arbitrage.tiny.families import FAMILIES, NAMES, OBJECTS, VERBS, Arithmetic, relation_words
from arbitrage.tiny.world import LEVELS
from arbitrage.tiny.world_problem import DELIMITER


def drill(rng: random.Random, num_equations: int) -> str:
    """Bare equations with the operands of real problems: arithmetic without words."""
    lines: list[str] = []
    while len(lines) < num_equations:
        problem = FAMILIES[rng.choice(list(FAMILIES))](rng, rng.choice(LEVELS))
        step = rng.choice(problem.operations)
        lines.append(f"{step.expression}={step.result}.")
    return DELIMITER.join(lines)


def mistake(rng: random.Random, result: int) -> int:
    """A result as a weak model writes it: another digit somewhere, or a little too much or too little.

    By chance it is right: a digit may be replaced by itself.
    """
    if rng.random() < 0.5:
        return max(0, result + rng.choice((-1, 1)) * rng.choice((1, 2, 3, 4, 10, 11, 20, 100)))
    digits = list(str(result))
    digits[rng.randrange(len(digits))] = str(rng.randrange(10))
    return int("".join(digits))


def recall_names(rng: random.Random, num_pairs: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pairs of names, and the same pairs in another order: finding who comes after whom, without arithmetic."""
    told = list(zip(rng.sample(NAMES, num_pairs), rng.sample(NAMES, num_pairs), strict=True))
    return told, rng.sample(told, num_pairs)


def recall_facts(rng: random.Random, num_facts: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Facts of quantities problems, and who is asked for in another order: finding what is said of whom.

    Half are asked as the verbose habit asks, by the person compared with, half as the terse one does, by the person
    herself: she may be named twice, once as either.

    Returns:
        The facts, and pairs of (how a step begins, how it goes on up to what had to be found).
    """
    maths, thing = Arithmetic(rng), rng.choice(OBJECTS)
    told: list[str] = []
    asked: list[tuple[str, str]] = []
    people = [rng.sample(NAMES, num_facts) for _ in range(2)]
    for base, name, verb in zip(*people, rng.sample(VERBS, num_facts), strict=True):
        text, *_ = relation_words(maths, rng.randint(3, 400))
        is_given = base == name
        beginning = "" if is_given else f"Compared to {base} "
        relation = str(rng.randint(2, 99)) if is_given else text.removesuffix(" {}")
        told.append(f"{beginning}{name} {verb} {relation} {thing}.")
        if is_given or rng.random() < 0.5:
            asked.append((name, f" {verb} {relation}"))
        else:
            asked.append((f"Compared to {base}", f" {name} {verb} {relation}"))
    return told, rng.sample(asked, len(asked))
