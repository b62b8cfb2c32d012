"""Whether two sympy objects are equal, exactly: numbers, expressions, equations, inequalities, sets and matrices."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import sympy
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

GUARD_DIGITS: Final = 40
"""Digits in which two irrational numbers must agree beyond those that their own digits call for."""
MAX_DIGITS: Final = 5000
"""Numbers that call for more digits are simplified instead."""

_ROWS: Final = ("37/29 53/31 71/41 97/59 113/61", "-29/13 61/47 -83/37 17/67 -19/23")
_POINTS: Final = tuple(tuple(map(sympy.Rational, row.split())) for row in _ROWS)
_UNFINISHED: Final = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit, sympy.Derivative)
_UPWARD: Final = {
    sympy.StrictLessThan: sympy.StrictGreaterThan,
    sympy.LessThan: sympy.GreaterThan,
}


def equal(left: Any, right: Any) -> bool:
    """Whether two objects are equal; False if sympy cannot tell."""
    try:
        left, right = _alike(*(_evaluated(_result(one)) for one in (left, right)))
        for kind, same in _KINDS:
            if isinstance(left, kind) or isinstance(right, kind):
                return same(left, right)
        return _equal_expressions(left, right)
    except MemoryError:
        raise  # The worker reports it as a comparison that takes too much.
    except Exception:  # Where sympy has no answer, it raises exceptions of many classes.
        return False


def _result(one: Any) -> Any:
    """The last value of a calculation such as ``2+3=5``; other equations stay."""
    members = _members(one)
    return members[-1] if members and not one.free_symbols else one


def _members(one: Any) -> list[Any]:
    """The sides of a chain of equations, in order; none of anything else."""
    links = _links(one)
    return [links[0].lhs, *(link.rhs for link in links)] if all(isinstance(link, sympy.Eq) for link in links) else []


def _links(one: Any) -> list[Any]:
    return list(getattr(one, "_unsorted_args", one.args)) if isinstance(one, sympy.And) else [one]


def _evaluated(one: Any) -> Any:
    if isinstance(one, sympy.And | Relational):
        return one
    one = one.doit()
    if isinstance(one, sympy.Basic) and one.has(AppliedUndef):  # An unknown function is as good as a variable.
        one = one.replace(lambda part: isinstance(part, AppliedUndef), lambda part: sympy.Symbol(str(part), real=True))
    return one


def _alike(left: Any, right: Any) -> tuple[Any, Any]:
    """Both with small letters, unless one of them tells a small letter from its capital."""
    names = [{symbol.name for symbol in one.free_symbols} for one in (left, right)]
    if names[0] == names[1] or any(len({name.casefold() for name in own}) < len(own) for own in names):
        return left, right
    return _small(left), _small(right)


def _small(one: Any) -> Any:
    return one.xreplace({symbol: sympy.Symbol(symbol.name.casefold(), real=True) for symbol in one.free_symbols})


def _equal_expressions(left: Any, right: Any) -> bool:
    if left == right:
        return True
    if not all(isinstance(one, sympy.Expr) and not _is_infinite(one) for one in (left, right)):
        return False
    is_finished = not left.has(*_UNFINISHED) and not right.has(*_UNFINISHED)
    if is_finished and not left.free_symbols and not right.free_symbols:
        return _equal_numbers(left, right)
    if is_finished and _differ_somewhere(left, right):
        return False
    return _vanishes(left - right)


def _is_infinite(one: Any) -> bool:
    return bool(one.has(sympy.oo, -sympy.oo, sympy.zoo, sympy.nan))


def _vanishes(difference: Any) -> bool:
    """Whether an expression is 0, by ever longer calculations."""
    return any(step(difference) == 0 for step in (sympy.expand, sympy.cancel, sympy.simplify))


def _differ_somewhere(left: Any, right: Any) -> bool:
    """Whether two expressions have different values at some point: that is proof, and much faster than algebra."""
    return any(_is_far(first, second) for first, second in _values(left, right))


def _values(left: Any, right: Any) -> list[tuple[Any, Any]]:
    """The values of two expressions at a few points."""
    symbols = sorted(left.free_symbols | right.free_symbols, key=lambda symbol: str(symbol.name))
    points = [{symbol: row[i % len(row)] + i // len(row) for i, symbol in enumerate(symbols)} for row in _POINTS]
    return [(left.evalf(20, subs=point), right.evalf(20, subs=point)) for point in points]


def _is_far(left: Any, right: Any) -> bool:
    """Whether two evaluated numbers differ by more than rounding; False for two that may be zero but for rounding."""
    if not (left.is_number and right.is_number) or _is_infinite(left) or _is_infinite(right):
        return False
    scale = max(_size(left), _size(right))
    return bool(scale > sympy.Float("1e-50") and _size(left - right) > scale * sympy.Float("1e-12"))


def _size(one: Any) -> Any:
    real, imaginary = one.as_real_imag()
    return sympy.Max(abs(real), abs(imaginary))


def _equal_numbers(left: Any, right: Any) -> bool:
    """Compare two numbers with as many digits as could tell them apart.

    Different numbers that are made of integers by arithmetic and roots cannot come closer to each other than their
    integers are long. No fixed tolerance is used: it would hide numbers that are smaller.
    """
    if left.is_Rational and right.is_Rational:
        return bool(left == right)
    if _is_far(left.evalf(20), right.evalf(20)):
        return False
    digits = GUARD_DIGITS + 2 * (_length(left) + _length(right))
    if digits > MAX_DIGITS:
        return _vanishes(left - right)
    first, second = left.evalf(digits), right.evalf(digits)
    if not (first.is_number and second.is_number):
        return _vanishes(left - right)
    rounding = sympy.Float(10, digits) ** (GUARD_DIGITS // 4 - digits)
    scale = max(_size(first), _size(second))
    if scale < rounding:  # Both are tiny, or zero but for rounding.
        return _vanishes(left - right)
    return bool(_size((first - second).evalf(digits)) <= scale * rounding)


def _length(number: Any) -> int:
    """How many digits a number's integers have, with those that powers and functions give them."""
    if number.is_Rational:
        return (int(number.p).bit_length() + int(number.q).bit_length()) // 3 + 1
    if number.is_Pow and number.exp.is_Rational:
        return int(_length(number.base) * max(1, abs(number.exp.p)) + number.exp.q)
    length = 1 + sum(map(_length, number.args))
    if number.is_Pow or number.is_Function:
        size = _size(number.evalf(3))
        length += int(abs(sympy.log(size, 10).evalf(5))) if size else 0
    return length


