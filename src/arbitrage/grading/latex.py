"""LaTeX in one spelling: two texts that differ afterwards differ in meaning, or only algebra can tell."""

import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction
from typing import Final

_END: Final = "(?![A-Za-z])"
"""The end of a command's name."""

_CHARACTERS: Final = {
    **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # Full-width forms.
    **dict.fromkeys("−–‐‑﹣", "-"),
    **dict.fromkeys("×·∙⋅✕⨯∗", r"\cdot "),
    **dict.fromkeys("\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000", " "),
    **dict.fromkeys("\u200b\u200c\u200d\ufeff\u2061\u2062", ""),
    **dict.fromkeys("、，", ","),
    "【": "[",
    "】": "]",
    **dict.fromkeys("′’ʹ", "'"),
    "″": "''",
    "。": ".",
    "⁄": "/",
    "÷": r"\div ",
    "∕": "/",
    "π": r"\pi ",
    "∞": r"\infty ",
    "≤": r"\le ",
    "⩽": r"\le ",
    "≥": r"\ge ",
    "⩾": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "∈": r"\in ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∖": r"\setminus ",
    "∧": r"\wedge ",
    "∨": r"\vee ",
    "±": r"\pm ",
    "∓": r"\mp ",
    "∅": r"\emptyset ",
    "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}",
    "ℕ": r"\mathbb{N}",
    "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}",
    "⟨": "(",
    "⟩": ")",
    "〈": "(",
    "〉": ")",
    "…": r"\ldots ",
    "⋯": r"\cdots ",
    "º": "°",
    "℃": "°C",
    "℉": "°F",
    "µ": "μ",
    "￥": "¥",
    "￡": "£",
}
RELATION: Final = re.compile(r"[=<>]|\\(?:le|ge|ne|in)(?![A-Za-z])")
"""A sign that makes an equation, an inequality or a membership."""
_TABLE: Final = str.maketrans(_CHARACTERS)
_SUPERSCRIPT: Final = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPT: Final = str.maketrans("₀₁₂₃₄₅₆₇₈₉ₙ", "0123456789n")
_DOLLAR: Final = "\ue000"
"""Stands for a dollar while the dollar signs around formulas are removed; a private code point."""

MAX_PERIODIC: Final = 40
"""In a decimal with dots behind it and more digits than this, no period is looked for."""

_Replacement = str | Callable[[re.Match[str]], str]


def _period(match: re.Match[str]) -> str:
    """A decimal with dots behind it, as a repeating one; one that repeats nothing loses its dots."""
    whole, digits = match["whole"], match["digits"]
    num = len(digits) if len(digits) <= MAX_PERIODIC else 0
    candidates = [(start, length) for start in range(num) for length in range(1, num - start)]
    for start, length in sorted(candidates, key=lambda pair: (sum(pair), pair)):
        tail = digits[start:]
        enough = (3 if num > 3 else 2) if length == 1 else min(2 * length, length + 3)
        if len(tail) >= enough and all(digit == tail[i % length] for i, digit in enumerate(tail)):
            return rf"{whole}.{digits[:start]}\overline{{{tail[:length]}}}"
    return f"{whole}.{digits}"


