"""LaTeX brought to one spelling: what differs afterwards differs in meaning, or needs algebra to tell."""

import re
from fractions import Fraction
from typing import Final

_ONE: Final = r"\{[^{}]*\}|[0-9A-Za-z]|\\[A-Za-z]+"
"""What a command takes as one argument: a group, a character or a command."""
_UNICODE: Final = {
    "−": "-",
    "–": "-",
    "×": r"\cdot ",
    "·": r"\cdot ",
    "π": r"\pi ",
    "∞": r"\infty ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "∪": r"\cup ",
    "±": r"\pm ",
    "∅": r"\emptyset ",
    "°": "",
    "€": "",
    "£": "",
    "\u00a0": " ",
}
_RULES: Final = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Thousands are told from lists by these marks, so before the marks go.
        (r"(?<=\d)\s*(?:,\s*\\!|\{,\}|\\[,!])\s*(?=\d{3}(?!\d))", ""),
        (r"(?<!\\)\\[!,;:> ]|~|\\q?quad(?![A-Za-z])|\\(?:display|text|script)style(?![A-Za-z])", " "),
        (r"(?<![\d.,])(\d{1,3}) (?=\d{3}(?:\D|$))", r"\1"),
        (r"\\(?:left|right)(?![A-Za-z])\s*\.?|\\[bB]igg?[lrm]?(?![A-Za-z])", ""),
        (r"\\[dtc](frac|binom)(?![A-Za-z])", r"\\\1"),
        (r"\\mathbb\s*(?:\{\s*R\s*\}|R)", r"(-\\infty,\\infty)"),
        (r"\\(?:mbox|hbox|textbf|textit|textrm|textsf|textnormal|mathrm|mathsf|rm)\s*\{", r"\\text{"),
        (r"\\(?:mathbf|boldsymbol|bm|mathit|emph)\s*\{([^{}]*)\}", r"\1"),
        (r"\\geq(?:slant)?(?![A-Za-z])", r"\\ge "),
        (r"\\leq(?:slant)?(?![A-Za-z])", r"\\le "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\times(?![A-Za-z])", r"\\cdot "),
        (r"\\[lr]vert(?![A-Za-z])", "|"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\langle(?![A-Za-z])", "("),
        (r"\\rangle(?![A-Za-z])", ")"),
        (r"\\(?:emptyset|varnothing)(?![A-Za-z])", r"\\{\\}"),
        (r"\^\s*(?:\{\s*\\(?:circ|degree)\s*\}|\\(?:circ|degree)(?![A-Za-z]))|\\degree(?![A-Za-z])", ""),
        (r"\\?\$|(?<!\\)\\[()]", ""),
        (r"\\%", "%"),
        (r"\+\s*\\infty", r"\\infty"),
        (r"\\sqrt\s*([0-9A-Za-z])", r"\\sqrt{\1}"),
        (r"\\text\{\s*,?\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])", ","),
        (r",\s*,", ","),
        (r"(?<=[\d}])\s*\\approx.*", ""),
        (r"\s+", " "),
    )
]
_TWO: Final = re.compile(rf"\\(frac|binom)\s*({_ONE})\s*({_ONE})")
_ANGLE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))")
_UNITS: Final = (
    "degrees?|deg|radians?|cents?|dollars?|units?|inch(?:es)?|feet|foot|ft|yards?|miles?|mph|cm|mm|km|kg|"
    "met(?:er|re)s?|centimet(?:er|re)s?|kilomet(?:er|re)s?|grams?|kilograms?|pounds?|ounces?|lit(?:er|re)s?|"
    "seconds?|sec|minutes?|min|hours?|hrs?|days?|weeks?|months?|years?|points?|people|students?"
)
_CLAUSE: Final = "for|where|if|when|with|is|are|in(?= )|as|such"
"""Words that begin a condition, not a unit."""
_POWER: Final = r"(?:\s*\^\s*(?:\{\s*\d\s*\}|\d))?"
_UNIT: Final = re.compile(
    rf"(?<=[^\s/])(?:\s*/?\s*\\text\{{(?!\s*(?:{_CLAUSE})\b)[A-Za-z .,/²³-]*\}}{_POWER})+$"
    rf"|(?<=[\d}})!])\s*(?:square |cubic |sq\.? )?(?:{_UNITS})(?:(?:/| per )[a-z]+)?{_POWER}$"
)
_PERCENT: Final = re.compile(r"(?<=\S)\s*(?:%|\\text\{\s*(?:percent|%)\s*\}|percent)$")
_DECIMAL: Final = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?"
_NUMBERS: Final = [
    re.compile(pattern)
    for pattern in (
        rf"(?P<sign>[-+]?)\s?(?P<over>{_DECIMAL})",
        rf"(?P<sign>[-+]?)\s?(?P<over>{_DECIMAL})\s?/\s?(?P<under>{_DECIMAL})",
        rf"(?P<sign>[-+]?)\s?\\frac\{{(?P<over>{_DECIMAL})\}}\{{(?P<under>{_DECIMAL})\}}",
        r"(?P<sign>[-+]?)\s?(?P<whole>\d+)\s?\\frac\{(?P<over>\d+)\}\{(?P<under>\d+)\}",
        r"(?P<sign>[-+]?)\s?(?P<whole>\d+)\s(?P<over>\d+)/(?P<under>\d+)",
    )
]
_REPEATING: Final = re.compile(r"(-?)(\d*\.\d*)\\overline\s?\{(\d+)\}")


def canonical(text: str) -> str:
    r"""One spelling for what is written in many: ``\left``, ``\dfrac``, spacing, currency, degrees, thousands."""
    for written, meant in _UNICODE.items():
        text = text.replace(written, meant)
    if re.search(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])", text):  # Elsewhere degrees are a unit.
        text = _ANGLE.sub(r"{(\1\\pi/180)}", text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    for _ in range(4):  # Fractions in fractions, from the outside in.
        text = _TWO.sub(lambda m: rf"\{m[1]}{{{_bare(m[2])}}}{{{_bare(m[3])}}}", text)
    return text.strip(" ").rstrip(".,; ")


def _bare(argument: str) -> str:
    return argument[1:-1].strip() if argument.startswith("{") else argument


def without_percent(text: str) -> tuple[str, bool]:
    """Text without a sign of percent at its end, and whether there was one."""
    bare = _PERCENT.sub("", text)
    return bare, bare != text


def without_unit(text: str) -> str:
    r"""Text without units at its end: any ``\text{...}``, or words that are units and no variables."""
    return _UNIT.sub("", text).strip()


def number(text: str) -> Fraction | None:
    """The value of a decimal, a fraction or a mixed number in canonical spelling; None for anything else."""
    try:
        for pattern in _NUMBERS:
            if found := pattern.fullmatch(text):
                parts = found.groupdict()
                value = Fraction(parts["over"]) / Fraction(parts.get("under") or 1) + int(parts.get("whole") or 0)
                return -value if parts["sign"] == "-" else value
        if found := _REPEATING.fullmatch(text):
            sign, start, period = found.groups()
            value = Fraction(start) + Fraction(
                int(period), (10 ** len(period) - 1) * 10 ** len(start.partition(".")[2])
            )
            return -value if sign else value
    except (ValueError, ZeroDivisionError):  # Also of more digits than Python reads.
        pass
    return None
