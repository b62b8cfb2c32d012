"""The text of a step while its tokens are written, for a watcher on the event loop."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from arbitrage.core.types import Candidate
from arbitrage.engines.decoder import Writing
from arbitrage.engines.tokens import CONTEXT_IDS, TokenText

_HALF: Final = "\ufffd"
"""What a part of a character is decoded to."""

INTERVAL_S: float = 0.02
"""Parts are at least so far apart: each one wakes the event loop, which then competes with the thread that writes."""


@dataclass(slots=True)
class TextParts:
    """Decodes new tokens as soon as they make whole characters. It is used on the thread that writes."""

    text: TokenText
    """Decodes tokens."""
    send: Callable[[str], object]
    """Gets each part."""
    has_beginning: bool = False
    """Whether the step begins with another one's tokens, whose text is then a part of its own."""
    _num_sent: int = field(default=0, init=False)
    """Tokens that were sent."""
    _sent: str = field(default="", init=False)
    _sent_at: float = field(default=0.0, init=False)

    @classmethod
    def on_loop(cls, text: TokenText, on_text: Callable[[str], None], *, has_beginning: bool) -> "TextParts":
        """Parts that reach ``on_text`` on the running event loop, in order."""
        loop = asyncio.get_running_loop()
        return cls(text, lambda part: loop.call_soon_threadsafe(on_text, part), has_beginning)

    def add(self, step: Writing) -> None:
        """Send what the new tokens say, unless they end inside a character or the last part was sent just now."""
        if self.has_beginning:
            self._begin(self.text.decode(step.new[: step.num_taken], step.prefix))
            self._num_sent = step.num_taken
        now = time.monotonic()
        if now - self._sent_at < INTERVAL_S:
            return
        start = self._num_sent
        part = self.text.decode(step.new[start:], [*step.prefix[-CONTEXT_IDS:], *step.new[:start]])
        if part and not part.endswith(_HALF):
            self._num_sent, self._sent_at = len(step.new), now
            self._send(part)

    def end(self, written: Candidate) -> None:
        """Send the rest of the step's text, such as a character that the model never completed."""
        whole = written.text
        if self.has_beginning:
            self._begin(whole[: written.num_taken_chars])
        if whole.startswith(self._sent) and len(whole) > len(self._sent):
            self._send(whole[len(self._sent) :])

    def _begin(self, beginning: str) -> None:
        self.has_beginning = False
        self._send(beginning)

    def _send(self, part: str) -> None:
        self._sent += part
        self.send(part)