_RULES: Final[list[tuple[re.Pattern[str], _Replacement]]] = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Thousands are told from lists by these marks, so before the marks go.
        (r"(?<=\d)\s*(?:,\s*\\!|\{,\}|\\[,!])\s*(?=\d{3}(?!\d))", ""),
        (r"(?<!\\)\\[!,;:> ]|~|\\(?:display|text|script)style" + _END, " "),
        (r"(?<![\d.,])(\d{1,3}) (?=\d{3}(?:\D|$))", r"\1"),
        (r"\\(?:left|right|middle)" + _END + r"\s*\.?|\\[bB]igg?[lrm]?" + _END, ""),
        (r"\\[dtc](frac|binom)" + _END, r"\\\1"),
        (r"\{\s*\\(?:rm|bf|it|sf|tt)\s+([^{}]*)\}", r"\\text{\1}"),
        (
            r"\\(?:mbox|hbox|fbox|textbf|textit|textrm|textsf|texttt|textup|textsl|textnormal"
            r"|mathrm|mathsf|mathtt|rm)\s*\{",
            r"\\text{",
        ),
        (r"\\text\s+\{", r"\\text{"),
        (r"\\text\{\s*([ei])\s*\}|\\imath" + _END, lambda match: (match[1] or "i") + " "),
        (r"\\text\{\s*d\s*\}(?=\s*[A-Za-z\\^])", "d"),
        (r"\\(?:text|operatorname)\{\s*cis\s*\}|\\cis" + _END, r"\\operatorname{cis}"),
        (r"\\mathbb\s*(?:\{\s*R\s*\}|R)|\\R" + _END, r"(-\\infty,\\infty)"),
        (r"\\(?:mathbf|boldsymbol|bm|mathit|emph)\s*\{([^{}]*)\}", r"\1"),
        (r"\\geq(?:slant|q)?" + _END + "|>=", r"\\ge "),
        (r"\\leq(?:slant|q)?" + _END + "|<=", r"\\le "),
        (r"\\neq" + _END + r"|\\not\s*=|!=", r"\\ne "),
        (r"\\lt" + _END, "<"),
        (r"\\gt" + _END, ">"),
        (r"\\(?:times|ast)" + _END, r"\\cdot "),
        (r"(?<=\d)\s*[xX*]\s*(?=10\s*\^)", r"\\cdot "),
        (r"\\[lr]?vert" + _END, "|"),
        (r"\\lbrace" + _END, r"\\{"),
        (r"\\rbrace" + _END, r"\\}"),
        (r"\\lbrack" + _END, "["),
        (r"\\rbrack" + _END, "]"),
        (r"\\colon" + _END, ":"),
        (r"\\langle" + _END, "("),
        (r"\\rangle" + _END, ")"),
        (r"\\backslash" + _END, r"\\setminus "),
        (r"\\(?:emptyset|varnothing)" + _END, r"\\{\\}"),
        (rf"\^\s*(?:\{{\s*\\(?:circ|degree)\s*\}}|\\(?:circ|degree){_END})|\\degree{_END}|\\text\{{\s*°\s*\}}", "°"),
        (r"\^\s*(?:\{\s*\\prime\s*\}|\\prime" + _END + ")", "'"),
        (r"\^\s*\{\s*\\prime\s*\\prime\s*\}", "''"),
        (r"\^\s*\{\s*\\text\{\s*(?:st|nd|rd|th)\s*\}\s*\}|(?<=\d)(?:st|nd|rd|th)" + _END, ""),
        (r"\\(?:\$|textdollar" + _END + r")|\\text\{\s*\$\s*\}", _DOLLAR),
        # Inside "$2 m$" the letter is a variable, outside of it a unit.
        (r"(?<=[\d})]) +([A-Za-z](?:\^\{?\d\}?)?) *\$(?![^$]*\$)", r"\1$"),
        (r"(?<![A-Za-z])US\s?\\?\$(?=\s?[\d.])", _DOLLAR),
        (r"^([-+]?)\$(?=\s*[-.\d][^$]*$)", r"\1" + _DOLLAR),
        (r"\$|(?<!\\)\\[()]", ""),
        (_DOLLAR, "$"),
        (r"\\%", "%"),
        (r"\+\s*\\infty", r"\\infty"),
        (r"\\sqrt\s*([0-9A-Za-z])", r"\\sqrt{\1}"),
        (r"√\s*(\d+|[A-Za-z]|\([^()]*\))", r"\\sqrt{\1}"),
        (
            r"(?P<whole>\d*)\.(?P<digits>\d+)\s*(?:\\[lc]?dots" + _END + r"|\.\.\.+)(?!\s*\d)",
            _period,
        ),
        (r"\\text\{([^{}]*?)(?<![A-Za-z])(and|or)(?![A-Za-z])([^{}]*)\}", r"\\text{\1} \2 \\text{\3}"),
        (r"\\text\{[\s,.;:]*\}", " "),
        (r"(?:,\s*)?(?<![A-Za-z\\])(and|or)(?![A-Za-z])\s*,?", lambda match: rf" \{match[1].upper()} "),
        (r",\s*,", ","),
        (r"(?<=[\d}])\s*\\approx.*", ""),
        (r"\s+", " "),
    )
]
_TWO: Final = re.compile(r"\\(frac|binom)(?![A-Za-z])")
_ARGUMENT: Final = re.compile(r"\s*(\{|[0-9A-Za-z]|\\[A-Za-z]+)")
_ANGLE: Final = re.compile(rf"(\d+(?:\.\d+)?)\s*(?:\^\s*(?:\{{\s*\\circ\s*\}}|\\circ{_END})|°)")
_LINE_END: Final = re.compile(
    r"(?<![-+=*/^_{(\[,;\s])\s*\n\s*(?![+=*/^_})\],;]|\\(?:cdot|times|le|ge|ne|in|cup)(?![A-Za-z]))"
)
"""The end of a line that is no part of a longer formula."""
_PERCENT: Final = re.compile(r"(?<=\S)\s*(?:%|\\text\{\s*(?:percent|per cent|%)\s*\}|percent|per cent)$")

_EXPONENT: Final = r"(?:[eE][-+]?\d{1,4})?"
_DECIMAL: Final = rf"[-+]?(?:\d+(?:\.\d*)?|\.\d+){_EXPONENT}"
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
_BARRED: Final = re.compile(r"(?<=\d|\.)\\bar\s?(?:\{(\d+)\}|(\d))")
_DOTTED: Final = re.compile(r"(\d*\.\d*)\\dot\s?(?:\{(\d)\}|(\d))(?:(\d*)\\dot\s?(?:\{(\d)\}|(\d)))?")


