"""Drills for the tiny models: bare equations, wrong results, and facts to recall."""

import random

from arbitrage.tiny.families import FAMILIES, NAMES, OBJECTS, VERBS, Arithmetic, relation_words
from arbitrage.tiny.world import LEVELS
from arbitrage.tiny.world_problem import DELIMITER


def drill(rng: random.Random, num_equations: int) -> str:
    """Equations with the operands of problems, without words."""
    lines: list[str] = []
    while len(lines) < num_equations:
        problem = FAMILIES[rng.choice(list(FAMILIES))](rng, rng.choice(LEVELS))
        step = rng.choice(problem.operations)
        lines.append(f"{step.expression}={step.result}.")
    return DELIMITER.join(lines)


def mistake(rng: random.Random, result: int) -> int:
    """A wrong result like those of a weak model: one digit is replaced, or the result is slightly too large or small.

    The result can be right by chance, because a digit can be replaced by itself.
    """
    if rng.random() < 0.5:
        return max(0, result + rng.choice((-1, 1)) * rng.choice((1, 2, 3, 4, 10, 11, 20, 100)))
    digits = list(str(result))
    digits[rng.randrange(len(digits))] = str(rng.randrange(10))
    return int("".join(digits))


def recall_names(rng: random.Random, num_pairs: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """A recall task without arithmetic: which name follows a given name.

    Returns:
        Pairs of names, and the same pairs in another order.
    """
    pairs = list(zip(rng.sample(NAMES, num_pairs), rng.sample(NAMES, num_pairs), strict=True))
    return pairs, rng.sample(pairs, num_pairs)


def recall_facts(rng: random.Random, num_facts: int) -> tuple[list[str], list[tuple[str, str]]]:
    """A recall task with the facts of quantities problems: complete the fact about a given person.

    Half of the questions name the person of the comparison first, as in the verbose phrasing. The other half name only
    the person of the fact, as in the terse phrasing. A person can be in two facts, once in each role.

    Returns:
        The facts, and in another order pairs of (beginning of a step, its continuation from the fact).
    """
    maths, thing = Arithmetic(rng), rng.choice(OBJECTS)
    facts: list[str] = []
    questions: list[tuple[str, str]] = []
    people = [rng.sample(NAMES, num_facts) for _ in range(2)]
    for base, name, verb in zip(*people, rng.sample(VERBS, num_facts), strict=True):
        text, *_ = relation_words(maths, rng.randint(3, 400))
        is_given = base == name
        beginning = "" if is_given else f"Compared to {base} "
        relation = str(rng.randint(2, 99)) if is_given else text.removesuffix(" {}")
        facts.append(f"{beginning}{name} {verb} {relation} {thing}.")
        if is_given or rng.random() < 0.5:
            questions.append((name, f" {verb} {relation}"))
        else:
            questions.append((f"Compared to {base}", f" {name} {verb} {relation}"))
    return facts, rng.sample(questions, len(questions))
