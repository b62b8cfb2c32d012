r"""The unit behind a number: ``12 bricks``, ``12 (bricks)``, ``10 m/s``, ``10\text{ m s}^{-1}``, ``\$5``, ``30°``.

Spellings of one unit are the same unit: ``cm^2`` is ``square centimeters``, ``mph`` is ``miles per hour``. Nothing is
converted: a metre is another unit than a centimetre.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
    TOUCHING,
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
        """Whether both can be the same unit; one may say more than the other, as red bricks do about bricks."""
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
_WORD: Final = r"[A-Za-zμΩ][A-Za-z'-]*(?:\.[A-Za-z'-]+)*\.?(?![A-Za-z.'-])"
_ATOM: Final = rf"(?:{_TEXT}|{_WORD}|°\s?(?:\\text\{{)?(?:[CF](?![A-Za-z])\}}?)?|[$€£¥₹¢])"
_TAIL: Final = re.compile(
    rf"\s?(?P<open>\(\s?)?(?P<phrase>/?\s?{_ATOM}(?:{_POWER})?(?:\s?(?:(?:/|\\cdot|\*|,)\s?)?{_ATOM}(?:{_POWER})?)*)"
    r"(?P<close>\s?\))?$"
)
_OVER: Final = re.compile(
    r"\s?\\frac\{(\\text\{[^{}]*\}|[A-Za-z]{1,3})\}\{((?:\\text\{[^{}]*\}|[A-Za-z]{1,3})(?:\^\d|\^\{\d\})?)\}$"
)
_BEFORE: Final = re.compile(r"(?P<currency>[$€£¥₹])\s?|(?:\\text\{\s*)?(?P<code>USD|EUR|GBP|INR|Rs\.?)\s?\}?\s?(?=\d)")
_SCALE: Final = re.compile(rf"(?P<open>\\text\{{\s*)?(?P<scale>{'|'.join(SCALES)})(?![a-z])\s*(?P<close>\}})?\s*")
_TOKEN: Final = re.compile(rf"(?P<power>{_POWER})|(?P<slash>/)|(?P<word>{_WORD}|°[CF]?|[$€£¥₹¢])|\S")
_QUANTITY_END: Final = re.compile(
    r"[\d})\]!|°]$|(?<![\\A-Za-z])[A-Za-z]$|\\(?:pi|rfloor|rceil|alpha|beta|gamma|theta|lambda|mu|phi|omega)$"
)


@lru_cache(maxsize=8192)
def quantity(text: str) -> Quantity:
    """Take a text in canonical spelling apart into an amount and its unit, the unit before or behind it."""
    sign = text[0] if text[:1] in ("-", "+") else ""
    before = _BEFORE.match(text, len(sign))
    if not before or before.end() == len(text):
        split = _split(text)
        return Quantity(_without_marks(split.amount), split.unit, split.is_variable)
    currency = {SYMBOLS[before["currency"] or before["code"].rstrip(".")]: 1}
    behind = _split(sign + text[before.end() :].lstrip())
    powers, nouns = Counter(currency), frozenset[tuple[str, int]]()
    if behind.unit:
        nouns = behind.unit.nouns
        if behind.unit.powers != frozenset(currency.items()):  # "$5 USD" names its unit twice.
            powers.update(dict(behind.unit.powers))
    return Quantity(_without_marks(behind.amount), Unit(_kept(powers), nouns))


def _split(text: str) -> Quantity:
    """Take a text apart into an amount and the unit behind it."""
    spelled = _OVER.sub(r" \1/\2", text)
    for tail in _tails(spelled):
        amount, phrase = spelled[: tail.start()].rstrip(), tail["phrase"]
        if not amount or not _QUANTITY_END.search(amount) or bool(tail["open"]) != bool(tail["close"]):
            continue
        is_apart = len(amount) < tail.start("phrase") or phrase[0] in "/\\°$€£¥₹¢"
        scaled, phrase = _scaled(amount, phrase)
        if not phrase:
            return Quantity(scaled)
        if phrase in SINGLE and tail["open"] and tail[0].startswith(" ") and _is_constant(amount):
            return Quantity(scaled, _parsed(phrase))
        if unit := _unit(phrase, amount, is_apart=is_apart):
            is_variable = not (tail["open"] or "\\text" in phrase or unit.nouns)
            return Quantity(scaled, unit, is_variable and all(len(name) <= 2 for name, _ in unit.powers))
    return Quantity(text)


def _tails(text: str) -> Iterator[re.Match[str]]:
    """Ends of a text that can be a unit, the longest first."""
    start = max(0, len(text) - MAX_LENGTH)
    while tail := _TAIL.search(text, start):
        yield tail
        start = tail.start("phrase") + 1


def _scaled(amount: str, phrase: str) -> tuple[str, str]:
    """The amount times the numerals at the start of a phrase, and the rest of the phrase."""
    factor = 1
    while scale := _SCALE.match(phrase):
        factor *= SCALES[scale["scale"]]
        is_inside = scale["open"] and not scale["close"]
        phrase = ("\\text{" if is_inside else "") + phrase[scale.end() :]
    return (rf"({amount}) \cdot {factor}" if factor > 1 else amount), phrase


def _unit(phrase: str, amount: str, *, is_apart: bool) -> Unit | None:
    """The unit that a phrase names; None if it may be something else."""
    is_text = "\\text" in phrase
    plain = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", phrase).replace("\\cdot", " ")
    words = [token["word"].replace(".", "") for token in _TOKEN.finditer(plain) if token["word"]]
    if any(word.casefold() in REFUSED and word not in SYMBOLS for word in words):
        return None
    if is_text and re.match("[A-Za-z](?![A-Za-z])", phrase) and not is_apart:
        return None  # In "6m \\text{ cm}", the first letter is a variable.
    if not is_text:
        letters = [word for word in words if len(word) == 1 and word.isalpha()]
        is_unit = _is_letter_unit(plain, amount) if letters == words else all(map(_is_word, words))
        if not is_unit or not (is_apart or _may_touch(words)):
            return None
    return _parsed(plain)


def _is_constant(amount: str) -> bool:
    return not re.search(r"(?<![\\A-Za-z])[A-Za-df-z]|\\(?:alpha|beta|theta)", amount)


def _may_touch(words: Sequence[str]) -> bool:
    """Whether words can be a unit right behind a number, without a space: ``10m/s`` can, ``6m`` and ``2am`` cannot."""
    is_quotient = len(words) > 1 and all(len(word) == 1 for word in words)
    return all(map(_is_symbol, words)) and (len(words[0]) > 2 or words[0] in TOUCHING or is_quotient)


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
    """Read a phrase without LaTeX; None if it holds a letter that is no unit."""
    powers, nouns = Counter[str](), set[tuple[str, int]]()
    sign, exponent, last = 1, 1, dict[str, int]()
    for token in _TOKEN.finditer(re.sub(r"^\s*in (?=\s*[A-Za-z])", "", plain)):  # As in "(in cm)".
        word = (token["word"] or "").replace(".", "")
        if token["power"]:
            _add(powers, last, int(re.sub(r"[^-\d]", "", token["power"])) - 1)
        elif token["slash"] or word.casefold() == "per":
            sign = -1
        elif word.casefold() in EXPONENTS and word.endswith("ed") and last:
            _add(powers, last, EXPONENTS[word.casefold()] - 1)
        elif word.casefold() in EXPONENTS:
            exponent = EXPONENTS[word.casefold()]
        elif table := _powers(word):
            last = {name: sign * exponent * power for name, power in table.items()}
            _add(powers, last, 1)
            sign, exponent = 1, 1
        elif len(word) == 1 and word not in FILLERS:
            return None
        elif word and word.casefold() not in FILLERS:
            nouns.add((_singular(word.casefold()), sign))
    if powers.keys() & {"°C", "°F"}:
        del powers["deg"]  # Of "degrees Celsius".
    kept = _kept(powers)
    return Unit(kept, frozenset(nouns)) if kept or nouns else None


def _kept(powers: Mapping[str, int]) -> frozenset[tuple[str, int]]:
    return frozenset((name, power) for name, power in powers.items() if power)


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


def _without_marks(text: str) -> str:
    """Text without the marks of degrees and currencies that stand inside a formula."""
    return re.sub("[°$€£¥₹¢]", "", text).strip()
