"""Formulas as sympy objects, read by the LaTeX parser of math-verify; numbers stay exact."""

import re
from functools import lru_cache
from typing import Any, Final

from arbitrage.core.errors import MissingExtra
from arbitrage.grading.arithmetic import value
from arbitrage.grading.latex import number

try:
    import sympy
    from latex2sympy2_extended import NormalizationConfig, latex2sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig
except ImportError as error:
    raise MissingExtra("math") from error

_NORMALIZATION: Final = NormalizationConfig(
    # Units, boxes and names are gone already; the rest is repaired, not interpreted anew.
    basic_latex=True,
    units=False,
    malformed_operators=True,
    nits=True,
    boxed="none",
    equations=False,
)
_CONVERSION: Final = ConversionConfig(lowercase_symbols=False)
_DECIMAL: Final = re.compile(
    r"(?<![\w.])(?:\d+\.\d*|\.\d+|\d+(?=[eE][-+]?\d))(?:\\overline\s?\{\d+\}|[eE][-+]?\d{1,4}(?!\d))?"
)
_PRIMES: Final = re.compile(r"([A-Za-z])(?:_(\w|\{\w*\}))?('+)(?:_(\w|\{\w*\}))?")
_CIS: Final = re.compile(
    r"\\operatorname\{cis\}\s?(\([^()]*\)|\{[^{}]*\}|\\frac\{[^{}]*\}\{[^{}]*\}|[\d.]*\s?\\?[A-Za-z]+)"
)
_INDEX: Final = re.compile(
    r"_\s?(?:\{[^{}]*(?<![A-Za-z\\])i(?![A-Za-z])[^{}]*\}|i(?![A-Za-z]))|\([^()]*(?<![A-Za-z\\])i\)(?=\s?=)"
)
_INDICES: Final = frozenset("jkmn")
"""Letters for indices. Beside them, i is an index too, unless the formula is about complex numbers."""
_COMPLEX: Final = re.compile(r"\\pi|\\(?:sin|cos)(?![a-z])|(?<![A-Za-z\\])e\s?\^|\\sqrt\s?\{\s?-|cis")
IMAGINARY: Final = sympy.Symbol("i", real=True)
"""``i`` as the parser reads it."""


@lru_cache(maxsize=4096)
def parsed(text: str) -> Any:
    """The formula as a sympy object; None if it cannot be read.

    Numbers are exact: 0.3333 is not 1/3. ``i`` stays a symbol, see :func:`is_imaginary`.
    """
    if (exact := value(text)) is not None:
        return sympy.Rational(exact.numerator, exact.denominator)
    if re.search(r"\\[lcv]?dots|\.\.\.|\\(?:AND|OR)|\\text|\\(?:gcd|lcm)", text):
        return None  # The parser skips dots and words, and takes 1 for the greatest common divisor of letters.
    try:
        formula = latex2sympy(
            _spelled(text), is_real=True, normalization_config=_NORMALIZATION, conversion_config=_CONVERSION
        )
        return _kept(formula) if isinstance(formula, sympy.Basic | sympy.MatrixBase) else None
    except MemoryError:
        raise
    except Exception:  # The parser raises plain exceptions, and sympy exceptions of many classes.
        return None


def _spelled(text: str) -> str:
    """The text in a spelling that the parser reads as it is meant."""
    text = _DECIMAL.sub(_fraction, text)
    text = _PRIMES.sub(lambda m: rf"{m[1]}_{{{'p' * len(m[3])}{(m[2] or m[4] or '').strip('{}')}}}", text)
    text = re.sub(r"(?<![\\A-Za-z])I(?![A-Za-z])", r"\\iota ", text)  # The parser's imaginary unit.
    # The parser reads "2(3)" as a mixed number, 2 + 3.
    text = re.sub(r"(?<![\d_^.\\A-Za-z])(\d+)\s?(?=\()", r"\1\\cdot ", text)
    return _CIS.sub(lambda m: rf"e^{{i({m[1]})}}", text)


def _fraction(match: re.Match[str]) -> str:
    exact = number(match[0])
    return match[0] if exact is None else rf"(\frac{{{exact.numerator}}}{{{exact.denominator}}})"


def _kept(formula: Any) -> Any:
    """The formula with its derivatives of unknown functions as symbols: evaluated, they would all be 0."""
    if formula.has(sympy.Derivative):
        return formula.replace(
            lambda part: isinstance(part, sympy.Derivative) and not part.expr.has(part.variables[0]),
            lambda part: sympy.Symbol(f"d{part.expr}/d{part.variables[0]}", real=True),
        )
    return formula


def is_imaginary(*texts: str) -> bool:
    """Whether ``i`` is the imaginary unit in formulas that are compared, and no index or variable."""
    joined = " ".join(texts)
    if _INDEX.search(joined) or re.search(r"\\(?:sum|prod)", joined):
        return False
    letters = set(re.sub(r"\\[A-Za-z]+", "", joined))
    return not letters & _INDICES or bool(_COMPLEX.search(joined))


def with_imaginary(formula: Any) -> Any:
    """The formula with the imaginary unit for ``i``; a chain of relations stays, since it would lose its order."""
    return formula if isinstance(formula, sympy.And) else formula.xreplace({IMAGINARY: sympy.I})
