"""Whether two models have the same tokens, by their tokenizers, whichever library each is of.

The sizes of the models' embeddings say nothing about it: they are padded, and models of one family are padded
differently. GGUF files name the padding as tokens of their own.
"""

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, Final, Protocol, runtime_checkable

_BLOCK: Final = "\u2581"
"""Stands for a space in tokens of SentencePiece."""


@runtime_checkable
class HasTokenBytes(Protocol):
    """A tokenizer that holds the bytes of its tokens."""

    @property
    def token_bytes(self) -> Mapping[int, bytes]:
        """Bytes of each token by its id, padding left out."""


@lru_cache(maxsize=8)  # Each threshold of a method asks again, and a vocabulary has 150,000 tokens.
def is_same_vocabulary(first: Any, second: Any) -> bool:
    """Whether two tokenizers give the same ids to the same tokens.

    Args:
        first: Of transformers, or one with the bytes of its tokens (:class:`HasTokenBytes`).
        second: Likewise.
    """
    if isinstance(first, HasTokenBytes) or isinstance(second, HasTokenBytes):
        return _with_spaces(token_bytes(first)) == _with_spaces(token_bytes(second))
    return bool(first.get_vocab() == second.get_vocab())


def token_bytes(tokenizer: Any) -> dict[int, bytes]:
    """Bytes of each token in a text, by its id; a control token's are its spelling.

    Args:
        tokenizer: See :func:`is_same_vocabulary`.
    """
    if isinstance(tokenizer, HasTokenBytes):
        return dict(tokenizer.token_bytes)
    tokens: dict[str, int] = tokenizer.get_vocab()
    is_byte_level = sum(token.startswith("Ġ") - token.startswith(_BLOCK) for token in tokens) > 0
    spell = _byte_level if is_byte_level else _sentence_piece
    spelt = {id: spell(token) for token, id in tokens.items()}
    return spelt | {id: token.content.encode() for id, token in tokenizer.added_tokens_decoder.items() if id in spelt}


def _with_spaces(tokens: Mapping[int, bytes]) -> dict[int, bytes]:
    """Tokens with spaces in place of blocks: converters to GGUF write those of some added tokens as spaces."""
    return {id: token.replace(_BLOCK.encode(), b" ") for id, token in tokens.items()}


def _byte_level(token: str) -> bytes:
    """Bytes of a token in which each character stands for a byte; a character that stands for none is itself."""
    return b"".join(_bytes_by_character().get(character, character.encode()) for character in token)


def _sentence_piece(token: str) -> bytes:
    """Bytes of a token in which a block stands for a space, and ``<0x0A>`` for a byte."""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes.fromhex(token[3:5])
    return token.replace(_BLOCK, " ").encode()


@cache
def _bytes_by_character() -> dict[str, bytes]:
    """The alphabet of GPT-2's byte-level tokens: printable characters of Latin-1 are themselves, other bytes follow."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): bytes([byte]) for byte in printable}
    return alphabet | {chr(256 + index): bytes([byte]) for index, byte in enumerate(others)}
