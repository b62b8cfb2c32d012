r"""Names on one side of an equation: ``x``, ``a_1``, ``f(x)``, ``y'``, ``\frac{dy}{dx}``, ``\angle ABC``, ``(x,y)``."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_LETTERS: Final = r"\\?[A-Za-z]+"
_SUBSCRIPT: Final = r"_\s?(?:\{[^{}]*\}|\w|\\[A-Za-z]+)"
_ACCENTED: Final = r"\\(?:dot|ddot|hat|bar|tilde|vec)\s?\{?\s?[A-Za-z]\s?\}?"
_VARIABLE: Final = rf"(?:{_ACCENTED}|{_LETTERS})(?:\s?{_SUBSCRIPT})?'*(?:\s?{_SUBSCRIPT})?"
_APPLIED: Final = rf"{_VARIABLE}(?:\^\s?\{{?-1\}}?)?(?:\s?\([^()=]*\))?"
_DERIVATIVE: Final = (
    rf"\\frac\s?\{{\s?(?:d|\\partial)\s?(?:\^\s?\{{?\d\}}?)?\s?(?:{_APPLIED})?\s?\}}"
    r"\s?\{\s?(?:d|\\partial)\s?\\?[A-Za-z]+\s?(?:\^\s?\{?\d\}?)?\s?\}"
    rf"(?:\s?(?:{_APPLIED}))?|d[A-Za-z]\s?/\s?d[A-Za-z]"
)
_NAME: Final = re.compile(
    rf"{_DERIVATIVE}|(?:m\s?)?\\angle[\sA-Za-z_{{}}\d]+|\(\s?[A-Za-z](?:\s?,\s?[A-Za-z])+\s?\)|\\text\s?\{{[^{{}}]*\}}|{_APPLIED}"
)
_PARTS: Final = re.compile(
    r"(?P<base>\\?[A-Za-z]+)(?P<first>'*)(?:_(?P<subscript>\w|\\[A-Za-z]+|\{[^{}]*\}))?(?P<second>'*)"
    r"(?P<inverse>\^-1)?(?:\((?P<arguments>.*)\))?"
)
_RATE: Final = re.compile(
    r"\\frac\{(?P<sign>d|\\partial)(?:\^\{?(?P<order>\d)\}?)?(?P<over>[^{}]*(?:\{[^{}]*\}[^{}]*)?)\}"
    r"\{(?:d|\\partial)(?P<by>\\?[A-Za-z]+)(?:\^\{?\d\}?)?\}(?P<behind>.*)"
)
_CONSTANTS: Final = ("\\pi", "\\infty", "\\cdot", "\\pm", "\\mp", "\\ldots", "\\dots", "\\cdots")
_FUNCTIONS: Final = re.compile(
    r"\\(?:frac|binom|sqrt|sin|cos|tan|cot|sec|csc|log|ln|exp|lim|sum|prod|int|max|min|gcd|lcm|arcsin|arccos|arctan)(?![a-z])"
)


@dataclass(frozen=True, slots=True)
class Name:
    """A name taken apart."""

    base: str
    subscript: str = ""
    order: int = 0
    """Of the derivative."""
    arguments: str = ""
    """Of a function, or the variable of the derivative."""
    is_word: bool = False
    """Whether it describes the value in words."""


def is_name(text: str) -> bool:
    r"""Whether a text can be the name of a value; ``\pi`` is a value itself."""
    return (
        bool(_NAME.fullmatch(text)) and text not in _CONSTANTS and not _FUNCTIONS.match(re.sub(_DERIVATIVE, "", text))
    )


def agree(answer: str, gold: str) -> bool:
    """Whether two names can stand for the same value.

    They do if one is missing, if one is a word, or if they are the same letter without another subscript, argument or
    order of derivative. ``y`` is also the value of any function.
    """
    if not answer or not gold or answer == gold:
        return True
    left, right = _parsed(answer), _parsed(gold)
    if left.is_word or right.is_word:
        return left.is_word != right.is_word or left.base == right.base
    if (
        left.order != right.order
        or _differ(left.subscript, right.subscript)
        or _differ(left.arguments, right.arguments)
    ):
        return False
    if left.base.casefold() == right.base.casefold():
        return True
    pairs = ((left, right), (right, left))
    return any(one.base == "y" and not (one.subscript or one.arguments) and other.arguments for one, other in pairs)


def _differ(left: str, right: str) -> bool:
    return bool(left and right and left != right)


@lru_cache(maxsize=4096)
def _parsed(name: str) -> Name:
    text = re.sub(r"\s|\\(?=\{)", "", name)
    if match := re.fullmatch(r"d([A-Za-z])/d([A-Za-z])", text):
        return Name(base=match[1], order=1, arguments=match[2])
    if match := re.fullmatch(r"\\(d?)dot\{?([A-Za-z])\}?", text):
        return Name(base=match[2], order=2 if match[1] else 1)
    if match := _RATE.fullmatch(text):
        inner = _parsed(match["over"] or match["behind"])
        by = match["by"] + ("∂" if match["sign"] != "d" else "")
        return Name(inner.base, inner.subscript, int(match["order"] or 1), inner.arguments or by)
    if text.startswith(("\\angle", "m\\angle")):
        points = re.findall(r"[A-Za-z](?:_\{?\w\}?)?", text.partition("\\angle")[2].replace("{", "").replace("}", ""))
        return Name(base="\\angle" + "".join(min(points, points[::-1])), is_word=True)
    match = _PARTS.fullmatch(text.replace("^{-1}", "^-1"))
    if text.startswith("\\text") or not match:
        return Name(base=re.sub(r"\\text|[{}]", "", text).casefold(), is_word=not text.startswith("("))
    subscript = (match["subscript"] or "").strip("{}")
    arguments = match["arguments"] or ""
    if re.fullmatch("[a-z]", subscript):  # A sequence is a function of its index.
        subscript, arguments = "", arguments or subscript
    base = match["base"] + (match["inverse"] or "")
    is_word = len(base) > 2 and not base.startswith("\\") and not match["inverse"]
    return Name(base, subscript, len(match["first"] + match["second"]), arguments, is_word)
