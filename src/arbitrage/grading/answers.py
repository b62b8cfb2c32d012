"""An answer taken apart: lists, tuples, intervals, matrices, choices and words, down to formulas."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from arbitrage.grading.latex import canonical, number, without_percent, without_unit


@dataclass(frozen=True, slots=True)
class Formula:
    """Anything that stands for one value: a number, an expression, an equation."""

    text: str
    """Without name, unit and sign of percent."""
    name: str = ""
    """What it was said to equal: ``x``, ``f(x)``."""
    is_percent: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """An answer in words, in lower case."""

    text: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A letter of a multiple choice, perhaps with what it stands for."""

    letter: str
    rest: "Answer | None" = None


@dataclass(frozen=True, slots=True)
class Group:
    """Several answers together."""

    kind: str
    """``list`` (also sets), ``union``, ``matrix``, ``row``, or a pair of brackets such as ``(]``."""
    items: "tuple[Answer, ...]"
    text: str


@dataclass(frozen=True, slots=True)
class Prose:
    """Sentences, nothing, or no end: no machine can tell whether another answer says the same."""

    text: str


Answer = Formula | Words | Choice | Group | Prose
Same = Callable[[Formula, Formula], bool | None]
"""Whether a formula that was said equals one that was meant; None for unknown."""

LIST: Final = "list"
UNION: Final = "union"
MATRIX: Final = "matrix"
MAX_LENGTH: Final = 4000
"""A text of more characters is no answer: a model that did not stop."""
MAX_WORDS: Final = 5
"""A longer answer in words is a sentence, which may be put in other words."""
MAX_DEPTH: Final = 40
"""Of brackets in brackets; what nests deeper is not read."""

_TOKEN: Final = re.compile(r"\\begin\{|\\end\{|\\cup(?![A-Za-z])|\\.|.", re.DOTALL)
_OPENING: Final = ("\\begin{", "\\{", "{", "(", "[")
_CLOSING: Final = ("\\end{", "\\}", "}", ")", "]")
_THOUSANDS: Final = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
_NAME: Final = re.compile(
    r"(?P<name>\\text\s?\{[^{}]*\}|\\?[A-Za-z]+'*(?:\s?_\s?(?:\{[^{}]*\}|\w))?(?:\s?\([^()=]*\))?"
    r"|\\angle[\sA-Za-z_{}\d]+|\(\s?[a-z](?:\s?,\s?[a-z])+\s?\))\s?=(?P<rest>[^=<>]+(?:=[^=<>]+)*)"
)
_MEMBER: Final = re.compile(r"[A-Za-z]\s?\\in(?![A-Za-z])\s?")
_CHOICE: Final = re.compile(r"(?:\\text\s?\{\s*)?(?:\(([A-Za-z])\)|([A-Z])\))\s*\}?|\\text\s?\{\s*([A-Z])\s*\}")
_LABELLED: Final = re.compile(
    r"(?:(?:\\text\s?\{\s*)?\((?P<first>[A-F])\)\s*\}?\s*:?\s*|(?P<second>[A-F])[.:)] )(?P<rest>[\w\\\-.].*)"
)
_TEXT: Final = re.compile(r"\\text\s?\{([^{}]*)\}")
_SENTENCE: Final = re.compile(r"[A-Za-z][A-Za-z'’-]+(?: [A-Za-z][A-Za-z'’-]+)+")
_LOGIC: Final = ("yes", "no", "true", "false", "none")
_PROSE: Final = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,} [A-Za-z]{2,}|\\text\s?\{[^{}]*[A-Za-z]{3,}[^{}]*\}")
_GRID: Final = re.compile(r"\\begin\{([pbB]?matrix|array)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}", re.DOTALL)
_ROW_END: Final = re.compile(r"\\\\(?:\[[^\]]*\])?")
_BASE: Final = re.compile(r"(\d+)_(?:\{(\d+)\}|(\d))")
_SIGNS: Final = re.compile(r"\\(pm|mp)(?![A-Za-z])\s?")
_RELATION: Final = re.compile(r"[<>]|\\(?:le|ge|ne|neq|in)(?![A-Za-z])")


def read(text: str, *, is_list: bool = False) -> Answer:
    r"""Take an answer apart.

    Args:
        text: What a box holds, or a gold answer; LaTeX or plain.
        is_list: Whether several values are expected: then a comma never marks thousands.
    """
    if len(text) > MAX_LENGTH:
        return Prose(text)
    text = canonical(text)
    if _depth(text) > MAX_DEPTH:
        return Prose(text)
    if not is_list:
        # Inside brackets a comma parts coordinates or elements.
        outside = re.split(r"[(\[{]", text, maxsplit=1)[0]
        text = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), outside) + text[len(outside) :]
    return _read(text)


def read_both(answer: str | None, gold: str) -> tuple[Answer | None, Answer]:
    """Take an answer and its gold answer apart, and read commas in both alike."""
    meant = read(gold)
    is_list = isinstance(meant, Group) and meant.kind == LIST
    said = None if answer is None else read(answer, is_list=is_list)
    return said, read(gold, is_list=True) if is_list else meant


