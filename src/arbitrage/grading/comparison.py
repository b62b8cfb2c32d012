"""Whether an answer says the same as the gold answer; formulas are compared by a function of the caller's."""

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


def exactly_same(said: Formula, meant: Formula) -> bool | None:
    """Compare two formulas as exact numbers where both are, else as text; None if only algebra could tell."""
    if not _units_agree(said, meant):
        return False
    is_same_kind = said.is_percent == meant.is_percent and names.agree(said.name, meant.name)
    left, right = value(said.text), value(meant.text)
    if left is not None and right is not None:
        if not names.agree(said.name, meant.name):
            return False
        if said.is_percent == meant.is_percent:
            return left == right
        share, other = (left, right) if said.is_percent else (right, left)
        return other in (share, share / 100)
    if based := _BASE.fullmatch(meant.text):
        digits, base = based[1], based[2] or based[3]
        other_base = _BASE.fullmatch(said.text)
        if other_base:
            return (other_base[1], other_base[2] or other_base[3]) == (digits, base)
        return said.text == digits
    if is_same_kind and _key(said.text) == _key(meant.text):
        return True
    return None


def _units_agree(said: Formula, meant: Formula) -> bool:
    """Whether the units can be the same; a missing one can be any."""
    if said.is_percent != meant.is_percent and (said.unit or meant.unit):
        return False
    return said.unit is None or meant.unit is None or said.unit.agrees(meant.unit)


def _key(text: str) -> str:
    text = re.sub(r"([_^])\s?\{\s?(\w)\s?\}", r"\1\2", "".join(text.split()))
    return text.casefold() if re.fullmatch("[A-Za-z]|[A-Za-z]{3,}", text) else text


def compare(said: Answer, meant: Answer, same: Same) -> bool | None:
    """Whether an answer says the same as the gold answer.

    Args:
        said: The answer.
        meant: The gold answer.
        same: Compares two formulas.

    Returns:
        None if ``same`` could not tell.
    """
    if isinstance(meant, Choice) or isinstance(said, Choice):
        return _same_choice(said, meant, same)
    if isinstance(meant, Prose) or isinstance(said, Prose):
        return False
    if isinstance(meant, Words) or isinstance(said, Words):
        return "".join(said.text.casefold().split()) == "".join(meant.text.casefold().split())
    if isinstance(said, Formula) and isinstance(meant, Formula):
        return same(said, meant)
    if isinstance(said, Group) and isinstance(meant, Group):
        return names.agree(said.name, meant.name) and _same_group(said, meant, same)
    return _same_whole(said, meant, same)


def _same_choice(said: Answer, meant: Answer, same: Same) -> bool | None:
    if isinstance(said, Choice) and isinstance(meant, Choice):
        return said.letter == meant.letter
    choice, other = (said, meant) if isinstance(said, Choice) else (meant, said)
    assert isinstance(choice, Choice)
    if isinstance(other, Formula) and other.text.upper() == choice.letter:
        return True
    if choice.rest is None:
        return False
    return compare(choice.rest, other, same) if choice is said else compare(other, choice.rest, same)


def _same_group(said: Group, meant: Group, same: Same) -> bool | None:
    kinds = (said.kind, meant.kind)
    if set(kinds) <= {LIST, UNION} or kinds in (("()", LIST), ("[]", LIST)):
        return _in_any_order(said.items, meant.items, same)
    if set(kinds) == {"()", MATRIX}:
        left, right = _cells(said), _cells(meant)
        return bool(left and right) and _in_order(left, right, same)
    if UNION in kinds or MATRIX in kinds:
        return _in_order(said.items, meant.items, same) if kinds[0] == kinds[1] else _same_whole(said, meant, same)
    if kinds[0] == kinds[1] or kinds == (LIST, "()"):
        is_any_order = kinds[0] != "row" and _is_named(said) and _is_named(meant)
        return (_in_any_order if is_any_order else _in_order)(said.items, meant.items, same)
    return False


def _cells(group: Group) -> Sequence[Answer]:
    """The coordinates of a tuple, or of a matrix with one row or one column; none of another matrix."""
    if group.kind != MATRIX:
        return group.items
    rows = [row.items for row in group.items if isinstance(row, Group)]
    return [cell for row in rows for cell in row] if len(rows) == 1 or all(len(row) == 1 for row in rows) else []


def _is_named(group: Group) -> bool:
    """Whether all items have names, each another."""
    own = [item.name if isinstance(item, Formula | Group) else "" for item in group.items]
    return "" not in own and len(set(own)) == len(own) > 1


def _same_whole(said: Answer, meant: Answer, same: Same) -> bool | None:
    """Compare a set with another kind of answer, such as an inequality that only algebra solves."""
    assert isinstance(said, Formula | Group)
    assert isinstance(meant, Formula | Group)
    group, other = (said, meant) if isinstance(said, Group) else (meant, said)
    assert isinstance(group, Group)
    if isinstance(other, Formula) and is_plain(other):
        return False
    if group.kind in (UNION, MATRIX) or (group.kind != LIST and RELATION.search(other.text)):
        return same(Formula(said.text), Formula(meant.text))
    return False


def _in_order(said: Sequence[Answer], meant: Sequence[Answer], same: Same) -> bool | None:
    if len(said) != len(meant):
        return False
    verdicts = [compare(left, right, same) for left, right in zip(said, meant, strict=True)]
    return False if False in verdicts else None if None in verdicts else True


def _in_any_order(said: Sequence[Answer], meant: Sequence[Answer], same: Same) -> bool | None:
    """Pair the items off, none twice."""
    if len(said) != len(meant):
        return False
    if _is_named(Group(LIST, tuple(meant), "")) and not any(getattr(item, "name", "") for item in said):
        return _in_order(said, meant, same)  # Nothing but the order tells which value is meant for which name.
    left, is_open = list(said), False
    for wanted in meant:
        verdicts = []
        for index, item in enumerate(left):
            verdicts.append(compare(item, wanted, same))
            if verdicts[-1]:
                del left[index]
                break
        else:
            if None not in verdicts:
                return False
            is_open = True
    return None if is_open else True
