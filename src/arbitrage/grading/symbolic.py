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
    said, meant = read_both(answer, gold)
    if not all(isinstance(part, Formula) and parsed(part.text) is not None for part in formulas(meant)):
        return Verdict.UNGRADED
    return Verdict.CORRECT if said is not None and compare(said, meant, _same) else Verdict.WRONG


def _same(said: Formula, meant: Formula) -> bool:
    verdict = exactly_same(said, meant)
    if verdict is not None:
        return verdict
    whole = (_equation(said), _equation(meant))

    def equal_texts(left: str, right: str) -> bool:
        return _equal(left, right, has_imaginary=is_imaginary(*whole))

    if names.agree(said.name, meant.name):
        if equal_texts(said.text, meant.text):
            return True
        if said.is_percent != meant.is_percent and equal_texts(*map(_share, (said, meant))):
            return True
    if (said.product or meant.product) and equal_texts(said.product or said.text, meant.product or meant.text):
        return True
    if "=" in said.text + meant.text or (said.name and meant.name):
        return equal_texts(*whole)
    return False


def _share(formula: Formula) -> str:
    """The formula without its percent sign."""
    return rf"\frac{{{formula.text}}}{{100}}" if formula.is_percent else formula.text


def _equation(formula: Formula) -> str:
    """The equation, with the side that was read as a name."""
    return f"{formula.name}={formula.text}" if formula.name else formula.text


def _equal(said: str, meant: str, *, has_imaginary: bool) -> bool:
    left, right = parsed(said), parsed(meant)
    if left is None or right is None:
        return False
    if equal(left, right):
        return True
    has_i = has_imaginary and any(IMAGINARY in one.free_symbols for one in (left, right))
    return has_i and equal(with_imaginary(left), with_imaginary(right))
