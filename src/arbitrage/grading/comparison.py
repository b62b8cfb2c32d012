"""Whether an answer equals the gold answer; the caller passes the function that compares formulas."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from arbitrage.grading import names
from arbitrage.grading.arithmetic import value
from arbitrage.grading.relations import RELATION
from arbitrage.grading.types import LIST, MATRIX, UNION, Answer, Choice, Formula, Group, Prose, Words

Same = Callable[[Formula, Formula], bool | None]
"""Whether the formula of an answer equals one of the gold answer; None if it cannot tell."""

_BASE: Final = re.compile(r"(\d+)_(?:\{(\d+)\}|(\d))")


def formulas(answer: Answer) -> Iterator[Formula | Prose]:
    """All formulas of an answer, and all parts that could not be read."""
    if isinstance(answer, Formula | Prose):
        yield answer
    elif isinstance(answer, Group):
        for item in answer.items:
            yield from formulas(item)


def is_plain(formula: Formula | Prose) -> bool:
    """Whether it can be read without algebra: arithmetic, a number in a base, or infinity."""
    if isinstance(formula, Prose):
        return False
    text = formula.text
    return value(text) is not None or bool(_BASE.fullmatch(text)) or text.lstrip("-") == "\\infty"


def exactly_same(answer: Formula, gold: Formula) -> bool | None:
    """Compare two formulas as exact numbers where both are, else as text; None if only algebra could tell."""
    if not _units_agree(answer, gold):
        return False
    is_same_kind = answer.is_percent == gold.is_percent and names.agree(answer.name, gold.name)
    left, right = value(answer.text), value(gold.text)
    if left is not None and right is not None:
        if not names.agree(answer.name, gold.name):
            return False
        if answer.is_percent == gold.is_percent:
            return left == right
        share, other = (left, right) if answer.is_percent else (right, left)
        return other in (share, share / 100)
    if based := _BASE.fullmatch(gold.text):
        digits, base = based[1], based[2] or based[3]
        other_base = _BASE.fullmatch(answer.text)
        if other_base:
            return (other_base[1], other_base[2] or other_base[3]) == (digits, base)
        return answer.text == digits
    if is_same_kind and _key(answer.text) == _key(gold.text):
        return True
    return None


def _units_agree(answer: Formula, gold: Formula) -> bool:
    """Whether the units can be the same; a missing one can be any."""
    if answer.is_percent != gold.is_percent and (answer.unit or gold.unit):
        return False
    return answer.unit is None or gold.unit is None or answer.unit.agrees(gold.unit)


def _key(text: str) -> str:
    text = re.sub(r"([_^])\s?\{\s?(\w)\s?\}", r"\1\2", "".join(text.split()))
    return text.casefold() if re.fullmatch("[A-Za-z]|[A-Za-z]{3,}", text) else text


def compare(answer: Answer, gold: Answer, same: Same) -> bool | None:
    """Whether an answer equals the gold answer.

    Args:
        answer: The answer.
        gold: The gold answer.
        same: Compares two formulas.

    Returns:
        None if ``same`` could not tell.
    """
    if isinstance(gold, Choice) or isinstance(answer, Choice):
        return _same_choice(answer, gold, same)
    if isinstance(gold, Prose) or isinstance(answer, Prose):
        return False
    if isinstance(gold, Words) or isinstance(answer, Words):
        return "".join(answer.text.casefold().split()) == "".join(gold.text.casefold().split())
    if isinstance(answer, Formula) and isinstance(gold, Formula):
        return same(answer, gold)
    if isinstance(answer, Group) and isinstance(gold, Group):
        return names.agree(answer.name, gold.name) and _same_group(answer, gold, same)
    return _same_whole(answer, gold, same)


def _same_choice(answer: Answer, gold: Answer, same: Same) -> bool | None:
    if isinstance(answer, Choice) and isinstance(gold, Choice):
        return answer.letter == gold.letter
    choice, other = (answer, gold) if isinstance(answer, Choice) else (gold, answer)
    assert isinstance(choice, Choice)
    if isinstance(other, Formula) and other.text.upper() == choice.letter:
        return True
    if choice.rest is None:
        return False
    return compare(choice.rest, other, same) if choice is answer else compare(other, choice.rest, same)


def _same_group(answer: Group, gold: Group, same: Same) -> bool | None:
    kinds = (answer.kind, gold.kind)
    if set(kinds) <= {LIST, UNION} or kinds in (("()", LIST), ("[]", LIST)):
        return _in_any_order(answer.items, gold.items, same)
    if set(kinds) == {"()", MATRIX}:
        left, right = _cells(answer), _cells(gold)
        return bool(left and right) and _in_order(left, right, same)
    if UNION in kinds or MATRIX in kinds:
        return _in_order(answer.items, gold.items, same) if kinds[0] == kinds[1] else _same_whole(answer, gold, same)
    if kinds[0] == kinds[1] or kinds == (LIST, "()"):
        is_any_order = kinds[0] != "row" and _have_names(answer.items) and _have_names(gold.items)
        return (_in_any_order if is_any_order else _in_order)(answer.items, gold.items, same)
    return False


def _cells(group: Group) -> Sequence[Answer]:
    """The coordinates of a tuple, or of a matrix with one row or one column; none of another matrix."""
    if group.kind != MATRIX:
        return group.items
    rows = [row.items for row in group.items if isinstance(row, Group)]
    return [cell for row in rows for cell in row] if len(rows) == 1 or all(len(row) == 1 for row in rows) else []


def _have_names(items: Sequence[Answer]) -> bool:
    """Whether all of several items have names, each another."""
    own = list(map(_name, items))
    return "" not in own and len(set(own)) == len(own) > 1


def _name(item: Answer) -> str:
    return item.name if isinstance(item, Formula | Group) else ""


def _same_whole(answer: Answer, gold: Answer, same: Same) -> bool | None:
    """Compare a set with another kind of answer, such as an inequality that only algebra solves."""
    assert isinstance(answer, Formula | Group)
    assert isinstance(gold, Formula | Group)
    group, other = (answer, gold) if isinstance(answer, Group) else (gold, answer)
    assert isinstance(group, Group)
    if isinstance(other, Formula) and is_plain(other):
        return False
    if group.kind in (UNION, MATRIX) or (group.kind != LIST and RELATION.search(other.text)):
        return same(Formula(answer.text), Formula(gold.text))
    return False


def _in_order(answer: Sequence[Answer], gold: Sequence[Answer], same: Same) -> bool | None:
    if len(answer) != len(gold):
        return False
    verdicts = [compare(left, right, same) for left, right in zip(answer, gold, strict=True)]
    return False if False in verdicts else None if None in verdicts else True


def _in_any_order(answer: Sequence[Answer], gold: Sequence[Answer], same: Same) -> bool | None:
    """Pair the items off, none twice."""
    if len(answer) != len(gold):
        return False
    if _have_names(gold) and not any(map(_name, answer)):
        return _in_order(answer, gold, same)  # Nothing but the order tells which value belongs to which name.
    left, is_open = list(answer), False
    for expected in gold:
        verdicts = []
        for index, item in enumerate(left):
            verdicts.append(compare(item, expected, same))
            if verdicts[-1]:
                del left[index]
                break
        else:
            if None not in verdicts:
                return False
            is_open = True
    return None if is_open else True
