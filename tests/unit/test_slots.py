from dataclasses import dataclass

from arbitrage.engines.slots import Slots


@dataclass
class Sequence:
    slot: int | None = None
    num_lost: int = 0

    def lose(self):
        self.slot, self.num_lost = None, self.num_lost + 1


def test_a_sequence_keeps_its_slot_and_the_longest_unused_one_is_taken():
    emptied = []
    slots = Slots(2, emptied.append)
    first, second, third = Sequence(), Sequence(), Sequence()
    assert [slots.hold(first), slots.hold(second), slots.hold(first)] == [0, 1, 0]
    assert slots.hold(third) == 1
    assert (first.num_lost, second.num_lost, second.slot) == (0, 1, None)
    assert slots.hold(second) == 0  # The first one computed before the third.
    assert first.num_lost == 1
    assert emptied == [0, 1, 1, 0]


def test_a_slot_that_was_given_back_is_taken_first():
    slots = Slots(2)
    first, second, third = Sequence(), Sequence(), Sequence()
    slots.hold(first)
    slots.hold(second)
    slots.release(second)
    assert second.slot is None
    assert slots.hold(third) == 1
    assert first.num_lost == 0


def test_a_sequence_without_a_slot_can_be_released():
    slots = Slots(1)
    idle, busy = Sequence(), Sequence()
    slots.hold(busy)
    slots.release(idle)
    assert (busy.slot, busy.num_lost, idle.num_lost) == (0, 0, 1)
