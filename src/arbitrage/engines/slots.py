"""Memory for a fixed number of sequences: who computes where, and who gives way when all of it is taken."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from arbitrage.engines.cache import CachedTokens

DEFAULT_SEQUENCES: Final = 4
"""Slots unless chosen."""
DEFAULT_CONTEXT: Final = 4096
"""Tokens of a sequence unless chosen: the cache of a long-context model would fill the memory."""


class Holder(Protocol):
    """A sequence of tokens that computes in a slot."""

    slot: int | None
    """Its number; None before the sequence computes anything, and after another one took its slot."""

    def lose(self) -> None:
        """Forget all tokens: another sequence takes the slot."""


class Slots:
    """Slots that are handed over: a sequence without one takes a free slot, else the one unused for the longest time.

    No sequence waits for another to close, so two problems cannot block each other.
    """

    def __init__(self, count: int, empty: Callable[[int], object] = lambda slot: None) -> None:
        """Start with all slots free.

        Args:
            count: The number of slots.
            empty: Forgets the content of a slot before another sequence computes there.
        """
        self._empty = empty
        self._lock = threading.Lock()  # Sessions close on their own thread, while others compute.
        self._holders: OrderedDict[int, Holder | None] = OrderedDict.fromkeys(range(count))
        """The holder of each slot, the longest unused first."""

    @property
    def num_free(self) -> int:
        """How many slots no sequence holds."""
        return sum(holder is None for holder in self._holders.values())

    def hold(self, holder: Holder) -> int:
        """The slot where a sequence computes: its own if it has one, else one that it takes, emptied."""
        with self._lock:
            slot = holder.slot
            if slot is None:
                free = (slot for slot, other in self._holders.items() if other is None)
                slot = next(free, next(iter(self._holders)))
                if (former := self._holders[slot]) is not None:
                    former.lose()
                self._holders[slot], holder.slot = holder, slot
                self._empty(slot)
            self._holders.move_to_end(slot)
            return slot

    def release(self, holder: Holder) -> None:
        """Take a slot back; the sequence forgets its tokens."""
        with self._lock:
            if holder.slot is not None:
                self._holders[holder.slot] = None
                self._holders.move_to_end(holder.slot, last=False)
            holder.lose()


class SlotSequence(CachedTokens):
    """A sequence that computes in one of some slots."""

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self._slots = slots
        self.slot: int | None = None
        """See :class:`Holder`."""

    def hold(self) -> int:
        """See :meth:`Slots.hold`."""
        return self._slots.hold(self)

    def lose(self) -> None:
        """Forget all tokens, as another sequence takes this one's slot."""
        super().close()
        self.slot = None

    def close(self) -> None:
        """Forget all tokens and give the slot back."""
        self._slots.release(self)
