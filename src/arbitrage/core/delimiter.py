r"""Where a step ends in a text: the one rule that every engine follows.

The usual delimiter, ``\n\n``, stands for an empty line however it is written: two line feeds with nothing but white
space between them, such as ``\r\n\r\n`` or ``\n \n``. Any other delimiter is taken as it is.
"""

import re
from typing import Final

EMPTY_LINE: Final = "\n\n"
"""The delimiter that stands for any empty line."""
_EMPTY_LINE: Final = re.compile(r"\n[^\S\n]*\n")
_SPELLINGS: Final = (EMPTY_LINE, "\n\r\n", "\n \n", "\n\t\n")
r"""The empty lines that models write most; ``\n\r\n`` ends ``\r\n\r\n`` too."""


def step_end(text: str, delimiter: str) -> int | None:
    """Find where the first step of a text ends.

    Returns:
        The position behind its delimiter; None where the text holds none.
    """
    if delimiter == EMPTY_LINE:
        match = _EMPTY_LINE.search(text)
        return None if match is None else match.end()
    start = text.find(delimiter)
    return None if start < 0 else start + len(delimiter)


def split_steps(text: str, delimiter: str) -> list[str]:
    """Cut a text into its steps.

    Returns:
        Each step with its delimiter, and the text behind the last one, which may be empty; joined they are the text.
    """
    steps, start = list[str](), 0
    for match in (_EMPTY_LINE if delimiter == EMPTY_LINE else re.compile(re.escape(delimiter))).finditer(text):
        steps.append(text[start : match.end()])
        start = match.end()
    return [*steps, text[start:]]


def may_end_step(piece: str, delimiter: str) -> bool:
    """Whether the text of one token can complete a delimiter, perhaps with a part of a character in front of it."""
    return delimiter[-1] in piece or "\ufffd" in piece


def stop_strings(delimiter: str) -> list[str]:
    """The stop strings for a server, at most four, which is the limit of some servers.

    A server continues after an empty line that is written in a rarer way; see :func:`step_end`.
    """
    return list(_SPELLINGS) if delimiter == EMPTY_LINE else [delimiter]
