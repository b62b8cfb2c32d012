"""The KV cache of one sequence, whichever library computes it."""

import abc
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from arbitrage.engines.worker import Cancelled

Rows = Any
"""Logits of shape [positions, vocabulary], a tensor or an array; a row is reached by its index."""


class Branches(Protocol):
    """Continuations of one sequence, computed side by side."""

    def logits(self, tokens: Sequence[int]) -> Rows:
        """Append one token to each branch; a row for each."""

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other branches."""

    def close(self) -> None:
        """Release the memory that they hold."""


class CachedTokens(abc.ABC):
    """Token ids of one sequence with their KV cache; the next sequence reuses the longest common prefix.

    The cache holds the first ``_num_computed`` of the ids. These are all of them, except after a crop that the library
    cannot do (a window that has slid, a recurrent state): then the cache is emptied, the ids stay, and the next forward
    pass computes the missing ones together with its own.
    """

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._num_computed = 0
        self._rows: Rows | None = None
        """Logits behind the last tokens, kept so that they need not be computed again."""

    def __len__(self) -> int:
        return len(self._ids)

    def reuse(self, ids: Sequence[int], num_last: int = 1) -> int:
        """Crop the cache to the prefix that it shares with ``ids``, and further where logits would be missing.

        Args:
            ids: The next sequence.
            num_last: For how many of its last positions logits are needed.

        Returns:
            How many tokens of ``ids`` are in the cache; the caller computes the others, and bills them.
        """
        self.crop(common_length(self._ids, ids))
        first_row = len(self) - (0 if self._rows is None else len(self._rows))
        if first_row > len(ids) - num_last:
            self.crop(len(ids) - num_last)
        if self._num_computed < len(self):
            self.close()
        return len(self)

    def rows_behind(self, ids: Sequence[int], num_last: int) -> Rows | None:
        """Logits behind the last tokens of ``ids`` if all of them are kept; computes nothing.

        Returns:
            Shape [num_last, vocabulary]; None if one is missing or ``num_last`` is 0.
        """
        if self._rows is None or num_last < 1 or self._ids[: len(ids)] != list(ids):
            return None
        end = len(self._rows) - (len(self) - len(ids))
        return self._rows[end - num_last : end] if end >= num_last else None

    def tokens_behind(self, ids: Sequence[int]) -> list[int]:
        """The sequence's tokens behind the prefix ``ids``; empty if it has another prefix."""
        return self._ids[len(ids) :] if self._ids[: len(ids)] == list(ids) else []

    def crop(self, length: int) -> None:
        """Forget all tokens from position ``length`` on."""
        surplus = len(self._ids) - length
        if surplus <= 0:
            return
        if self._num_computed > length:
            self._num_computed = length if self._shorten(length) else 0
        del self._ids[length:]
        self._rows = self._rows[:-surplus] if self._rows is not None and surplus < len(self._rows) else None

    def logits(self, ids: Sequence[int], num_last: int = 1) -> Rows:
        """Append tokens to a language model's sequence.

        Args:
            ids: The tokens; none if the logits of all positions are kept already.
            num_last: For how many of the last positions logits are needed; :meth:`reuse` ensures that those of
                positions before ``ids`` are kept.

        Returns:
            Logits of the last positions, shape [num_last, vocabulary].
        """
        rows, num_kept = self._rows, num_last - len(ids)
        if ids:
            fresh = self._compute(ids, min(num_last, len(ids)))
            rows = fresh if rows is None or num_kept <= 0 else self.joined(rows[-num_kept:], fresh)
        assert rows is not None
        self._rows = rows[-num_last:]
        return self._rows

    def branches(self, count: int) -> Branches:
        """Copies side by side, to be continued without changing the sequence."""
        if self._num_computed < len(self):
            self._compute([], 1)
        return self._branches(count)

    def close(self) -> None:
        """Forget all tokens and release the memory."""
        self._ids.clear()
        self._num_computed, self._rows = 0, None

    @contextlib.contextmanager
    def _appending(self, ids: Sequence[int]) -> Iterator[list[int]]:
        """Append ``ids``; yields all tokens that the cache lacks, for the caller to compute.

        A cancelled call keeps the tokens that it added to ``_num_computed``. After any other error the content of the
        cache is unknown, so the sequence is emptied.
        """
        self._rows = None
        self._ids.extend(ids)
        try:
            yield self._ids[self._num_computed :]
        except Cancelled:
            del self._ids[self._num_computed :]
            raise
        except BaseException:
            self.close()
            raise
        self._num_computed = len(self._ids)

    @abc.abstractmethod
    def _shorten(self, length: int) -> bool:
        """Drop the cache from position ``length`` on; False if it cannot be shortened, and was emptied."""

    @abc.abstractmethod
    def _compute(self, ids: Sequence[int], num_last: int) -> Rows:
        """Append tokens, with those that the cache lacks; logits of the last ``num_last`` positions."""

    @abc.abstractmethod
    def joined(self, first: Rows, second: Rows) -> Rows:
        """Logits of some positions below those of others."""

    @abc.abstractmethod
    def _branches(self, count: int) -> Branches:
        """See :meth:`branches`; the cache holds all ids."""

    @abc.abstractmethod
    def look_ahead(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Append tokens for the last one's state; the logits behind it are kept for the next token.

        Returns:
            Last layer's state at the last position.
        """


def common_length(first: Sequence[object], second: Sequence[object]) -> int:
    """Length of the longest common prefix."""
    limit = min(len(first), len(second))
    return next((i for i in range(limit) if first[i] != second[i]), limit)
