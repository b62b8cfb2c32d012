"""From text to token ids so that only a template writes control tokens.

Tokenizers read a special token wherever its spelling stands: a question that holds ``<|im_end|>`` would end the user's
turn. Here a text is split into the parts that a template wrote, whose control tokens count, and all others, whose
characters count. The ids of a text that spells no control token are those of the tokenizer's own ``encode``.
"""

import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from arbitrage.core.errors import ProblemError, first_line

_LOOKS_SPECIAL: Final = re.compile(
    r"<\|.*\|>|<\uff5c.*\uff5c>|<unused_?\d+>|<(start|end)_of_\w+>|</?(s|bos|eos|pad|unk|mask)>|<2mass>|\[@BOS@\]", re.S
)
"""Control tokens that some published tokenizers do not mark as special; after llama.cpp's converter."""
_THINKING: Final = re.compile(r"</?think(ing)?>")
"""Tokens in templates that models write in their answers: a step that holds one keeps it."""
_BYTE: Final = re.compile(r"<0x[0-9A-F]{2}>")
"""Tokens that stand for one byte of a character that has no token; they come from text."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A part of a template, in which the spelling of a control token is that token."""

    text: str


Piece = str | int
"""A text, or the id of a control token."""


@runtime_checkable
class KnowsText(Protocol):
    """A tokenizer that can encode a text without reading control tokens in it."""

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """Ids by spelling."""

    def encode_as_text(self, text: str) -> list[int]:
        """Ids of a text, none of them a control token's."""


def text_ids(tokenizer: Any, text: str, *, marks: Collection[str] = ()) -> list[int]:
    """Encode a text as text, without begin- or end-of-sequence.

    Args:
        tokenizer: Of transformers, or one that :class:`KnowsText`.
        text: Any text.
        marks: Spellings of further tokens that must not come from the text.

    Raises:
        ProblemError: If the tokenizer cannot encode it.
    """
    return part_ids(tokenizer, [text], marks=marks)


def part_ids(
    tokenizer: Any, parts: Sequence[str | Mark], *, marks: Collection[str] = (), add_special_tokens: bool = False
) -> list[int]:
    """Encode texts and parts of a template as one text.

    Args:
        tokenizer: See :func:`text_ids`.
        parts: In order; only those of the template may hold control tokens.
        marks: See :func:`text_ids`.
        add_special_tokens: Whether to add begin- and end-of-sequence as the tokenizer does.

    Raises:
        ProblemError: If the tokenizer cannot encode them.
    """
    encoder = encoder_of(tokenizer, marks)
    if all(encoder.is_plain(part) for part in parts if isinstance(part, str)):
        joined = "".join(part.text if isinstance(part, Mark) else part for part in parts)
        return encoded(tokenizer, joined, add_special_tokens=add_special_tokens)
    pieces = [piece for part in parts for piece in (encoder.split(part.text) if isinstance(part, Mark) else [part])]
    ids = encoder.encode(tokenizer, pieces)
    begin, end = _around(tokenizer) if add_special_tokens else ([], [])
    return [*begin, *ids, *end]


def encoded(tokenizer: Any, text: str, *, add_special_tokens: bool = False) -> list[int]:
    """Encode a text by the tokenizer's own ``encode``, control tokens included.

    Raises:
        ProblemError: If it cannot encode the text; with the library's first line.
    """
    try:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=add_special_tokens)
    except Exception as error:  # Each library raises errors of its own kinds.
        raise _unencodable(tokenizer, text, error) from error
    return ids