def _depth(text: str) -> int:
    """How deep brackets nest."""
    steps = ((token in _OPENING) - (token in _CLOSING) for token in _TOKEN.findall(text))
    return max(accumulate(steps), default=0)


def _read(text: str) -> Answer:
    text = text.strip().rstrip(".")
    if not text:
        return Prose("")
    if found := _CHOICE.fullmatch(text):
        return Choice(next(filter(None, found.groups())).upper())
    if found := _LABELLED.fullmatch(text):
        return Choice(found["first"] or found["second"], _read(found["rest"]))
    if words := _words(text):
        return words
    parts = _split(text, (",", ";"))
    if len(parts) > 1:
        return _group(LIST, parts, text)
    return _read_item(_MEMBER.sub("", text) if _MEMBER.match(text) else text)


def _words(text: str) -> Words | Prose | None:
    found = _TEXT.fullmatch(text)
    words = (found[1] if found else text).replace(",", " ").split()
    content = " ".join(words).strip(" .")
    if (found and re.search("[A-Za-z]{2}", content)) or _SENTENCE.fullmatch(content) or content.casefold() in _LOGIC:
        return Words(content.casefold()) if len(words) <= MAX_WORDS else Prose(content)
    return None


def _read_item(text: str) -> Answer:
    name, body = "", text
    if found := _NAME.fullmatch(text):
        name, body = found["name"].strip(), found["rest"].rpartition("=")[2].strip()
    if _SIGNS.search(body) and not _inside(body):
        return _group(LIST, [_signed(body, "+-"), _signed(body, "-+")], text)
    parts = _split(body, ("\\cup",))
    if len(parts) > 1:
        return _group(UNION, parts, text)
    return _bracketed(body) or _formula(body, name)


def _signed(text: str, signs: str) -> str:
    r"""One reading of all ``\pm`` and ``\mp``."""
    return _SIGNS.sub(lambda found: signs[found[1] == "mp"], text)


def _bracketed(text: str) -> Answer | None:
    """A tuple, an interval, a set or a matrix; what brackets hold alone is that itself."""
    if found := _GRID.fullmatch(text):
        rows = [row for row in _ROW_END.split(found[2]) if row.strip()]
        made = tuple(Group("row", tuple(map(_read, row.split("&"))), row) for row in rows)
        return Group(MATRIX, made, text)
    inside = _inside(text)
    if inside is None:
        return None
    opening, closing = ("\\{", "\\}") if text.startswith("\\{") else (text[0], text[-1])
    if opening == "{" or (opening + closing == "()" and len(_split(inside, (",", ";"))) == 1):
        return _read(inside)
    if opening == "\\{":
        if re.search(r"[|:]|\\mid(?![A-Za-z])", inside):
            return Prose(text)
        return _group(LIST, _split(inside, (",", ";")) if inside.strip() else [], text)
    return _group(opening + closing, _split(inside, (",", ";")), text)


def _formula(text: str, name: str) -> Answer:
    bare, is_percent = without_percent(without_unit(text))
    bare = without_unit(bare)
    if found := _TEXT.fullmatch(bare):
        bare = found[1].strip()
    if not bare or _PROSE.search(bare):
        return Prose(text)
    return Formula(bare, name, is_percent)


def _group(kind: str, parts: Sequence[str], text: str) -> Group:
    items: list[Answer] = []
    for item in map(_read, parts):
        items += item.items if kind == LIST and isinstance(item, Group) and item.kind == LIST else [item]
    return Group(kind, tuple(items), text)


def _split(text: str, separators: Sequence[str]) -> list[str]:
    """Cut at separators outside all brackets; half-open intervals may close otherwise than they opened."""
    parts, depth = [""], 0
    for found in _TOKEN.finditer(text):
        token = found[0]
        depth += (token in _OPENING) - (token in _CLOSING)
        if depth <= 0 and token in separators:
            parts.append("")
        else:
            parts[-1] += token
    return [part.strip() for part in parts if part.strip()] or [""]


def _inside(text: str) -> str | None:
    """What stands between a bracket that opens the text and the one that closes it there; None without such."""
    tokens = _TOKEN.findall(text)
    if len(tokens) < 2 or tokens[0] not in _OPENING[1:] or tokens[-1] not in _CLOSING[1:]:
        return None
    depth = 0
    for index, token in enumerate(tokens):
        depth += (token in _OPENING) - (token in _CLOSING)
        if depth == 0 and index < len(tokens) - 1:
            return None
    return "".join(tokens[1:-1])


def formulas(answer: Answer) -> Iterator[Formula | Prose]:
    """All formulas of an answer, and what could not be read."""
    if isinstance(answer, Formula | Prose):
        yield answer
    elif isinstance(answer, Group):
        for item in answer.items:
            yield from formulas(item)