def _equal_relations(left: Any, right: Any) -> bool:
    if isinstance(left, sympy.Set) or isinstance(right, sympy.Set):
        return _equal_sets(*(one if isinstance(one, sympy.Set) else one.as_set() for one in (left, right)))
    first, second = _links(left), _links(right)
    if len(first) != len(second) or not all(isinstance(link, Relational) for link in first + second):
        return False
    if len(first) > 1 and _members(left) and _members(right):
        return _pair_off(_members(left), _members(right))
    if any(all(map(_is_multiple, first, order)) for order in (second, second[::-1])):
        return True
    is_equation = any(isinstance(link, sympy.Eq | sympy.Ne) for link in first + second)
    if is_equation or len(left.free_symbols) != 1 or left.free_symbols != right.free_symbols:
        return False
    return _equal_sets(left.as_set(), right.as_set())


def _is_multiple(left: Any, right: Any) -> bool:
    """Whether one relation is the other times a constant, which must be positive for inequalities.

    Solutions would not tell: all equations without any would be the same.
    """
    kinds = [_UPWARD.get(type(one), type(one)) for one in (left, right)]
    if kinds[0] != kinds[1]:
        return False
    first, second = (
        _evaluated(one.rhs - one.lhs if type(one) in _UPWARD else one.lhs - one.rhs) for one in (left, right)
    )
    if not first.free_symbols or not second.free_symbols:
        return False
    first, second = _alike(first, second)
    (left_value, right_value), (other_left, other_right) = _values(first, second)
    if _is_far(left_value * other_right, other_left * right_value):
        return False
    ratio = sympy.cancel(first / second)
    ratio = ratio if ratio.is_number else sympy.simplify(ratio)
    is_constant = ratio.is_number and ratio.is_finite and not ratio.is_zero
    return bool(is_constant and (kinds[0] in (sympy.Eq, sympy.Ne) or ratio.is_positive))


def _all_equal(left: Sequence[Any], right: Sequence[Any]) -> bool:
    return len(left) == len(right) and all(map(equal, left, right))


def _equal_sets(left: Any, right: Any) -> bool:
    if isinstance(left, sympy.Tuple) or isinstance(right, sympy.Tuple):
        return isinstance(left, sympy.Tuple) and isinstance(right, sympy.Tuple) and _all_equal(left, right)
    if not (isinstance(left, sympy.Set) and isinstance(right, sympy.Set)):
        return False
    if left == right:
        return True
    if isinstance(left, sympy.Interval) and isinstance(right, sympy.Interval):
        is_alike = (left.left_open, left.right_open) == (right.left_open, right.right_open)
        return bool(is_alike) and _all_equal((left.start, left.end), (right.start, right.end))
    are_lists = type(left) is type(right) and isinstance(left, sympy.FiniteSet | sympy.Union)
    if are_lists and _pair_off(left.args, right.args):
        return True
    return bool(left.symmetric_difference(right) == sympy.S.EmptySet)


def _pair_off(left: Sequence[Any], right: Sequence[Any]) -> bool:
    rest = list(right)
    for one in left:
        partner = next((index for index, other in enumerate(rest) if equal(one, other)), None)
        if partner is None:
            return False
        del rest[partner]
    return not rest


def _equal_matrices(left: Any, right: Any) -> bool:
    if not (isinstance(left, sympy.MatrixBase) and isinstance(right, sympy.MatrixBase)):
        return False
    return left.shape == right.shape and _all_equal(left.flat(), right.flat())


_KINDS: Final[tuple[tuple[Any, Callable[[Any, Any], bool]], ...]] = (
    ((sympy.And, Relational), _equal_relations),
    ((sympy.Set, sympy.Tuple), _equal_sets),
    ((sympy.MatrixBase, sympy.MatrixExpr), _equal_matrices),
)
