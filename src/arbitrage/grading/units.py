r"""The unit behind a number: ``12 bricks``, ``12 (bricks)``, ``10 m/s``, ``10\text{ m s}^{-1}``, ``\$5``, ``30°``.

Spellings of one unit are the same unit: ``cm^2`` is ``square centimeters``, ``mph`` is ``miles per hour``. Nothing is
converted: a metre is another unit than a centimetre.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

from arbitrage.grading.arithmetic import value
from arbitrage.grading.unit_names import (
    COMPOUNDS,
    EXPONENTS,
    FILLERS,
    REFUSED,
    SCALES,
    SINGLE,
    SYMBOLS,
    WORDS,
)


@dataclass(frozen=True, slots=True)
class Unit:
    """A product of powers of units, and what is counted."""

    powers: frozenset[tuple[str, int]]
    """Units of measurement with their exponents: ``m/s`` is ``{("m", 1), ("s", -1)}``."""
    nouns: frozenset[tuple[str, int]] = frozenset()
    """Other words, in the singular, with 1 or -1 for above and below the fraction's line."""

    def agrees(self, other: "Unit") -> bool:
        """Whether both can be the same unit; one may be more specific than the other, as red bricks are than bricks."""
        if self._dimension == other._dimension and (self._is_general or other._is_general):
            return True
        return self.powers == other.powers and (self.nouns <= other.nouns or other.nouns <= self.nouns)

    @property
    def _is_general(self) -> bool:
        """Whether it is called a unit, a square unit or a cubic unit."""
        return not self.nouns and {name for name, _ in self.powers} == {"unit"}

    @property
    def _dimension(self) -> int:
        return sum(power for _, power in self.powers or self.nouns)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A text taken apart into an amount and its unit."""

    amount: str
    unit: Unit | None = None
    is_variable: bool = False
    """Whether the unit is spelt as a product of variables would be: ``5 m``, ``10 m/s``."""


MAX_LENGTH: Final = 80
"""Only so many characters at the end of a text can be its unit."""

_TEXT: Final = r"\\text\{[^{}]*\}"
_POWER: Final = r"\s?\^\s?(?:\{\s?[-+]?\d\s?\}|[-+]?\d)"
_WORD: Final = r"[A-Za-zμΩ][A-Za-z'-]*(?![A-Za-z'-])(?:\.[A-Za-z]+(?![A-Za-z]))*\.?"
_ATOM: Final = rf"(?:{_TEXT}|{_WORD}|°\s?(?:\\text\{{)?(?:[CF](?![A-Za-z])\}}?)?|[$€£¥₹¢])"
_TAIL: Final = re.compile(
    rf"\s?(?P<open>\(\s?)?(?P<phrase>/?\s?{_ATOM}(?:{_POWER})?(?:\s?(?:(?:/|\\cdot|\*|,)\s?)?{_ATOM}(?:{_POWER})?)*)"
    r"(?P<close>\s?\))?$"
)
_OVER: Final = re.compile(r"\\frac\{(\\text\{[^{}]*\})\}\{(\\text\{[^{}]*\}(?:\^\d|\^\{\d\})?)\}$")
_BEFORE: Final = re.compile(
    r"(?:US|A|C)?(?P<currency>[$€£¥₹])\s?|(?:\\text\{\s*)?(?P<code>USD|EUR|GBP|INR|Rs\.?)\s?\}?\s?(?=\d)"
)
_TOKEN: Final = re.compile(rf"(?P<power>{_POWER})|(?P<slash>/)|(?P<word>{_WORD}|°[CF]?|[$€£¥₹¢])|\S")
_QUANTITY_END: Final = re.compile(
    r"[\d})\]!|°]$|(?<![\\A-Za-z])[A-Za-z]$|\\(?:pi|rfloor|rceil|alpha|beta|gamma|theta|lambda|mu|phi|omega)$"
)


@lru_cache(maxsize=8192)
def quantity(text: str) -> Quantity:
    """Take a text in canonical spelling apart into an amount and its unit, the unit before or behind it."""
    sign = text[0] if text[:1] in ("-", "+") else ""
    before = _BEFORE.match(text, len(sign))
    if before and before.end() < len(text):
        symbol = SYMBOLS[before["currency"] or before["code"].rstrip(".")]
        behind = _split(sign + text[before.end() :].lstrip())
        unit = (
            _times({symbol: 1}, behind.unit) if behind.unit and behind.unit.powers != frozenset({(symbol, 1)}) else None
        )
        return Quantity(_without_marks(behind.amount), unit or Unit(frozenset({(symbol, 1)})))
    split = _split(text)
    return Quantity(_without_marks(split.amount), split.unit, split.is_variable)


def _split(text: str) -> Quantity:
    text = _OVER.sub(r"\1/\2", text)
    for tail in _tails(text):
        amount = text[: tail.start()].rstrip()
        if not amount or not _QUANTITY_END.search(amount) or bool(tail["open"]) != bool(tail["close"]):
            continue
        phrase, is_marked = tail["phrase"], bool(tail["open"])
        is_apart = (
            is_marked or text[tail.start() : tail.start("phrase")].strip(" ") != "" or text[len(amount)] in " /\\°"
        )
        scaled, rest = _scaled(amount, phrase)
        if scaled and not rest:
            return Quantity(scaled)
        unit = _unit(rest, amount, is_apart=is_apart)
        if unit:
            is_variable = "\\text" not in rest and not is_marked and all(len(name) <= 2 for name, _ in unit.powers)
            return Quantity(scaled or amount, unit, is_variable and not unit.nouns)
    return Quantity(text)


def _tails(text: str) -> Iterator[re.Match[str]]:
    """Ends of a text that can be a unit, the longest first."""
    start = max(0, len(text) - MAX_LENGTH)
    while tail := _TAIL.search(text, start):
        yield tail
        start = tail.start("phrase") + 1


def _scaled(amount: str, phrase: str) -> tuple[str, str]:
    """The amount times the numerals at the start of the phrase, empty without any, and the rest of the phrase."""
    words = phrase.replace("\\text{", " \\text{ ").split()
    factor = 1
    while words and words[0] in ("\\text{", "}", *SCALES, *(f"{scale}}}" for scale in SCALES)):
        if words[0] == "\\text{" and (len(words) < 2 or words[1].rstrip("}") not in SCALES):
            break
        word = words.pop(0).rstrip("}")
        factor *= SCALES.get(word, 1)
    if factor == 1:
        return "", phrase
    rest = " ".join(words)
    if rest.count("{") < rest.count("}"):  # The word stood inside \text{...}.
        rest = rf"\text{{{rest}"
    return rf"({amount}) \cdot {factor}", "" if rest in ("}", "\\text{}", "\\text{}}") else rest


def _unit(phrase: str, amount: str, *, is_apart: bool) -> Unit | None:
    """The unit that a phrase names; None if it may be something else."""
    is_text = "\\text" in phrase
    plain = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", phrase).replace("\\cdot", " ")
    words = [token["word"].strip(".") for token in _TOKEN.finditer(plain) if token["word"]]
    if any(word.casefold() in REFUSED and word not in SYMBOLS for word in words):
        return None
    if is_text and re.match("[A-Za-z](?![A-Za-z])", phrase) and not is_apart:
        return None  # In "6m \\text{ cm}", the first letter is a variable.
    if not is_text:
        letters = [word for word in words if len(word) == 1 and word.isalpha()]
        is_unit = _is_letter_unit(plain, amount) if letters == words else all(map(_is_word, words))
        if not is_unit or not (is_apart or all(map(_is_symbol, words))):
            return None
        if len(words) == 1 and letters and not is_apart:
            return None  # "6m" is a product.
    return _parsed(plain)


def _is_letter_unit(plain: str, amount: str) -> bool:
    """Whether single letters without any mark are a unit, and no product of variables.

    A letter next to a number is a unit if a space is between them: ``5 m``. Several are if they make a quotient of
    units: ``10 m/s``.
    """
    phrase = re.sub(r"[\s{}]", "", plain)
    if "/" in phrase or "-" in phrase:
        return all(letter in SYMBOLS for letter in re.findall("[A-Za-z]", phrase))
    return phrase in SINGLE and value(amount) is not None


def _is_symbol(word: str) -> bool:
    return word in SYMBOLS or word.casefold() in COMPOUNDS or _singular(word.casefold()) in WORDS


def _is_word(word: str) -> bool:
    """Whether letters are a symbol, or a word of a language; else they are a product of variables."""
    if _is_symbol(word) or word.casefold() in FILLERS or word.casefold() in EXPONENTS or word.casefold() == "per":
        return True
    return all(_is_pronounced(part) for part in re.split("[-'.]s?", word.casefold()) if part)


def _is_pronounced(letters: str) -> bool:
    follows = all(ord(right) - ord(left) == 1 for left, right in pairwise(letters))  # As in "xyz".
    return len(letters) >= 3 and not follows and bool(re.search("[aeiouy]", letters))


def _parsed(plain: str) -> Unit | None:
    powers: Counter[str] = Counter()
    nouns: set[tuple[str, int]] = set()
    sign, exponent, last = 1, 1, dict[str, int]()
    for token in _TOKEN.finditer(re.sub(r"^\s*in (?=\s*[A-Za-z])", "", plain)):  # As in "(in cm)".
        if token["power"]:
            power = int(re.sub(r"[^-\d]", "", token["power"]))
            _add(powers, last, power - 1)
        elif token["slash"] or (token["word"] and token["word"].casefold() == "per"):
            sign = -1
        elif token["word"]:
            word = token["word"].strip(".").replace(".", "") or token["word"]
            if word.casefold() in FILLERS:
                continue
            if factor := EXPONENTS.get(word.casefold()):
                if last and word.endswith("ed"):
                    _add(powers, last, factor - 1)
                else:
                    exponent = factor
                continue
            table = _powers(word)
            if table is None:
                if len(word) == 1:
                    return None
                nouns.add((_singular(word.casefold()), sign))
                continue
            last = {name: sign * exponent * power for name, power in table.items()}
            _add(powers, last, 1)
            sign, exponent = 1, 1
    if "deg" in powers and powers.keys() & {"°C", "°F"}:
        del powers["deg"]
    kept = frozenset((name, power) for name, power in powers.items() if power)
    return Unit(kept, frozenset(nouns)) if kept or nouns else None


def _powers(word: str) -> Mapping[str, int] | None:
    if word.casefold() in COMPOUNDS:
        return COMPOUNDS[word.casefold()]
    symbol = SYMBOLS.get(word) or WORDS.get(word.casefold()) or WORDS.get(_singular(word.casefold()))
    return {symbol: 1} if symbol else None


def _singular(word: str) -> str:
    if word in WORDS or len(word) < 4 or word.endswith("ss"):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ses", "xes", "zes", "ches", "shes")):
        return word[:-2]
    return word.removesuffix("s")


def _add(powers: Counter[str], table: Mapping[str, int], times: int) -> None:
    for name, power in table.items():
        powers[name] += times * power


def _times(table: Mapping[str, int], unit: Unit) -> Unit:
    powers = Counter(dict(unit.powers))
    _add(powers, table, 1)
    return Unit(frozenset((name, power) for name, power in powers.items() if power), unit.nouns)


def _without_marks(text: str) -> str:
    """Text without the marks of degrees and currencies that stand inside a formula."""
    return re.sub("[°$€£¥₹¢]", "", text).strip()