def canonical(text: str) -> str:
    r"""One spelling for texts that mean the same: ``\left``, ``\dfrac``, spacing, thousands, full-width digits."""
    if not text.isascii():
        text = _ascii(text)
    if re.search(r"\\(?:sin|cos|tan|cot|sec|csc|cis|(?:text|operatorname)\{ ?cis ?\})(?![a-z])", text):
        text = _ANGLE.sub(r"{(\1\\pi/180)}", text)  # Elsewhere degrees are a unit.
    if "\n" in text and "\\begin" not in text:
        text = _LINE_END.sub(r" \\quad ", text.strip())
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    if RELATION.search(text):
        text = re.sub(r"\\(?:land|wedge)(?![A-Za-z])", r"\\AND ", text)
        text = re.sub(r"\\(?:lor|vee)(?![A-Za-z])", r"\\OR ", text)
    if "\\bar" in text:
        text = _BARRED.sub(lambda match: rf"\overline{{{match[1] or match[2]}}}", text)
    if "dot" in text or ".(" in text:
        text = _DOTTED.sub(_overlined, text)
        text = re.sub(r"(?<=\.)\((\d+)\)", r"\\overline{\1}", text)
    if "\\frac" in text or "\\binom" in text:
        text = _braced(text)
    return text.strip(" ").rstrip(".,;: ")


def _ascii(text: str) -> str:
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda match: f"^{{{match[0].translate(_SUPERSCRIPT)}}}", text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉ₙ]+", lambda match: f"_{{{match[0].translate(_SUBSCRIPT)}}}", text)
    text = re.sub(r"(\d)[\u0305\u0304]", r"\\overline{\1}", text)
    text = re.sub(r"(\d)\u0307", r"\\dot{\1}", text)
    text = re.sub("[¼-¾⅐-⅞]", lambda match: _vulgar(match[0]), text)
    text = text.translate(_TABLE)
    return "".join(c if c.isascii() else str(unicodedata.decimal(c, c)) for c in text)


def _vulgar(character: str) -> str:
    over, _, under = unicodedata.normalize("NFKC", character).partition("⁄")
    return rf"\frac{{{over}}}{{{under}}}"


def _overlined(match: re.Match[str]) -> str:
    r"""``0.1\dot2\dot3`` as ``0.1\overline{23}``: the dots stand over the first and the last digit that repeat."""
    start, first, between, last = match[1], match[2] or match[3], match[4] or "", match[5] or match[6] or ""
    return rf"{start}\overline{{{first}{between}{last}}}"


def _braced(text: str) -> str:
    r"""Text with braces around both arguments of every fraction: ``\frac{1}{2}`` for ``\frac12``."""
    out, end = [], 0
    for command in _TWO.finditer(text):
        if command.start() < end:
            continue  # Inside an argument.
        out.append(text[end : command.start()] + "\\" + command[1])
        end = command.end()
        for _ in range(2):
            argument = _ARGUMENT.match(text, end)
            if not argument:
                break
            start, end = argument.start(1), argument.end()
            if text[start] == "{":
                end = _closing(text, start) + 1
                out.append(f"{{{_braced(text[start + 1 : end - 1].strip())}}}")
            else:
                out.append(f"{{{argument[1]}}}")
    return "".join(out) + text[end:]


def _closing(text: str, start: int) -> int:
    """Index of the brace that closes the one at the start; the end of the text without one."""
    level = 0
    for index in range(start, len(text)):
        level += (text[index] == "{") - (text[index] == "}")
        if level == 0:
            return index
    return len(text)


def without_percent(text: str) -> tuple[str, bool]:
    """Text without a sign of percent at its end, and whether there was one."""
    bare = _PERCENT.sub("", text)
    return bare, bare != text


def number(text: str) -> Fraction | None:
    """The value of a decimal, a fraction or a mixed number in canonical spelling; None for anything else."""
    try:
        for pattern in _NUMBERS:
            if match := pattern.fullmatch(text):
                parts = match.groupdict()
                value = Fraction(parts["over"]) / Fraction(parts.get("under") or 1) + int(parts.get("whole") or 0)
                return -value if parts["sign"] == "-" else value
        if match := _REPEATING.fullmatch(text):
            sign, start, period = match.groups()
            value = Fraction(start if start != "." else "0") + Fraction(
                int(period), (10 ** len(period) - 1) * 10 ** len(start.partition(".")[2])
            )
            return -value if sign else value
    except (ValueError, ZeroDivisionError):  # Also of more digits than Python reads.
        pass
    return None
