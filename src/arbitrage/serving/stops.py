"""Stop strings in text that arrives in parts, wherever the parts are cut."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from arbitrage.core.types import Source

Part = tuple[Source, str]
"""A piece of text and its author."""


@dataclass(slots=True)
class Pending:
    """Text that waits until it is clear what it is; each character keeps its author."""

    _parts: list[Part] = field(default_factory=list)
    text: str = ""

    def add(self, author: Source, text: str) -> None:
        """Append text."""
        if text:
            self._parts.append((author, text))
            self.text += text

    def take(self, length: int) -> list[Part]:
        """Remove so many characters from the front."""
        taken = list[Part]()
        self.text = self.text[length:]
        while length > 0 and self._parts:
            author, text = self._parts[0]
            if len(text) <= length:
                taken.append(self._parts.pop(0))
            else:
                taken.append((author, text[:length]))
                self._parts[0] = (author, text[length:])
            length -= len(text)
        return taken


def num_undecided(text: str, words: Sequence[str]) -> int:
    """How many characters at the end of a text may be the beginning of one of some words."""
    longest = max(map(len, words), default=1) - 1
    lengths = range(min(longest, len(text)), 0, -1)
    return next((n for n in lengths if any(len(word) > n and word.startswith(text[-n:]) for word in words)), 0)


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where a text is cut: before the stop string that is complete first, and of several the longest.

    So the cut does not depend on how the text was divided into parts.
    """
    found = [(start + len(stop), start) for stop in stops if (start := text.find(stop)) >= 0]
    return min(found)[1] if found else None


class StopFinder:
    """Passes text on up to the first stop string; holds back only what may begin one."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Look for ``stops``, none of them empty."""
        self._stops, self._pending = tuple(stops), Pending()
        self.is_stopped = False

    def write(self, author: Source, text: str) -> list[Part]:
        """Add text; returns what can be passed on."""
        if self.is_stopped:
            return []
        self._pending.add(author, text)
        waiting = self._pending.text
        end = first_stop(waiting, self._stops)
        self.is_stopped = end is not None
        return self._pending.take(len(waiting) - num_undecided(waiting, self._stops) if end is None else end)

    def close(self) -> list[Part]:
        """The text is complete: returns what was held back."""
        return [] if self.is_stopped else self._pending.take(len(self._pending.text))
