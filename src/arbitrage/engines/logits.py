"""Arithmetic on logits that are numpy arrays: probabilities and sampling, as transformers defines them."""

import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from arbitrage.core.types import Sampling

Logits: TypeAlias = NDArray[np.float32]
Floats: TypeAlias = NDArray[np.float64]


def log_normaliser(row: Logits) -> float:
    """Logarithm of the sum of exponentials of one row."""
    best = float(row.max())
    return best + float(np.log(np.exp(row - best).sum()))


def logprobs(rows: Logits, tokens: Sequence[int]) -> tuple[float, ...]:
    """Log-probability of one token in each of the first rows.

    Args:
        rows: Shape [positions, vocabulary], with at least ``len(tokens)`` positions.
        tokens: Their ids.
    """
    return tuple(float(row[token]) - log_normaliser(row) for row, token in zip(rows, tokens, strict=False))


def entropy(row: Logits) -> float:
    """Entropy at temperature 1 of one row, in nats."""
    logs = row - log_normaliser(row)
    return -float((np.exp(logs) * logs).sum())


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
            return index, float(row[index]) - log_normaliser(row)

        return greedy

    rng = random.Random(seed)

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