def _unencodable(tokenizer: Any, text: str, error: Exception) -> ProblemError:
    try:
        text.encode()
    except UnicodeEncodeError as surrogate:  # For a lone surrogate, tokenizers report only that the input must be text.
        error = surrogate
    return ProblemError(
        f"the tokenizer {tokenizer.name_or_path!r} cannot encode a text: {first_line(error)}",
        hint="remove the character from the problem" if isinstance(error, UnicodeEncodeError) else "",
    )


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer adds before and after a text."""
    bare, with_special = (encoded(tokenizer, "x", add_special_tokens=adds) for adds in (False, True))
    start = next(i for i in range(len(with_special)) if with_special[i : i + len(bare)] == bare)
    return with_special[:start], with_special[start + len(bare) :]


class Encoder:
    """Encodes pieces by one tokenizer: texts as text, control tokens by their ids."""

    def __init__(self, control_tokens: Mapping[str, int]) -> None:
        """Prepare for a tokenizer, which is not kept.

        Args:
            control_tokens: Ids by spelling.
        """
        self.control_tokens = control_tokens
        self._never = frozenset(id for text, id in control_tokens.items() if not _BYTE.fullmatch(text))
        self._firsts = {spelling[0] for spelling in control_tokens}
        self._heads = {spelling[:end] for spelling in control_tokens for end in range(1, len(spelling))}
        self._tails = {spelling[start:] for spelling in control_tokens for start in range(1, len(spelling))}
        self._longest = max(map(len, control_tokens), default=0)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """Any control token, the longest first; compiled at first use, since some vocabularies have thousands."""
        spellings = sorted(self.control_tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, spellings)) or "(?!)")

    def is_plain(self, text: str) -> bool:
        """Whether a text spells no control token, nor could together with a template around it."""
        if any(first in text for first in self._firsts) and self._pattern.search(text):
            return False
        inner = text.strip()  # Templates may trim.
        lengths = range(1, self._longest)
        return not any(inner[-length:] in self._heads or inner[:length] in self._tails for length in lengths)

    def split(self, text: str) -> list[Piece]:
        """Find the control tokens in the text of a template."""
        pieces: list[Piece] = []
        end = 0
        for match in self._pattern.finditer(text):
            pieces += [text[end : match.start()], self.control_tokens[match[0]]]
            end = match.end()
        return [*pieces, text[end:]]

    def encode(self, tokenizer: Any, pieces: Sequence[Piece]) -> list[int]:
        """Ids of pieces as if they were one text.

        Raises:
            ProblemError: If the tokenizer cannot encode one.
        """
        ids: list[int] = []
        text = ""
        for piece in pieces:
            if isinstance(piece, str):
                text += piece
            else:
                ids += [*self._of_text(tokenizer, text), piece]
                text = ""
        return [*ids, *self._of_text(tokenizer, text)]

    def _of_text(self, tokenizer: Any, text: str) -> list[int]:
        if not text:
            return []
        try:
            if isinstance(tokenizer, KnowsText):
                return tokenizer.encode_as_text(text)
            ids: list[int] = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        except Exception as error:  # Each library raises errors of its own kinds.
            raise _unencodable(tokenizer, text, error) from error
        return spelt_out(tokenizer, ids, self._never)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copy:
    """A tokenizer with other names for its control tokens."""

    secret: str
    """A part of all these names."""
    tokenizer: Any
    """Of the library tokenizers."""
    names: Mapping[int, str]
    """By id of the tokenizer that was copied."""
    ids: Mapping[int, int]
    """That tokenizer's ids by those of the copy, for added tokens; the vocabulary has the same in both."""


