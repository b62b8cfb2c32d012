r"""Exact values of arithmetic: ``8.7 \cdot 10^{8}``, ``0.1+0.2``, ``\binom{6}{3}/2``, ``\sqrt{16}``.

Decimals are fractions here, never binary floating-point numbers.
"""

import math
import re
from fractions import Fraction
from functools import lru_cache
from typing import Final

from arbitrage.grading.latex import number

MAX_BITS: Final = 100_000
"""A value of more bits is left to algebra, in a process with a time limit."""
MAX_DEPTH: Final = 60
"""Of brackets in brackets."""

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:\\overline\s?\{\d+\}|[eE][-+]?\d{1,4}(?!\d))?)"
    r"|(?P<command>\\(?:frac|binom|sqrt|cdot|div|lfloor|rfloor|lceil|rceil)(?![A-Za-z]))"
    r"|(?P<sign>[-+*/^!(){}\[\]|]))"
)
_ATOMS: Final = ("(", "{", "[", "\\frac", "\\binom", "\\sqrt", "\\lfloor", "\\lceil")
_CLOSING: Final = {"(": ")", "[": "]", "{": "}", "|": "|", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}


class _NotRational(Exception):
    """The text is no arithmetic, its value is irrational or too large, or it can be read in two ways."""


@lru_cache(maxsize=8192)
def value(text: str) -> Fraction | None:
    """The exact value of a calculation with numbers.

    Args:
        text: A formula in canonical spelling.

    Returns:
        None if the text holds anything but numbers and arithmetic, or the value is irrational or longer than
        :data:`MAX_BITS`.
    """
    exact = number(text)
    if exact is not None or not re.search(r"\d", text):
        return exact
    try:
        reader = _Reader(_tokens(text))
        exact = reader.sum()
        return exact if reader.is_at_end else None
    except (_NotRational, ZeroDivisionError, ValueError):
        return None


def _tokens(text: str) -> list[str]:
    tokens, end = [], 0
    while end < len(text.rstrip()):
        token = _TOKEN.match(text, end)
        if not token:
            raise _NotRational
        tokens.append(token[0].strip())
        end = token.end()
    return tokens


class _Reader:
    """Reads a sum by recursive descent."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    @property
    def is_at_end(self) -> bool:
        return self._next == len(self._tokens)

    @property
    def _token(self) -> str:
        return "" if self.is_at_end else self._tokens[self._next]

    def _take(self, *tokens: str) -> str:
        """The next token, which must be one of these; any if none is given."""
        token = self._token
        if not token or (tokens and token not in tokens):
            raise _NotRational
        self._next += 1
        return token

    def sum(self) -> Fraction:
        total = self._product()
        while self._token in ("+", "-"):
            sign = self._take()
            total += self._product() if sign == "+" else -self._product()
        return total

    def _product(self) -> Fraction:
        product, is_divided = self._signed(), False
        while True:
            if self._token in ("*", "\\cdot"):
                self._take()
                factor = self._signed()
            elif self._token in ("/", "\\div"):
                self._take()
                factor, is_divided = 1 / self._signed(), True
            elif self._token in _ATOMS:
                if is_divided:  # "1/2(3)" is read in two ways.
                    raise _NotRational
                factor = self._power()
            else:
                return product
            product *= factor
            if _bits(product) > MAX_BITS:
                raise _NotRational

    def _signed(self) -> Fraction:
        if self._token in ("+", "-"):
            return self._signed() if self._take() == "+" else -self._signed()
        return self._power()

    def _power(self) -> Fraction:
        base = self._atom()
        while self._token == "!":
            self._take()
            base = _factorial(base)
        if self._token == "^":
            self._take()
            sign = -1 if self._token == "-" and self._take() else 1
            base = _power(base, sign * self._atom())
            if self._token in ("^", "!"):
                raise _NotRational
        return base

    def _atom(self) -> Fraction:
        token = self._take()
        if token in _CLOSING:
            return self._bracketed(token)
        if token == "\\frac":
            return self._argument() / self._argument()
        if token == "\\binom":
            over, under = self._argument(), self._argument()
            if over.denominator > 1 or under.denominator > 1 or not 0 <= under <= over <= 2000:
                raise _NotRational
            return Fraction(math.comb(int(over), int(under)))
        if token == "\\sqrt":
            degree = self._bracketed(self._take("[")) if self._token == "[" else Fraction(2)
            return _root(self._argument(), degree)
        exact = number(token)
        if exact is None:
            raise _NotRational
        if token.isdigit() and self._token == "\\frac":  # A mixed number.
            part = self._atom()
            if part < 0:
                raise _NotRational
            return exact + part
        return exact

    def _argument(self) -> Fraction:
        return self._bracketed(self._take("{"))

    def _bracketed(self, opening: str) -> Fraction:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _NotRational
        inside = self.sum()
        self._take(_CLOSING[opening])
        self._depth -= 1
        if opening == "|":
            return abs(inside)
        rounded = {"\\lfloor": math.floor, "\\lceil": math.ceil}.get(opening)
        return Fraction(rounded(inside)) if rounded else inside


def _bits(exact: Fraction) -> int:
    return max(exact.numerator.bit_length(), exact.denominator.bit_length())


def _factorial(exact: Fraction) -> Fraction:
    if exact.denominator > 1 or not 0 <= exact <= 5000:
        raise _NotRational
    return Fraction(math.factorial(int(exact)))


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator > 1:
        if base < 0:
            raise _NotRational
        base, exponent = _root(base, Fraction(exponent.denominator)), Fraction(exponent.numerator)
    if abs(exponent) * _bits(base) > MAX_BITS:
        raise _NotRational
    return Fraction(base**exponent)


def _root(exact: Fraction, degree: Fraction) -> Fraction:
    """The real root; only a rational one has a value here."""
    if degree.denominator > 1 or not 2 <= degree <= 64 or (exact < 0 and degree % 2 == 0):
        raise _NotRational
    sign = -1 if exact < 0 else 1
    return sign * Fraction(_whole_root(abs(exact.numerator), int(degree)), _whole_root(exact.denominator, int(degree)))


def _whole_root(square: int, degree: int) -> int:
    if degree == 2:
        root = math.isqrt(square)
    else:
        low, high = 0, 1 << (square.bit_length() // degree + 1)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if middle**degree < square else (low, middle)
        root = low
    if root**degree != square:
        raise _NotRational
    return root
