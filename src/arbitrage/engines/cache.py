"""The KV cache of one sequence, whichever library computes it."""

import abc
from collections.abc import Sequence
from typing import Any, Protocol

Rows = Any
"""Logits of shape [positions, vocabulary], a tensor or an array; a row is what indexing gives."""


class Branches(Protocol):
    """Continuations of one sequence, to be written side by side."""

    def logits(self, tokens: Sequence[int]) -> Rows:
        """Append one token to each branch; a row for each."""

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other branches."""

    def close(self) -> None:
        """Release what they hold."""


class CachedTokens(abc.ABC):
    """The KV cache of one sequence; any next sequence reuses the longest common prefix."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._known: Rows | None = None
        """Logits behind the last tokens: what was computed need not be again."""

    def __len__(self) -> int:
        return len(self._ids)

    def reuse(self, ids: Sequence[int], num_last: int = 1) -> int:
        """Crop the cache to what it shares with ``ids``, and further where outputs that are wanted would be missing.

        Args:
            ids: The sequence that is wanted.
            num_last: At how many of its last positions an output is wanted.

        Returns:
            How many tokens of ``ids`` need no computing.
        """
        limit = min(len(self._ids), len(ids))
        self.crop(next((i for i in range(limit) if self._ids[i] != ids[i]), limit))
        first_known = len(self) - (0 if self._known is None else len(self._known))
        if first_known > len(ids) - num_last:
            self.crop(len(ids) - num_last)
        return len(self)

    def known(self, ids: Sequence[int], num_last: int) -> Rows | None:
        """Logits behind the last tokens of ``ids`` where all are there already; computes and forgets nothing.

        Returns:
            Shape [num_last, vocabulary], or None if one is missing or none is wanted.
        """
        if self._known is None or num_last < 1 or self._ids[: len(ids)] != list(ids):
            return None
        end = len(self._known) - (len(self) - len(ids))
        return self._known[end - num_last : end] if end >= num_last else None

    def behind(self, ids: Sequence[int]) -> list[int]:
        """What the sequence holds behind ``ids``; nothing where it does not begin with them."""
        return self._ids[len(ids) :] if self._ids[: len(ids)] == list(ids) else []

    def crop(self, length: int) -> None:
        """Forget all tokens from position ``length`` on."""
        surplus = len(self._ids) - length
        if surplus > 0:
            self._shorten(length)
            del self._ids[length:]
            self._known = self._known[:-surplus] if self._known is not None and surplus < len(self._known) else None

    def logits(self, ids: Sequence[int], num_last: int = 1) -> Rows:
        """Append tokens to a language model's sequence.

        Args:
            ids: The tokens; none where all outputs are there already.
            num_last: How many positions' logits are wanted; :meth:`reuse` sees to those that are not of ``ids``.

        Returns:
            Logits of the last positions, shape [num_last, vocabulary].
        """
        known, num_known = self._known, num_last - len(ids)
        if ids:
            fresh = self._compute(ids, min(num_last, len(ids)))
            known = fresh if known is None or num_known <= 0 else self._joined(known[-num_known:], fresh)
        assert known is not None
        self._known = known[-num_last:]
        return self._known

    @abc.abstractmethod
    def _shorten(self, length: int) -> None:
        """Drop positions from ``length`` on from the cache itself; the ids are dropped behind it."""

    @abc.abstractmethod
    def _compute(self, ids: Sequence[int], num_last: int) -> Rows:
        """Append tokens to ids and cache; the logits of the last of them."""

    @abc.abstractmethod
    def _joined(self, first: Rows, second: Rows) -> Rows:
        """One below the other."""

    @abc.abstractmethod
    def look_ahead(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Append tokens for the last one's state; what follows them is then known too.

        Returns:
            Last layer's state at the last position.
        """

    @abc.abstractmethod
    def branches(self, count: int) -> Branches:
        """Copies side by side, to be continued without touching the sequence."""

    @abc.abstractmethod
    def close(self) -> None:
        """Forget everything and release what it holds."""