class _Twin(Encoder):
    """Encodes by a copy of the tokenizer in which control tokens have random names, which no text contains.

    The copy shares the vocabulary and runs the same pipeline, so that the ids are those that the tokenizer itself would
    give if a text could not spell its control tokens.
    """

    def __init__(self, backend: Any, control_tokens: Mapping[str, int]) -> None:
        """Copy a tokenizer.

        Args:
            backend: Of the library tokenizers.
            control_tokens: Ids by spelling.
        """
        super().__init__(control_tokens)
        self._backend = backend
        self._copy: _Copy | None = None
        """Made at first use, and anew where a text holds its secret; several threads may encode."""

    def _new_copy(self) -> "_Copy":
        from tokenizers import AddedToken, Tokenizer

        secret = secrets.token_hex(8)
        copy = Tokenizer(self._backend.model)
        for part in ("normalizer", "pre_tokenizer"):
            if (value := getattr(self._backend, part)) is not None:
                setattr(copy, part, value)
        added = sorted(self._backend.get_added_tokens_decoder().items())
        new_names = {id: f"q{secret}n{id}q" for id, token in added if token.content in self.control_tokens}
        names = [new_names.get(id, token.content) for id, token in added]
        # Ids of added tokens begin at the vocabulary's size; where its ids have gaps, they would meet the last ones.
        vocabulary = self._backend.get_vocab(with_added_tokens=False)
        num_gaps = max(vocabulary.values(), default=-1) + 1 - len(vocabulary)
        copy.add_tokens([f"q{secret}g{gap}q" for gap in range(num_gaps)])
        flags = ("special", "single_word", "lstrip", "rstrip", "normalized")
        copy.add_tokens(
            [
                AddedToken(name, **{flag: getattr(token, flag) for flag in flags})
                for name, (_, token) in zip(names, added, strict=True)
            ]
        )
        of_copy = ((copy.token_to_id(name), id) for name, (id, _) in zip(names, added, strict=True))
        ids = {token: id for token, id in of_copy if token is not None}
        return _Copy(secret=secret, tokenizer=copy, names=new_names, ids=ids)

    def encode(self, tokenizer: Any, pieces: Sequence[Piece]) -> list[int]:
        """See :meth:`Encoder.encode`."""
        copy = self._copy  # Another thread may make a new one meanwhile.
        while copy is None or any(isinstance(piece, str) and copy.secret in piece for piece in pieces):
            self._copy = copy = self._new_copy()
        text = "".join(piece if isinstance(piece, str) else copy.names[piece] for piece in pieces)
        try:
            copied = copy.tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:
            raise _unencodable(tokenizer, "".join(map(str, pieces)), error) from error
        ids: list[int] = []
        for id in copied:
            if id in copy.ids:
                ids.append(copy.ids[id])
            else:  # The vocabulary itself may hold a control token that merges of its characters lead to.
                ids += spelt_out(tokenizer, [id], self._never)
        return ids


def spelt_out(tokenizer: Any, ids: Sequence[int], never: Collection[int]) -> list[int]:
    """Replace tokens by their characters, each a token of its own, or its bytes where it has none.

    Args:
        tokenizer: Of transformers.
        ids: Of a text.
        never: Which tokens are replaced; the unknown token stays.
    """
    unknown, spelt = tokenizer.unk_token_id, list[int]()
    for id in ids:
        if id not in never or id == unknown:
            spelt.append(id)
            continue
        for character in tokenizer.convert_ids_to_tokens(id):
            token = tokenizer.convert_tokens_to_ids(character)
            if token in (None, unknown):
                spelt += tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in character.encode()])
            else:
                spelt.append(token)
    return spelt


_encoders: "WeakKeyDictionary[Any, dict[tuple[str, ...], Encoder]]" = WeakKeyDictionary()


def encoder_of(tokenizer: Any, marks: Collection[str] = ()) -> Encoder:
    """The encoder of a tokenizer, made at first use.

    Args:
        tokenizer: See :func:`text_ids`.
        marks: See :func:`text_ids`.
    """
    encoders, key = _encoders.setdefault(tokenizer, {}), tuple(sorted(marks))
    if key not in encoders:
        control_tokens, backend = _control_tokens(tokenizer, key), getattr(tokenizer, "backend_tokenizer", None)
        encoders[key] = Encoder(control_tokens) if backend is None else _Twin(backend, control_tokens)
    return encoders[key]


def _control_tokens(tokenizer: Any, marks: Collection[str]) -> dict[str, int]:
    if isinstance(tokenizer, KnowsText):
        return dict(tokenizer.control_tokens)
    template = str(tokenizer.chat_template or "")
    special = set(tokenizer.all_special_tokens)
    return {
        token.content: id
        for id, token in tokenizer.added_tokens_decoder.items()
        if token.special or token.content in special or token.content in marks or is_control(token.content, template)
    }


def is_control(spelling: str, template: str) -> bool:
    """Whether a token is a control token of conversations although its vocabulary does not mark it as special.

    Args:
        spelling: Of the token.
        template: The chat template; a token in brackets that it spells is one.
    """
    if _LOOKS_SPECIAL.fullmatch(spelling):
        return True
    is_bracketed = spelling[:1] + spelling[-1:] in ("<>", "[]")
    return is_bracketed and spelling in template and not _THINKING.fullmatch(spelling)
