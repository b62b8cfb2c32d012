r"""Inequalities in one variable, read as intervals: ``x \ge 2 \text{ and } x \le 3`` is ``[2,3]``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Final

from arbitrage.grading.arithmetic import value
from arbitrage.grading.brackets import cut, inside, split
from arbitrage.grading.types import LIST, UNION, Answer, Formula, Group, named
from arbitrage.grading.units import quantity

RELATION: Final = re.compile(r"[<>]|\\(?:le|ge|ne|in)(?![A-Za-z])")
_SIGNS: Final = ("=", "<", ">", "\\le", "\\ge", "\\ne")
_FLIPPED: Final = {"=": "=", "<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "\\ne": "\\ne"}
_VARIABLE: Final = re.compile(
    r"[A-DF-Za-df-z](?:_(?:\w|\{\w+\}))?|\\(?:alpha|beta|gamma|delta|theta|lambda|mu|phi|omega|rho|sigma|tau)"
)
_COMMANDS: Final = re.compile(r"^\\pm|\\(?:frac|sqrt|pi|infty|cdot|log|ln|sin|cos|tan|binom)(?![a-z])")
_REALS: Final = r"(-\infty,\infty)"
_INTEGERS: Final = re.compile(r"\\mathbb\s*\{?\s*Z\s*\}?")
_MAX_LISTED: Final = 1000
"""More integers are not listed one by one."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """An interval."""

    low: str
    high: str
    is_closed_low: bool = False
    is_closed_high: bool = False

    def answer(self) -> Answer:
        if self.low == self.high:
            return Formula(self.low)
        kind = ("[" if self.is_closed_low else "(") + ("]" if self.is_closed_high else ")")
        text = f"{kind[0]}{self.low},{self.high}{kind[1]}"
        return Group(kind, (Formula(self.low), Formula(self.high)), text)


@dataclass(frozen=True, slots=True)
class _Solved:
    """The values that conditions leave to a variable."""

    name: str
    pieces: tuple[_Piece, ...]

    def answer(self, name: str) -> Answer:
        items = tuple(piece.answer() for piece in self.pieces)
        if len(items) == 1:
            return named(items[0], name)
        if not items:
            return Group(LIST, (), r"\{\}")
        texts = [item.text if isinstance(item, Group) else rf"\{{{getattr(item, 'text', '')}\}}" for item in items]
        return Group(UNION, items, r"\cup ".join(texts), name)


def conditions(text: str) -> Answer | None:
    """Read inequalities in one variable, joined by and, or, or commas.

    Returns:
        An interval or a union of intervals that bears the variable's name; None if the text is anything else.
    """
    solved = _conditions(text)
    return solved.answer(solved.name) if solved else None


def set_builder(text: str) -> Answer | None:
    r"""Read a set by its condition: ``x \mid -2 \le x < 1``, the text between the braces.

    Returns:
        An interval, a union or a list of integers; a formula if the condition needs algebra; None if the text is
        anything else.
    """
    for separator in ("\\mid", ":", "|"):
        head, *rest = cut(text, (separator,))[0]
        if rest:
            break
    else:
        return None
    tail = separator.join(rest)
    variable, _, domain = (part.strip() for part in head.partition("\\in"))
    if not _VARIABLE.fullmatch(variable):
        return None
    solved = _conditions(tail)
    if solved is None or solved.name not in ("", variable):
        is_one = domain in ("", _REALS) and RELATION.search(tail) and len(split(tail, (",", ";", "\\AND", "\\OR"))) == 1
        return Formula(tail) if is_one else None
    if _INTEGERS.fullmatch(domain):
        return _integers(solved)
    if domain not in ("", _REALS):
        within = _member(f"{variable} \\in {domain}")
        solved = within and _both(solved, within)
    return solved.answer("") if solved else None


def real_without(text: str) -> Answer | None:
    r"""Read ``\mathbb{R} \setminus \{1, 2\}``, in canonical spelling; None if the text is anything else."""
    parts, _ = cut(text, ("\\setminus", "-"))
    if len(parts) != 2 or parts[0] != _REALS or not parts[1].startswith("\\{"):
        return None
    removed = split(inside(parts[1]) or "", (",", ";"))
    solved: _Solved | None = _Solved("", (_Piece("-\\infty", "\\infty"),))
    for point in removed:
        solved = solved and _both(solved, _Solved("", _around(point)))
    return solved.answer("") if solved else None


def _conditions(text: str) -> _Solved | None:
    alternatives = [part for part in cut(text, ("\\OR",))[0] if part]
    if len(alternatives) > 1:
        return _united([_conditions(part.strip(", ;")) for part in alternatives])
    parts, between = cut(text, ("\\AND", ",", ";"))
    solved = [_relation(part) for part in parts if part]
    first = solved[0] if solved else None
    if first is None or None in solved:
        return None
    met: _Solved | None = first
    for other in solved[1:]:
        met = met and other and _both(met, other)
    if met and not met.pieces and "\\AND" not in between:
        return _united(solved)  # "x < 2, x > 3" lists two ranges.
    return met


def _relation(text: str) -> _Solved | None:
    if "\\in" in text and (member := _member(text)):
        return member
    members, signs = cut(text, _SIGNS)
    if len(members) == 2:
        left, right = members
        if _VARIABLE.fullmatch(left) and _is_constant(right):
            return _Solved(left, _bounded(signs[0], right))
        if _VARIABLE.fullmatch(right) and _is_constant(left):
            return _Solved(right, _bounded(_FLIPPED[signs[0]], left))
    if len(members) == 3 and _VARIABLE.fullmatch(members[1]) and _is_constant(members[0]) and _is_constant(members[2]):
        if set(signs) <= {">", "\\ge"}:
            members, signs = members[::-1], [_FLIPPED[sign] for sign in signs[::-1]]
        if set(signs) <= {"<", "\\le"}:
            low, high = _amount(members[0]), _amount(members[2])
            return _Solved(members[1], (_Piece(low, high, signs[0] == "\\le", signs[1] == "\\le"),))
    return None


def _member(text: str) -> _Solved | None:
    name, _, body = (part.strip() for part in text.partition("\\in"))
    if not _VARIABLE.fullmatch(name):
        return None
    pieces = []
    for part in split(body, ("\\cup",)):
        ends = split(inside(part) or "", (",",))
        if part[:1] not in ("(", "[") or len(ends) != 2 or not all(map(_is_constant, ends)):
            return None
        pieces.append(_Piece(ends[0], ends[1], part[0] == "[", part[-1] == "]"))
    return _Solved(name, tuple(pieces))


def _is_constant(text: str) -> bool:
    return bool(text) and not re.search(r"[A-Za-df-z\\,;=<>]", _COMMANDS.sub("", _amount(text)))


def _amount(text: str) -> str:
    return quantity(text).amount


def _bounded(sign: str, bound: str) -> tuple[_Piece, ...]:
    bound = _amount(bound)
    if sign == "=":
        return (_Piece(bound, bound, True, True),)
    if sign == "\\ne" and bound.startswith("\\pm"):
        point = bound.removeprefix("\\pm").strip()
        return (_Piece("-\\infty", f"-{point}"), _Piece(f"-{point}", point), _Piece(point, "\\infty"))
    if sign == "\\ne":
        return _around(bound)
    if sign in ("<", "\\le"):
        return (_Piece("-\\infty", bound, False, sign == "\\le"),)
    return (_Piece(bound, "\\infty", sign == "\\ge"),)


def _around(point: str) -> tuple[_Piece, ...]:
    return (_Piece("-\\infty", point), _Piece(point, "\\infty"))


def _order(left: str, right: str) -> int | None:
    """The sign of the difference of two bounds; None if only algebra could tell."""
    if left == right:
        return 0
    if left == "-\\infty" or right == "\\infty":
        return -1
    if right == "-\\infty" or left == "\\infty":
        return 1
    first, second = value(left), value(right)
    return None if first is None or second is None else (first > second) - (first < second)


def _both(one: _Solved, other: _Solved) -> _Solved | None:
    """The values that both leave; None if they are about two variables, or only algebra could tell."""
    if one.name and other.name and one.name != other.name:
        return None
    pieces = []
    for left in one.pieces:
        for right in other.pieces:
            met = _met(left, right)
            if not met:
                return None
            size = _order(met.low, met.high)
            if size is None and len(one.pieces) == len(other.pieces) == 1:
                size = -1  # Bounds that only algebra can order: conditions that nothing meets are no answer.
            if size is None:
                return None
            if size < 0 or (size == 0 and met.is_closed_low and met.is_closed_high):
                pieces.append(met)
    return _Solved(one.name or other.name, tuple(pieces))


def _met(left: _Piece, right: _Piece) -> _Piece | None:
    """The intersection of two intervals, perhaps with its bounds in the wrong order; None if it is unknown."""
    low, high = _order(left.low, right.low), _order(left.high, right.high)
    if low is None or high is None:
        return None
    lower, upper = (left if low >= 0 else right), (left if high <= 0 else right)
    return _Piece(
        lower.low,
        upper.high,
        lower.is_closed_low if low else left.is_closed_low and right.is_closed_low,
        upper.is_closed_high if high else left.is_closed_high and right.is_closed_high,
    )


def _united(parts: Sequence[_Solved | None]) -> _Solved | None:
    solved = [part for part in parts if part]
    if len(solved) < len(parts) or len({part.name for part in solved}) > 1:
        return None
    return _Solved(solved[0].name, tuple(piece for part in solved for piece in part.pieces))


def _integers(solved: _Solved) -> Answer | None:
    listed: list[int] = []
    for piece in solved.pieces:
        low, high = value(piece.low), value(piece.high)
        if low is None or high is None or high - low > _MAX_LISTED:
            return None
        first = ceil(low) if piece.is_closed_low else floor(low) + 1
        last = floor(high) if piece.is_closed_high else ceil(high) - 1
        listed += range(first, last + 1)
    items = tuple(Formula(str(number)) for number in listed)
    return items[0] if len(items) == 1 else Group(LIST, items, rf"\{{{','.join(map(str, listed))}\}}")