def is_plain(formula: Formula | Prose) -> bool:
    """Whether it is sure to be readable: a number, with a base or without, or infinity."""
    if isinstance(formula, Prose):
        return False
    text = formula.text
    return number(text) is not None or bool(_BASE.fullmatch(text)) or text.lstrip("-") == "\\infty"


def exactly_same(said: Formula, meant: Formula) -> bool | None:
    """Compare two formulas as numbers where both are, else as text; None if only algebra could tell."""
    left, right = number(said.text), number(meant.text)
    if left is not None and right is not None:
        if said.is_percent == meant.is_percent:
            return left == right
        share, other = (left, right) if said.is_percent else (right, left)
        return other in (share, share / 100)
    if based := _BASE.fullmatch(meant.text):
        digits, base = based[1], based[2] or based[3]
        found = _BASE.fullmatch(said.text)
        return (found[1], found[2] or found[3]) == (digits, base) if found else said.text == digits
    if said.is_percent == meant.is_percent and _key(said.text) == _key(meant.text):
        return True
    return None


def _key(text: str) -> str:
    text = "".join(text.split())
    return text.casefold() if re.fullmatch("[A-Za-z]{3,}", text) else text


def compare(said: Answer, meant: Answer, same: Same) -> bool | None:
    """Whether one answer says what another means.

    Args:
        said: The answer.
        meant: The gold answer.
        same: Compares two formulas.

    Returns:
        None if ``same`` left it open.
    """
    if isinstance(meant, Choice) or isinstance(said, Choice):
        return _same_choice(said, meant, same)
    if isinstance(meant, Prose) or isinstance(said, Prose):
        return False
    if isinstance(meant, Words) or isinstance(said, Words):
        return "".join(said.text.casefold().split()) == "".join(meant.text.casefold().split())
    if isinstance(said, Formula) and isinstance(meant, Formula):
        return same(said, meant)
    if isinstance(said, Group) and isinstance(meant, Group):
        return _same_group(said, meant, same)
    return _same_whole(said, meant, same)


def _same_choice(said: Answer, meant: Answer, same: Same) -> bool | None:
    if isinstance(said, Choice) and isinstance(meant, Choice):
        return said.letter == meant.letter
    choice, other = (said, meant) if isinstance(said, Choice) else (meant, said)
    assert isinstance(choice, Choice)
    if isinstance(other, Formula) and other.text.upper() == choice.letter:
        return True
    if choice.rest is None:
        return False
    return compare(choice.rest, other, same) if choice is said else compare(other, choice.rest, same)


def _same_group(said: Group, meant: Group, same: Same) -> bool | None:
    kinds = (said.kind, meant.kind)
    if set(kinds) <= {LIST, UNION} or kinds in (("()", LIST), ("[]", LIST)):
        return _in_any_order(said.items, meant.items, same)
    if UNION in kinds or MATRIX in kinds:
        if kinds == ("()", MATRIX):
            flat = [cell for row in meant.items if isinstance(row, Group) for cell in row.items]
            return min(len(meant.items), len(flat) // len(meant.items)) == 1 and _in_order(said.items, flat, same)
        return _in_order(said.items, meant.items, same) if kinds[0] == kinds[1] else _same_whole(said, meant, same)
    if kinds[0] == kinds[1] or kinds == (LIST, "()"):
        return _in_order(said.items, meant.items, same)
    return False


def _same_whole(said: Answer, meant: Answer, same: Same) -> bool | None:
    """Compare what was taken apart differently, such as an inequality and an interval."""
    assert isinstance(said, Formula | Group)
    assert isinstance(meant, Formula | Group)
    group, other = (said, meant) if isinstance(said, Group) else (meant, said)
    assert isinstance(group, Group)
    if isinstance(other, Formula) and is_plain(other):
        return False
    if group.kind in (UNION, MATRIX) or (group.kind != LIST and _RELATION.search(other.text)):
        return same(Formula(said.text), Formula(meant.text))
    return False


def _in_order(said: Sequence[Answer], meant: Sequence[Answer], same: Same) -> bool | None:
    if len(said) != len(meant):
        return False
    verdicts = [compare(left, right, same) for left, right in zip(said, meant, strict=True)]
    return False if False in verdicts else None if None in verdicts else True


def _in_any_order(said: Sequence[Answer], meant: Sequence[Answer], same: Same) -> bool | None:
    """Pair the items off, none twice."""
    if len(said) != len(meant):
        return False
    names = {item.name if isinstance(item, Formula) else "" for item in meant}
    by_name = len(names) > 1 and "" not in names
    left, is_open = list(said), False
    for wanted in meant:
        verdicts = []
        for index, item in enumerate(left):
            verdicts.append(compare(item, wanted, same) if not by_name or _may_be(item, wanted) else False)
            if verdicts[-1]:
                del left[index]
                break
        else:
            if None not in verdicts:
                return False
            is_open = True
    return None if is_open else True


def _may_be(said: Answer, meant: Answer) -> bool:
    """Whether the names, where given, are the same."""
    if not (isinstance(said, Formula) and isinstance(meant, Formula)):
        return True
    return "".join(said.name.split()) in ("", "".join(meant.name.split()))
