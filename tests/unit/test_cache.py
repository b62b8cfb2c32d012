"""What a cached sequence keeps and computes anew, with a list in place of a library's cache."""

import pytest

from arbitrage.engines.cache import CachedTokens
from arbitrage.engines.worker import Cancelled


class ListedTokens(CachedTokens):
    """A cache that lists its tokens; the row behind a prefix is the prefix itself."""

    def __init__(self, *, can_shorten=True):
        super().__init__()
        self.held, self.passes, self.can_shorten, self.error = [], [], can_shorten, None

    def close(self):
        super().close()
        self.held.clear()

    def look_ahead(self, ids):
        self._rows = self._compute(ids, 1)
        return (float(ids[-1]),)

    def _shorten(self, length):
        del self.held[length if self.can_shorten else 0 :]
        return self.can_shorten

    def _compute(self, ids, num_last):
        with self._appending(ids) as missing:
            self.passes.append(list(missing))
            for token in missing:
                if self.error and token == self.error[0]:
                    raise self.error[1]
                self.held.append(token)
                self._num_computed += 1
        return [tuple(self.held[: len(self.held) - i]) for i in reversed(range(num_last))]

    def joined(self, first, second):
        return [*first, *second]

    def _branches(self, count):
        return list(self.held)


def written(tokens, sequence):
    sequence.reuse(tokens)
    return sequence.logits(tokens[len(sequence) :])


def test_only_what_differs_is_computed():
    sequence = ListedTokens()
    assert written([1, 2, 3], sequence) == [(1, 2, 3)]
    assert written([1, 2, 4, 5], sequence) == [(1, 2, 4, 5)]
    assert sequence.passes == [[1, 2, 3], [4, 5]]
    assert sequence.tokens_behind([1, 2]) == [4, 5]
    assert sequence.tokens_behind([2]) == []


def test_rows_that_are_kept_are_not_computed_again():
    sequence = ListedTokens()
    sequence.logits([1, 2, 3, 4], num_last=3)
    assert sequence.rows_behind([1, 2, 3], 2) == [(1, 2), (1, 2, 3)]
    assert sequence.rows_behind([1, 2, 3], 3) is None
    assert sequence.rows_behind([1, 3], 1) is None
    assert sequence.reuse([1, 2, 3, 9], 3) == 3
    assert sequence.logits([9], num_last=3) == [(1, 2), (1, 2, 3), (1, 2, 3, 9)]
    assert sequence.passes == [[1, 2, 3, 4], [9]]


def test_a_row_that_is_missing_is_computed_again():
    sequence = ListedTokens()
    sequence.logits([1, 2, 3, 4])
    assert sequence.reuse([1, 2, 3]) == 2
    assert sequence.logits([3]) == [(1, 2, 3)]


def test_a_cache_that_cannot_be_shortened_is_computed_anew_and_billed():
    sequence = ListedTokens(can_shorten=False)
    sequence.logits([1, 2, 3])
    assert sequence.reuse([1, 2, 4]) == 0
    assert sequence.logits([1, 2, 4]) == [(1, 2, 4)]


@pytest.mark.parametrize("ids", [[], [9]])
def test_ids_that_the_cache_lacks_go_into_the_next_forward_pass(ids):
    sequence = ListedTokens(can_shorten=False)
    sequence.logits([1, 2, 3])
    sequence.crop(2)
    assert (len(sequence), sequence.held) == (2, [])
    if ids:
        assert sequence.logits(ids) == [(1, 2, 9)]
    else:
        assert sequence.branches(2) == [1, 2]
    assert sequence.passes[1] == [1, 2, *ids]


def test_a_cancelled_pass_keeps_the_tokens_that_it_computed():
    sequence = ListedTokens()
    sequence.logits([1, 2])
    sequence.error = (5, Cancelled())
    with pytest.raises(Cancelled):
        sequence.logits([3, 4, 5, 6])
    assert (len(sequence), sequence.held) == (4, [1, 2, 3, 4])
    assert sequence.rows_behind([1, 2], 1) is None
    sequence.error = None
    assert written([1, 2, 3, 4, 5], sequence) == [(1, 2, 3, 4, 5)]
    assert sequence.passes[-1] == [5]


def test_a_failed_pass_empties_the_sequence():
    """Some layers may hold more tokens than others."""
    sequence = ListedTokens()
    sequence.logits([1, 2])
    sequence.error = (4, MemoryError())
    with pytest.raises(MemoryError):
        sequence.logits([3, 4])
    assert (len(sequence), sequence.held) == (0, [])
