"""Grading by algebra; nothing here ends by itself, so it runs in a worker."""

from arbitrage.grading import names
from arbitrage.grading.answers import read_both
from arbitrage.grading.comparison import compare, exactly_same, formulas
from arbitrage.grading.equality import equal
from arbitrage.grading.exact import Verdict
from arbitrage.grading.symbols import IMAGINARY, is_imaginary, parsed, with_imaginary
from arbitrage.grading.types import Formula


def judge(answer: str | None, gold: str) -> Verdict:
    """Grade one answer.

    Args:
        answer: The content of the box; None without a box.
        gold: The gold answer.
    """
    given, expected = read_both(answer, gold)
    if not all(isinstance(part, Formula) and parsed(part.text) is not None for part in formulas(expected)):
        return Verdict.UNGRADED
    return Verdict.CORRECT if given is not None and compare(given, expected, _same) else Verdict.WRONG


def _same(given: Formula, expected: Formula) -> bool:
    verdict = exactly_same(given, expected)
    if verdict is not None:
        return verdict
    equations = (_equation(given), _equation(expected))

    def equal_texts(left: str, right: str) -> bool:
        return _equal(left, right, has_imaginary=is_imaginary(*equations))

    if names.agree(given.name, expected.name):
        if equal_texts(given.text, expected.text):
            return True
        if given.is_percent != expected.is_percent and equal_texts(*map(_share, (given, expected))):
            return True
    if (given.product or expected.product) and equal_texts(
        given.product or given.text, expected.product or expected.text
    ):
        return True
    if "=" in given.text + expected.text or (given.name and expected.name):
        return equal_texts(*equations)
    return False


def _share(formula: Formula) -> str:
    """The formula without its percent sign."""
    return rf"\frac{{{formula.text}}}{{100}}" if formula.is_percent else formula.text


def _equation(formula: Formula) -> str:
    """The equation, with the side that was read as a name."""
    return f"{formula.name}={formula.text}" if formula.name else formula.text


def _equal(given: str, expected: str, *, has_imaginary: bool) -> bool:
    left, right = parsed(given), parsed(expected)
    if left is None or right is None:
        return False
    if equal(left, right):
        return True
    has_i = has_imaginary and any(IMAGINARY in one.free_symbols for one in (left, right))
    return has_i and equal(with_imaginary(left), with_imaginary(right))
