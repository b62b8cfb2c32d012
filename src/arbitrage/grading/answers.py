"""An answer taken apart: lists, tuples, intervals, matrices, choices and words, down to formulas."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from arbitrage.grading.arithmetic import value
from arbitrage.grading.brackets import cut, depth, inside, split
from arbitrage.grading.latex import canonical, without_percent
from arbitrage.grading.names import is_name
from arbitrage.grading.relations import RELATION, conditions, real_without, set_builder
from arbitrage.grading.types import LIST, MATRIX, UNION, Answer, Choice, Formula, Group, Prose, Words, named
from arbitrage.grading.units import quantity

MAX_LENGTH: Final = 4000
"""A text of more characters is no answer: the model did not stop."""
MAX_WORDS: Final = 5
"""A longer answer in words is a sentence, which may be put in other words."""
MAX_DEPTH: Final = 40
"""Of brackets in brackets; a text that nests deeper is not read."""

_SEPARATORS: Final = (",", ";", "\\AND", "\\OR", "\\\\")
_THOUSANDS: Final = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
_MEMBER: Final = re.compile(r"(?P<name>[A-Za-z](?:_(?:\w|\{\w+\}))?)\s?\\in(?![A-Za-z])\s?(?P<set>.+)")
_OPTION: Final = r"(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer:?) )?"
_CHOICE: Final = re.compile(
    rf"(?:\\text\s?\{{\s*)?{_OPTION}(?:\(([A-Za-z])\)[.:]?|([A-Z])[).:])\s*\}}?|\\text\s?\{{\s*{_OPTION}([A-Z])\s*\}}"
    r"|(?:[Oo]ption|[Cc]hoice) ([A-Z])"
)
_LABELLED: Final = re.compile(
    r"(?P<text>\\text\s?\{\s*)?(?:\((?P<first>[A-F])\)[.:]?|(?P<second>[A-F])[.:)](?= |\}|\\))\s*(?P<close>\})?"
    r"\s*:?\s*(?P<rest>[\w\\\-.].*)"
)
_TEXT: Final = re.compile(r"\\text\s?\{([^{}]*)\}")
_LETTER: Final = re.compile(r"\\text\{\s*([A-Za-z])\s*\}")
_SENTENCE: Final = re.compile(r"[A-Za-z][A-Za-z'’-]+(?: [A-Za-z][A-Za-z'’-]+)+")
_LOGIC: Final = ("yes", "no", "true", "false", "none")
_PROSE: Final = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,} [A-Za-z]{2,}|\\text\s?\{[^{}]*[A-Za-z]{3}|\\(?:AND|OR)")
_GRID: Final = re.compile(r"\\begin\{([pbBvV]?matrix|smallmatrix|array)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}", re.DOTALL)
_LINES: Final = re.compile(
    r"(?:\\\{\s?)?\\begin\{(cases|aligned|align\*?|gathered|split|array)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}", re.DOTALL
)
_ROW_END: Final = re.compile(r"\\\\(?:\[[^\]]*\])?")
_TWO_EQUATIONS: Final = re.compile(r"[-+]?[\d.]+ [A-Za-z](?:_\w)?")
"""Between two signs of equality: the end of one equation and the start of another, or a product."""
_SIGNS: Final = re.compile(r"\\(pm|mp)(?![A-Za-z])\s?")


def read(text: str, *, is_list: bool = False) -> Answer:
    r"""Take an answer apart.

    Args:
        text: The content of a box, or a gold answer; LaTeX or plain.
        is_list: Whether several values are expected: then a comma never marks thousands.
    """
    return _read_text(text, is_list)


@lru_cache(maxsize=2048)
def _read_text(text: str, is_list: bool) -> Answer:
    if len(text) > MAX_LENGTH:
        return Prose(text)
    text = canonical(text)
    if depth(text) > MAX_DEPTH:
        return Prose(text)
    if not is_list:
        # Inside brackets a comma parts coordinates or elements.
        outside = re.split(r"[(\[{]", text, maxsplit=1)[0]
        text = _without_marks(outside) + text[len(outside) :]
    return _read(text)


def _without_marks(text: str) -> str:
    """Text without the commas that mark thousands."""
    return _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)


def read_both(answer: str | None, gold: str) -> tuple[Answer | None, Answer]:
    """Take an answer and its gold answer apart, and read commas in both alike."""
    read_gold = read(gold)
    is_list = isinstance(read_gold, Group) and read_gold.kind == LIST
    read_answer = None if answer is None else read(answer, is_list=is_list)
    return read_answer, read(gold, is_list=True) if is_list else read_gold


def _read(text: str) -> Answer:
    text = text.strip().rstrip(".").rstrip()
    if text.count("\\{") > text.count("\\}") and text.startswith("\\{"):  # As in "\left\{ x > 1 \right.".
        text = text[2:].strip()
    if not text:
        return Prose("")
    if special := _choice(text) or _lines(text) or _words(text) or _related(text):
        return special
    parts = _parts(text)
    if len(parts) > 1:
        return _group(LIST, parts, text)
    if member := _MEMBER.fullmatch(text):
        return named(_read(member["set"]), member["name"])
    return _read_item(parts[0])


def _choice(text: str) -> Choice | None:
    if match := _CHOICE.fullmatch(text):
        return Choice(next(filter(None, match.groups())).upper())
    match = _LABELLED.fullmatch(text)
    if not match or (match["second"] and not match["text"] and " " not in text):
        return None
    is_open = match["text"] and not match["close"]
    rest = rf"\text{{{match['rest']}" if is_open else match["rest"]
    return Choice(match["first"] or match["second"], _read(rest))


def _lines(text: str) -> Answer | None:
    """Several lines of equations; cases with conditions are not read."""
    match = _LINES.fullmatch(text)
    if not match:
        return None
    rows = [row.strip() for row in _ROW_END.split(match[2]) if row.strip()]
    if match[1] == "array" and not all(re.search(r"=|[<>]|\\[lg]e(?![a-z])", row) for row in rows):
        return None
    if match[1] in ("cases", "array") and any("&" in row and not re.search(r"&\s?=", row) for row in rows):
        return Prose(text)
    return _read(", ".join(row.replace("&", "").strip(",; ") for row in rows))


def _words(text: str) -> Answer | None:
    match = _TEXT.fullmatch(text)
    if match and re.match(r"\s*[-+]?[$€£¥₹]?\s?\.?\d", match[1]):  # As in "\text{5 cm}".
        quantities = _read(_without_marks(match[1]))
        if not _has_prose(quantities):
            return quantities
    words = re.sub(r",|\\(?:AND|OR)", " ", match[1] if match else text).split()
    content = " ".join(words).strip(" .")
    if (match and re.search("[A-Za-z]{2}", content)) or _SENTENCE.fullmatch(content) or content.casefold() in _LOGIC:
        return Words(content.casefold()) if len(words) <= MAX_WORDS else Prose(content)
    return None


def _has_prose(answer: Answer) -> bool:
    return any(isinstance(part, Prose) for part in (answer.items if isinstance(answer, Group) else (answer,)))


def _related(text: str) -> Answer | None:
    return conditions(text) if RELATION.search(text) and not text.startswith("\\{") else None


def _parts(text: str) -> list[str]:
    parts = split(text, _SEPARATORS)
    if "quad" in text:  # A wide space parts equations and values, but not a value from its unit.
        wide = [piece for part in parts for piece in split(part, ("\\quad", "\\qquad"))]
        if all("=" in part or RELATION.search(part) or inside(part) or value(part) is not None for part in wide):
            return wide
        parts = [re.sub(r"\\q?quad(?![A-Za-z])\s?", " ", part).strip() for part in parts]
    return parts


def _read_item(text: str) -> Answer:
    if without := real_without(text):
        return without
    name, body = _named(text)
    if _SIGNS.search(body) and not inside(body):
        return _renamed(_group(LIST, [_signed(body, "+-"), _signed(body, "-+")], body), name)
    parts = split(body, ("\\cup",))
    if len(parts) > 1:
        return _group(UNION, parts, text)
    bracketed = _bracketed(body)
    return _renamed(bracketed, name) if bracketed else _formula(body, name)


def _named(text: str) -> tuple[str, str]:
    """The name and the value of an equation whose sides are names and values; no name for anything else."""
    members, _ = cut(text, ("=",))
    if len(members) < 2 or not all(members) or re.search(r"[<>]|\\(?:le|ge|ne|approx|equiv)(?![A-Za-z])", text):
        return "", text
    if any(_TWO_EQUATIONS.fullmatch(member) for member in members[1:-1]):
        return "", text
    names = [member for member in members if is_name(member)]
    values = [member for member in members if not is_name(member)]
    if names:
        return names[0], values[-1] if values else names[-1]
    if all(value(quantity(member).amount) is not None for member in members):
        return "", members[-1]  # A calculation.
    for first, last in (members, members[::-1]) if len(members) == 2 else ():
        if first.startswith("-") and is_name(first[1:].strip()) and value(quantity(last).amount) is not None:
            return first[1:].strip(), last[1:].strip() if last.startswith("-") else f"-{last}"
    return "", text


def _renamed(answer: Answer, name: str) -> Answer:
    """Give a name to the values of a group; the names of a tuple go to its items."""
    if not name or not isinstance(answer, Group):
        return named(answer, name)
    if inner := inside(name):
        names = split(inner, (",",))
        if len(names) != len(answer.items):
            return answer
        items = tuple(named(item, one) for item, one in zip(answer.items, names, strict=True))
        return Group(answer.kind, items, answer.text)
    if answer.kind == LIST:
        return Group(LIST, tuple(named(item, name) for item in answer.items), answer.text)
    return answer


def _signed(text: str, signs: str) -> str:
    r"""One reading of all ``\pm`` and ``\mp``."""
    return _SIGNS.sub(lambda match: signs[match[1] == "mp"], text)


def _bracketed(text: str) -> Answer | None:
    """A tuple, an interval, a set or a matrix; brackets around a single value are dropped."""
    if grid := _GRID.fullmatch(text):
        rows = [row for row in _ROW_END.split(grid[2]) if row.strip()]
        return Group(MATRIX, tuple(Group("row", tuple(map(_read, row.split("&"))), row) for row in rows), text)
    inner = inside(text)
    if inner is None:
        return None
    opening, closing = ("\\{", "\\}") if text.startswith("\\{") else (text[0], text[-1])
    num = len(_parts(inner))
    if opening == "{" or (opening + closing == "()" and num == 1):
        return _read(inner)
    if opening == "\\{":
        if re.search(r"[|:]|\\mid(?![A-Za-z])", inner):
            return set_builder(inner) or Prose(text)
        if num == 1 and inner.strip():
            return _read(inner)
        return _group(LIST, _parts(inner) if inner.strip() else [], text)
    return _group(opening + closing, split(inner, (",", ";")), text)


def _formula(text: str, name: str) -> Answer:
    bare, is_percent = without_percent(text)
    parts = quantity(bare)
    amount, unit = parts.amount, parts.unit
    if not is_percent:
        amount, is_percent = without_percent(amount)
    if match := _TEXT.fullmatch(amount):
        amount = match[1].strip()
    amount = _LETTER.sub(r"\1 ", amount).strip()
    if not amount or _PROSE.search(amount):
        return Prose(text)
    return Formula(amount, name, is_percent, unit, bare if parts.is_variable else "")


def _group(kind: str, parts: Sequence[str], text: str) -> Group:
    items: list[Answer] = []
    for item in map(_read, parts):
        is_flat = kind in (LIST, UNION) and isinstance(item, Group) and item.kind == LIST
        items += item.items if is_flat and isinstance(item, Group) else [item]
    return Group(kind, tuple(items), text)
