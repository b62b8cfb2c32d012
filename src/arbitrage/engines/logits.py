"""Arithmetic on logits that are numpy arrays: probabilities and sampling, as transformers defines them."""

import math
import random
import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from arbitrage.core.types import Sampling

Logits: TypeAlias = NDArray[np.float32]
Floats: TypeAlias = NDArray[np.float64]


class _Buffers(threading.local):
    """Rows that the arithmetic writes to, each thread's own: a new row of a large vocabulary costs as much as a sum."""

    def __init__(self) -> None:
        self._rows = np.empty((2, 0), np.float32)

    def take(self, size: int) -> Logits:
        """Two rows of this size with any content; shape [2, size]."""
        if self._rows.shape[1] < size:
            self._rows = np.empty((2, size), np.float32)
        return self._rows[:, :size]


_buffers = _Buffers()


def log_normaliser(row: Logits) -> float:
    """Logarithm of the sum of exponentials of one row."""
    return _log_normaliser(row, row.max())


def _log_normaliser(row: Logits, best: np.float32) -> float:
    """The same where the greatest logit is at hand."""
    raised = _buffers.take(len(row))[0]
    np.exp(np.subtract(row, best, out=raised), out=raised)
    return float(best) + math.log(raised.sum())


def logprobs(rows: Logits, tokens: Sequence[int]) -> tuple[float, ...]:
    """Log-probability of one token in each of the first rows.

    Args:
        rows: Shape [positions, vocabulary], with at least ``len(tokens)`` positions.
        tokens: Their ids.
    """
    return tuple(float(row[token]) - log_normaliser(row) for row, token in zip(rows, tokens, strict=False))


def entropy(row: Logits) -> float:
    """Entropy at temperature 1 of one row, in nats."""
    shifted, raised = _buffers.take(len(row))
    np.exp(np.subtract(row, row.max(), out=shifted), out=raised)
    total = float(raised.sum())
    return math.log(total) - float(np.multiply(raised, shifted, out=raised).sum()) / total


def weights(row: Logits, sampling: Sampling) -> Floats:
    """Probabilities of drawing each token: temperature, then top-k, top-p and min-p, each on the tokens left before.

    Args:
        row: Logits, shape [vocabulary].
        sampling: With a temperature above 0.

    Returns:
        Probabilities of shape [vocabulary]; 0 for tokens that are left out.
    """
    scaled = row.astype(np.float64) / sampling.temperature
    if 0 < sampling.top_k < len(scaled):
        scaled[scaled < np.partition(scaled, -sampling.top_k)[-sampling.top_k]] = -np.inf
    kept = _softmax(scaled)
    if sampling.top_p < 1.0:
        kept = _nucleus(kept, sampling.top_p)
    if sampling.min_p:
        kept = np.where(kept < sampling.min_p * kept.max(), 0.0, kept)
    probabilities: Floats = kept / kept.sum()
    return probabilities


def picker(sampling: Sampling, seed: int) -> Callable[[Logits], tuple[int, float]]:
    """Make the function that picks a token from a row, with its log-probability at temperature 1."""
    if sampling.temperature == 0.0:

        def greedy(row: Logits) -> tuple[int, float]:
            index = int(row.argmax())
            best = row[index]
            return index, float(best) - _log_normaliser(row, best)

        return greedy

    # `random` draws by the same seed whether the step is written: its first token must not depend on that number.
    rng = random.Random(f"tokens of {seed}")

    def sample(row: Logits) -> tuple[int, float]:
        sums = weights(row, sampling).cumsum()
        # A token that is left out adds nothing to the sums: a search from the right never returns it.
        index = int(np.searchsorted(sums, rng.random() * sums[-1], side="right"))
        return index, float(row[index]) - log_normaliser(row)

    return sample


def _softmax(scaled: Floats) -> Floats:
    exponentials = np.exp(scaled - scaled.max())
    probabilities: Floats = exponentials / exponentials.sum()
    return probabilities


def _nucleus(probabilities: Floats, top_p: float) -> Floats:
    """Drop the least likely tokens that together hold at most ``1 - top_p``; the likeliest always stays."""
    # All tokens below this bound may be dropped, even together: only the others need sorting.
    others = np.flatnonzero(probabilities >= (1.0 - top_p) / len(probabilities))
    others = others[probabilities[others].argsort(kind="stable")]
    sums = probabilities[others].cumsum() + (probabilities.sum() - probabilities[others].sum())
    first = min(int(np.searchsorted(sums, 1.0 - top_p, side="right")), len(others) - 1)
    kept = np.zeros_like(probabilities)
    kept[others[first:]] = probabilities[others[first:]]
    return kept
