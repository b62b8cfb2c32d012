"""Between text and ids without drift: shared by the engines that hold a tokenizer of transformers."""

from collections.abc import Sequence
from typing import Any, Final

from arbitrage.core.types import Candidate, Source

_CONTEXT_IDS: Final = 8
"""A step is decoded behind so many ids: some tokenizers write a token otherwise at the start of a text."""


class TokenText:
    """Encodes foreign steps and decodes own ones with one model's tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        """Wrap a tokenizer of transformers."""
        self.tokenizer = tokenizer
        self._token_texts: dict[int, str] = {}

    def decode(self, ids: Sequence[int], context: Sequence[int]) -> str:
        """Text of ``ids`` as it reads behind ``context``."""
        head = list(context[-_CONTEXT_IDS:])
        whole: str = self.tokenizer.decode([*head, *ids], clean_up_tokenization_spaces=False)
        return whole[len(self.tokenizer.decode(head, clean_up_tokenization_spaces=False)) :]

    def encode(self, text: str) -> list[int]:
        """Ids of a foreign step."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def ids_of(self, candidate: Candidate, source: Source) -> Sequence[int]:
        """Ids of a step in the session of ``source``: its own as they were generated, a foreign one's by its text."""
        is_own = candidate.source is source
        return candidate.token_ids if is_own and candidate.token_ids else self.encode(candidate.text)

    def may_complete(self, token: int, delimiter: str) -> bool:
        """Whether a token can be the one that completes the delimiter; spares decoding after each token."""
        if token not in self._token_texts:
            self._token_texts[token] = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        text = self._token_texts[token]
        return delimiter[-1] in text or "\ufffd" in text

    def whole_characters(self, new: list[int], context: Sequence[int]) -> list[int]:
        """Drop tokens at a cut that hold only part of a character: half of one is no text."""
        for length in range(len(new), max(len(new) - 4, -1), -1):
            if not self.decode(new[:length], context).endswith("\ufffd"):
                return new[:length]
        return new
