"""The text of one answer while it is written: what a client gets, part by part."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from arbitrage.core.types import Source
from arbitrage.serving.stops import Part, StopFinder
from arbitrage.serving.thinking import Splitter


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A part of an answer."""

    text: str
    author: Source
    is_thinking: bool = False


class AnswerText:
    """Turns written text into deltas: thinking apart, stop strings cut. Joined deltas are the texts that it holds."""

    def __init__(self, splitter: Splitter, stops: Sequence[str] = ()) -> None:
        """Begin an answer.

        Args:
            splitter: Knows whether the prompt has opened thinking.
            stops: Strings that end the answer; inside thinking they do not.
        """
        self._splitter, self._stops = splitter, StopFinder(stops)
        self._num_written = 0
        self._thinking: list[str] = []
        self._content: list[str] = []

    @property
    def thinking(self) -> str:
        """The thinking so far."""
        return "".join(self._thinking)

    @property
    def content(self) -> str:
        """The answer proper so far."""
        return "".join(self._content)

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was written: nothing follows."""
        return self._stops.is_stopped

    @property
    def num_written(self) -> int:
        """Characters that were written, those held back or cut off included."""
        return self._num_written

    @property
    def num_thinking(self) -> int:
        """Characters up to the end of the thinking, marks included."""
        return self._splitter.num_thinking

    def write(self, author: Source, text: str) -> list[Delta]:
        """Add text; returns what can be shown."""
        self._num_written += len(text)
        return self._deltas(*self._splitter.write(author, text))

    def close(self) -> list[Delta]:
        """The answer is complete: returns what was held back."""
        deltas = self._deltas(*self._splitter.close())
        rest = self._stops.close()
        self._content += [text for _, text in rest]
        return deltas + _merged(rest, is_thinking=False)

    def _deltas(self, thinking: list[Part], rest: list[Part]) -> list[Delta]:
        content = [part for author, text in rest for part in self._stops.write(author, text)]
        self._thinking += [text for _, text in thinking]
        self._content += [text for _, text in content]
        return _merged(thinking, is_thinking=True) + _merged(content, is_thinking=False)


def _merged(parts: Iterable[Part], *, is_thinking: bool) -> list[Delta]:
    groups = groupby(parts, key=lambda part: part[0])
    texts = ((author, "".join(text for _, text in group)) for author, group in groups)
    return [Delta(text=text, author=author, is_thinking=is_thinking) for author, text in texts if text]


def num_tokens_within(num_characters: int, parts: Iterable[tuple[int, int]]) -> int:
    """Tokens in the first characters of an answer.

    Args:
        num_characters: How many characters.
        parts: Tokens and characters of each part of the answer, in order; of the part that is cut its share counts.
    """
    count = 0.0
    for num_tokens, length in parts:
        if num_characters <= 0:
            break
        count += num_tokens * (min(1.0, num_characters / length) if length else 1.0)
        num_characters -= length
    return round(count)
