r"""The answer of a text: the content of its last box, ``\boxed{4}``."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

_COMMAND: Final = r"(?<!\\)\\+(?:boxed|fbox|framebox)(?![A-Za-z])\s*"
_OPENINGS: Final = rf"(?P<box>{_COMMAND}\{{)|(?P<bare>{_COMMAND}\$?(?=[^\s{{$]))"
_TOKEN: Final = re.compile(rf"{_OPENINGS}|\\.|[{{}}]", re.DOTALL)
_UNESCAPED: Final = re.compile(rf"{_OPENINGS}|[{{}}]")
_BARE: Final = re.compile(
    r"(?=[-+.(]*\d|[-+(]*\\|[-+(]*[A-Za-z](?![A-Za-z]))"  # "\boxed notation" is prose about boxes.
    r"(?:\{(?:[^{}]|\{[^{}]*\})*\}|\\[A-Za-z]+|\\[{}%,!;]|[^\s${}\\])+"
)
_INVISIBLE: Final = re.compile(r"\s|~|\$|\\[,;:! ]|\\q?quad|\\text\s*\{\s*\}|\{\s*\}")
_MARK: Final = re.compile(
    r"<(?P<tag>/?)(?:seed:)?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad)>"
    r"|◁(?P<kimi>/?)think▷|\[(?P<magistral>/?)THINK\]"
    r"|<\|(?:(?P<end>end_of_thought|END_THINKING)|begin_of_thought|START_THINKING)\|>"
    r"|<\|channel\|>(?:analysis|(?P<channel>final))",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A box in a text."""

    start: int
    """Index of its backslash."""
    content: str
    is_in_thinking: bool
    """Whether it stands inside thinking marks, such as ``<think>`` and ``</think>``."""

    @property
    def is_empty(self) -> bool:
        """Whether it shows nothing."""
        return not _INVISIBLE.sub("", self.content)

    @property
    def is_answer(self) -> bool:
        """Whether it shows something outside of thinking marks."""
        return not self.is_empty and not self.is_in_thinking


def last_box(text: str) -> Box | None:
    r"""Find the box that holds the answer of a text.

    Boxes are ``\boxed{4}``, ``\fbox{4}`` and ``\framebox{4}``; TeX also reads ``\boxed {4}`` and ``\boxed 4``. The last
    box counts, with two exceptions: an empty box counts only if no other box holds anything, and a box inside thinking
    marks counts only if no box outside of them holds anything.

    Returns:
        None if no box is closed.
    """
    # A brace behind a backslash opens and closes nothing, unless no box would be closed then: models slip.
    boxes = list(_boxes(text, _TOKEN)) or list(_boxes(text, _UNESCAPED))
    return max(boxes, key=lambda box: (not box.is_empty, not box.is_in_thinking, box.start), default=None)


def last_boxed(text: str) -> str | None:
    """Find what the box that holds the answer contains; None without a closed box. See :func:`last_box`."""
    box = last_box(text)
    return None if box is None else box.content


def _boxes(text: str, tokens: re.Pattern[str]) -> Iterator[Box]:
    """All closed boxes, inner before outer."""
    thinking = _thinking(text)
    openings: list[tuple[int, int] | None] = []
    """Of each open brace: where its box and the box's content start; None for a brace that opens no box."""

    def box(start: int, content: str) -> Box:
        return Box(start=start, content=content, is_in_thinking=any(start in span for span in thinking))

    for token in tokens.finditer(text):
        if token["box"]:
            openings.append((token.start(), token.end()))
        elif token["bare"]:
            content = _BARE.match(text, token.end())
            if content and (stripped := content[0].rstrip(".,;:")):
                yield box(token.start(), stripped)
        elif token[0] == "{":
            openings.append(None)
        elif token[0] == "}" and openings and (opening := openings.pop()):
            yield box(opening[0], text[opening[1] : token.start()])


def _thinking(text: str) -> list[range]:
    """The spans of a text that stand inside thinking marks.

    A closing mark without an opening one ends a span that began with the text: some chat templates write the opening
    mark into the prompt. A span without a closing mark goes to the end.
    """
    marks = [(mark.start(), any(mark.groups())) for mark in _MARK.finditer(text)]
    if not marks:
        return []
    spans = [range(marks[0][0])] if marks[0][1] else []
    ends = [*marks, (len(text), True)]
    return spans + [range(start, end) for (start, closes), (end, _) in pairwise(ends) if not closes]
