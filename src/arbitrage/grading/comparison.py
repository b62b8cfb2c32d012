"""Whether an answer equals the gold answer; the caller's function compares formulas."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from arbitrage.grading import names
from arbitrage.grading.arithmetic import value
from arbitrage.grading.relations import RELATION
from arbitrage.grading.types import LIST, MATRIX, UNION, Answer, Choice, Formula, Group, Prose, Words

Same = Callable[[Formula, Formula], bool | None]
"""Whether the formula of an answer equals one of the gold answer; None if that is unknown."""

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


def exactly_same(given: Formula, expected: Formula) -> bool | None:
    """Compare two formulas as exact numbers where both are, else as text; None if only algebra can decide."""
    if not _units_agree(given, expected):
        return False
    is_same_kind = given.is_percent == expected.is_percent and names.agree(given.name, expected.name)
    left, right = value(given.text), value(expected.text)
    if left is not None and right is not None:
        if not names.agree(given.name, expected.name):
            return False
        if given.is_percent == expected.is_percent:
            return left == right
        share, other = (left, right) if given.is_percent else (right, left)
        return other in (share, share / 100)
    if based := _BASE.fullmatch(expected.text):
        digits, base = based[1], based[2] or based[3]
        other_base = _BASE.fullmatch(given.text)
        if other_base:
            return (other_base[1], other_base[2] or other_base[3]) == (digits, base)
        return given.text == digits
    if is_same_kind and _key(given.text) == _key(expected.text):
        return True
    return None


def _units_agree(given: Formula, expected: Formula) -> bool:
    """Whether the units can be the same; a missing one can be any."""
    if given.is_percent != expected.is_percent and (given.unit or expected.unit):
        return False
    return given.unit is None or expected.unit is None or given.unit.agrees(expected.unit)


def _key(text: str) -> str:
    text = re.sub(r"([_^])\s?\{\s?(\w)\s?\}", r"\1\2", "".join(text.split()))
    return text.casefold() if re.fullmatch("[A-Za-z]|[A-Za-z]{3,}", text) else text


def compare(given: Answer, expected: Answer, same: Same) -> bool | None:
    """Whether an answer equals the gold answer.

    Args:
        given: The answer.
        expected: The gold answer.
        same: Compares two formulas.

    Returns:
        None if the result depends on formulas for which ``same`` returned None.
    """
    if isinstance(expected, Choice) or isinstance(given, Choice):
        return _same_choice(given, expected, same)
    if isinstance(expected, Prose) or isinstance(given, Prose):
        return False
    if isinstance(expected, Words) or isinstance(given, Words):
        return "".join(given.text.casefold().split()) == "".join(expected.text.casefold().split())
    if isinstance(given, Formula) and isinstance(expected, Formula):
        return same(given, expected)
    if isinstance(given, Group) and isinstance(expected, Group):
        return names.agree(given.name, expected.name) and _same_group(given, expected, same)
    return _same_whole(given, expected, same)


def _same_choice(given: Answer, expected: Answer, same: Same) -> bool | None:
    if isinstance(given, Choice) and isinstance(expected, Choice):
        return given.letter == expected.letter
    choice, other = (given, expected) if isinstance(given, Choice) else (expected, given)
    assert isinstance(choice, Choice)
    if isinstance(other, Formula) and other.text.upper() == choice.letter:
        return True
    if choice.rest is None:
        return False
    return compare(choice.rest, other, same) if choice is given else compare(other, choice.rest, same)


def _same_group(given: Group, expected: Group, same: Same) -> bool | None:
    brackets = (given.kind, expected.kind)
    if set(brackets) <= {LIST, UNION} or brackets in (("()", LIST), ("[]", LIST)):
        return _in_any_order(given.items, expected.items, same)
    if set(brackets) == {"()", MATRIX}:
        left, right = _cells(given), _cells(expected)
        return bool(left and right) and _in_order(left, right, same)
    if UNION in brackets or MATRIX in brackets:
        return (
            _in_order(given.items, expected.items, same)
            if brackets[0] == brackets[1]
            else _same_whole(given, expected, same)
        )
    if brackets[0] == brackets[1] or brackets == (LIST, "()"):
        is_any_order = brackets[0] != "row" and _is_named(given) and _is_named(expected)
        return (_in_any_order if is_any_order else _in_order)(given.items, expected.items, same)
    return False


def _cells(group: Group) -> Sequence[Answer]:
    """The coordinates of a tuple, or of a matrix with one row or one column; empty for another matrix."""
    if group.kind != MATRIX:
        return group.items
    rows = [row.items for row in group.items if isinstance(row, Group)]
    return [cell for row in rows for cell in row] if len(rows) == 1 or all(len(row) == 1 for row in rows) else []


def _is_named(group: Group) -> bool:
    """Whether there are several items, all named, each differently."""
    own = [item.name if isinstance(item, Formula | Group) else "" for item in group.items]
    return "" not in own and len(set(own)) == len(own) > 1


def _same_whole(given: Answer, expected: Answer, same: Same) -> bool | None:
    """Compare a set with another kind of answer, such as an inequality that only algebra solves."""
    assert isinstance(given, Formula | Group)
    assert isinstance(expected, Formula | Group)
    group, other = (given, expected) if isinstance(given, Group) else (expected, given)
    assert isinstance(group, Group)
    if isinstance(other, Formula) and is_plain(other):
        return False
    if group.kind in (UNION, MATRIX) or (group.kind != LIST and RELATION.search(other.text)):
        return same(Formula(given.text), Formula(expected.text))
    return False


def _in_order(given: Sequence[Answer], expected: Sequence[Answer], same: Same) -> bool | None:
    if len(given) != len(expected):
        return False
    verdicts = [compare(left, right, same) for left, right in zip(given, expected, strict=True)]
    return False if False in verdicts else None if None in verdicts else True


def _in_any_order(given: Sequence[Answer], expected: Sequence[Answer], same: Same) -> bool | None:
    """Pair equal items, each at most once."""
    if len(given) != len(expected):
        return False
    if _is_named(Group(LIST, tuple(expected), "")) and not any(getattr(candidate, "name", "") for candidate in given):
        return _in_order(given, expected, same)  # Only the order shows which value belongs to which name.
    left, is_open = list(given), False
    for item in expected:
        verdicts = []
        for index, candidate in enumerate(left):
            verdicts.append(compare(candidate, item, same))
            if verdicts[-1]:
                del left[index]
                break
        else:
            if None not in verdicts:
                return False
            is_open = True
    return None if is_open else True
