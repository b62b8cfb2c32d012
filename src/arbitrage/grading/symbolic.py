"""Formulas compared by algebra, with math-verify; nothing here ends by itself, so it runs in a worker."""

import re
from functools import lru_cache
from typing import Any, Final

from arbitrage.core.errors import MissingExtra
from arbitrage.grading.answers import Formula, compare, exactly_same, formulas, read_both
from arbitrage.grading.exact import Verdict
from arbitrage.grading.latex import number

try:
    import sympy
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify
except ImportError as error:
    raise MissingExtra("math") from error

_EXTRACTION: Final = LatexExtractionConfig(
    boxed_match_priority=-1,
    # Units, boxes and names are gone already; what is left is repaired, not reinterpreted.
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    ),
)


def judge(answer: str | None, gold: str) -> Verdict:
    """Grade one answer.

    Args:
        answer: What the box held; None without one.
        gold: The gold answer.
    """
    said, meant = read_both(answer, gold)
    if not all(isinstance(part, Formula) and _parsed(part.text) for part in formulas(meant)):
        return Verdict.UNGRADED
    return Verdict.CORRECT if said is not None and compare(said, meant, _same) else Verdict.WRONG


def _same(said: Formula, meant: Formula) -> bool:
    verdict = exactly_same(said, meant)
    if verdict is not None:
        return verdict
    left, right = said.text, meant.text
    if _equal(left, right):
        return True
    if said.is_percent:
        return _equal(rf"\frac{{{left}}}{{100}}", right)
    if meant.is_percent:
        return _equal(left, rf"\frac{{{right}}}{{100}}")
    if "=" in left + right or (said.name != meant.name and said.name and meant.name):
        return _equal(_whole(said), _whole(meant))
    return False


def _whole(formula: Formula) -> str:
    """The equation, where its left side was taken for a name."""
    return f"{formula.name}={formula.text}" if formula.name else formula.text


def _equal(said: str, meant: str) -> bool:
    left, right = _parsed(said), _parsed(meant)
    if not left or not right:
        return False
    value, gold = _result(left[0]), _result(right[0])
    if isinstance(value, sympy.Eq) or isinstance(gold, sympy.Eq):
        return isinstance(value, sympy.Eq) and isinstance(gold, sympy.Eq) and _is_multiple(value, gold)
    return not _differ(value, gold) and bool(verify(gold, value, timeout_seconds=None, allow_set_relation_comp=True))


def _result(value: Any) -> Any:
    """What a calculation comes to: of ``2+3=5``, the 5; other equations stay."""
    return value.rhs if isinstance(value, sympy.Eq) and not value.lhs.free_symbols else value


def _is_multiple(said: Any, meant: Any) -> bool:
    """Whether one equation is the other times a constant; by their solutions, all that have none would be the same."""
    try:
        ratio = sympy.simplify((said.lhs - said.rhs) / (meant.lhs - meant.rhs))
        return bool(ratio.is_number and ratio.is_finite and not ratio.is_zero)
    except (AttributeError, TypeError, ValueError, NotImplementedError):
        return False


def _differ(said: Any, meant: Any) -> bool:
    """Whether two constants are so far apart that no algebra is needed: simplifying 10**6 - log(2) takes minutes."""
    if not all(isinstance(value, sympy.Expr) and value.is_number for value in (said, meant)):
        return False
    try:
        left, right = (complex(value.evalf(20)) for value in (said, meant))
    except (TypeError, ValueError, OverflowError):  # No number after all, or none that fits.
        return False
    return abs(left - right) > 1e-9 * max(abs(left), abs(right))


@lru_cache(maxsize=4096)
def _parsed(text: str) -> list[Any]:
    """The formula as sympy objects; none if it cannot be read.

    Numbers are exact: 0.3333 is no third.
    """
    if (value := number(text)) is not None:
        return [sympy.Rational(value.numerator, value.denominator)]
    text = re.sub(r"(?<=\d)i(?![A-Za-z])", " i", text)  # The imaginary unit is recognised by itself only.
    found: list[Any] = parse(
        f"${text}$",
        extraction_config=[_EXTRACTION],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )
    return found
