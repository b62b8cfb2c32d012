"""The thinking of a reasoning model apart from its answer, in text that arrives in parts."""

from collections.abc import Mapping
from typing import Final

from arbitrage.core.types import Source
from arbitrage.serving.stops import Part, Pending, num_undecided

MARKS: Final[Mapping[str, str]] = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<thoughts>": "</thoughts>",
    "<reasoning>": "</reasoning>",
    "<reflection>": "</reflection>",
    "<scratchpad>": "</scratchpad>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "◁think▷": "◁/think▷",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|START_THINKING|>": "<|END_THINKING|>",
}
"""What begins thinking, with what ends it."""


def open_mark(text: str) -> str:
    """The mark of thinking that a text leaves open at its very end, such as a template's beginning of an answer.

    Returns:
        The opening mark; empty where there is none.
    """
    stripped = text.rstrip()
    return next((mark for mark in MARKS if stripped.endswith(mark)), "")


def continued_mark(prefix: str) -> str:
    """The mark of thinking that the beginning of an answer leaves open.

    Returns:
        The opening mark; empty where none is open.
    """
    start = prefix.lstrip()
    return next((mark for mark, end in MARKS.items() if start.startswith(mark) and end not in start), "")


class Splitter:
    """Splits an answer into one contiguous phase of thinking, if it begins with one, and the rest.

    The marks themselves belong to neither. A mark behind the phase is text like any other.
    """

    def __init__(self, mark: str = "", *, has_begun: bool = False) -> None:
        """Begin.

        Args:
            mark: The opening mark that stands in the prompt already; empty for none.
            has_begun: Whether the answer began in the prompt, so that no mark may open thinking now.
        """
        self._pending = Pending()
        self._end = MARKS[mark] if mark else ""
        self._is_open = not mark and not has_begun
        """Whether it is still open if there will be thinking."""
        self.num_thinking = 0
        """Characters up to the end of the thinking, marks included."""

    @property
    def is_thinking(self) -> bool:
        """Whether the text so far ends inside thinking."""
        return bool(self._end)

    def write(self, author: Source, text: str) -> tuple[list[Part], list[Part]]:
        """Add text; returns what is thinking and what is not."""
        self._pending.add(author, text)
        if self._is_open:
            self._begin()
        if self._is_open:
            return [], []
        thinking = self._think() if self._end else []
        return thinking, [] if self._end else self._rest()

    def close(self) -> tuple[list[Part], list[Part]]:
        """The text is complete: returns what was held back."""
        rest = self._rest()
        if not self._end:
            return [], rest
        self.num_thinking += sum(len(text) for _, text in rest)
        return rest, []

    def _begin(self) -> None:
        waiting = self._pending.text
        start = waiting.lstrip()
        for mark, end in MARKS.items():
            if start.startswith(mark):
                self._end, self._is_open = end, False
                self._skip(len(waiting) - len(start) + len(mark))
                return
        self._is_open = not start or any(mark.startswith(start) for mark in MARKS)

    def _think(self) -> list[Part]:
        waiting, end = self._pending.text, self._end
        position = waiting.find(end)
        length = position if position >= 0 else len(waiting) - num_undecided(waiting, (end,))
        thinking = self._pending.take(length)
        self.num_thinking += length
        if position >= 0:
            self._skip(len(end))
            self._end = ""
        return thinking

    def _skip(self, length: int) -> None:
        self._pending.take(length)
        self.num_thinking += length

    def _rest(self) -> list[Part]:
        return self._pending.take(len(self._pending.text))
