"""Text cut at separators outside of all brackets."""

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

_TOKEN: Final = re.compile(
    r"\\(?:begin|end)\{[a-zA-Z]+\*?\}|\\(?:AND|OR|cup|setminus|quad|qquad|mid|le|ge|ne|in)(?![A-Za-z])|\\.|.", re.DOTALL
)
_OPENING: Final = ("\\{", "{", "(", "[")
_CLOSING: Final = ("\\}", "}", ")", "]")


def _step(token: str) -> int:
    """By how much a token changes the depth."""
    if token in _OPENING or token in _CLOSING:
        return 1 if token in _OPENING else -1
    return token.startswith("\\begin{") - token.startswith("\\end{") if len(token) > 4 else 0


def depth(text: str) -> int:
    """How deep brackets nest."""
    return max(accumulate(map(_step, _TOKEN.findall(text))), default=0)


def cut(text: str, separators: Sequence[str]) -> tuple[list[str], list[str]]:
    """Cut at separators outside all brackets; an interval may close with another bracket than it opened with.

    Returns:
        The parts, stripped, and the separators between them.
    """
    if not any(separator in text for separator in separators):
        return [text.strip()], []
    parts, between, level = [""], list[str](), 0
    for token in _TOKEN.findall(text):
        level += _step(token)
        if level <= 0 and token in separators:
            parts.append("")
            between.append(token)
        else:
            parts[-1] += token
    return [part.strip() for part in parts], between


def split(text: str, separators: Sequence[str]) -> list[str]:
    """The parts that :func:`cut` yields, without empty ones; at least one."""
    return [part for part in cut(text, separators)[0] if part] or [""]


def inside(text: str) -> str | None:
    """The text between a bracket that opens it and the bracket that closes that one at its end; None without such."""
    tokens = _TOKEN.findall(text)
    if len(tokens) < 2 or tokens[0] not in _OPENING or tokens[-1] not in _CLOSING:
        return None
    level = 0
    for index, token in enumerate(tokens):
        level += _step(token)
        if level == 0 and index < len(tokens) - 1:
            return None
    return "".join(tokens[1:-1])
