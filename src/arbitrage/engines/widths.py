"""Whether a model's logits depend on how many tokens go through one forward pass, measured once for each model.

Verifying several tokens in one forward pass gives the text of token-by-token decoding only where passes of different
widths give the same logits. Often they do not: llama.cpp computes quantised weights and attention with other kernels
for several tokens than for one, and 16-bit matrix products round by their shape. The choice of kernels depends on
model, library, device and settings, so it is measured and not listed.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from arbitrage.engines.cache import CachedTokens, Rows

TOLERANCE: Final = 1e-4
"""Greatest relative difference of a logit that counts as the rounding of float32; 16-bit kernels differ by 1e-3 and
more."""
WIDTHS: Final = (2, 3, 4, 8, 16, 96)
"""Tokens in one pass: kernels change at 2 (float and 8-bit products of llama.cpp), 4 (its repacked weights), 8 (its
tiled products of K-quants) and 64 (its tiled attention)."""
METHOD: Final = 1
"""Version of the measurement: those of another version are ignored."""
NUM_COMPARED: Final = 8
"""Positions whose logits are compared."""
TEXT: Final = (
    "Mia has 12 stamps and Leo has 3 times as many. How many stamps do they have together? First, Leo has 3 * 12 = 36 "
    "stamps. Then, together they have 12 + 36 = 48 stamps.\n\n"
)
CACHE_VARIABLE: Final = "ARBITRAGE_CACHE"
"""Environment variable that names the folder for measurements that are kept between runs."""


class Measured(Protocol):
    """A model as it is measured."""

    context_length: int
    probe_lengths: tuple[int, ...]
    """Tokens of the sequences that are tried, each longer than the widest pass."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""

    def sequence(self) -> CachedTokens:
        """A new sequence, empty."""


def width_difference(model: Measured) -> float:
    """Greatest relative difference of a logit between a token in a pass of its own and in a pass with others.

    Args:
        model: Computes some hundred tokens for each of its ``probe_lengths``, fewer where the first passes differ by
            more than :data:`TOLERANCE`.

    Returns:
        0.0 where all are equal to the last bit; otherwise the difference relative to the logit, or to 1 if the logit
        is smaller. Infinite if the model computes no numbers, or its context holds less than two tokens.
    """
    worst = 0.0
    for length in model.probe_lengths:
        ids = text_ids(model, min(length, model.context_length))
        if len(ids) < 2:
            return float("inf")
        sequence = model.sequence()
        try:
            worst = max(worst, _difference(sequence, ids))
        finally:
            sequence.close()
        if worst > TOLERANCE:
            break
    return worst


def saved_difference(settings: Mapping[str, Any], folder: Path | None = None) -> float | None:
    """The difference that was measured before under these settings.

    Args:
        settings: Everything that it depends on.
        folder: Of measurements; None for the user's.

    Returns:
        None if there is no readable measurement.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return float(json.loads(_file(settings, folder).read_text())["difference"])
    return None


def save_difference(difference: float, settings: Mapping[str, Any], folder: Path | None = None) -> None:
    """Keep a measurement for the next start; if the folder cannot be written, the next start measures again."""
    file = _file(settings, folder)
    partial = file.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({"difference": difference, "settings": dict(settings)}, indent=2) + "\n")
        partial.replace(file)


def cache_folder() -> Path:
    """The folder for measurements: ``ARBITRAGE_CACHE``, or ``arbitrage`` in the user's folder for caches."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "arbitrage"


def _file(settings: Mapping[str, Any], folder: Path | None) -> Path:
    key = hashlib.sha256(json.dumps({"method": METHOD, **settings}, sort_keys=True).encode()).hexdigest()[:16]
    return (folder or cache_folder() / "widths") / f"{key}.json"


def text_ids(model: Measured, length: int) -> list[int]:
    """Ids of :data:`TEXT`, repeated to a length; empty if the tokenizer encodes nothing."""
    text = model.encode(TEXT)
    return (text * -(-length // len(text)))[:length] if text else []


def _difference(sequence: CachedTokens, ids: Sequence[int]) -> float:
    """Compares the logits behind the last tokens, narrowest passes first."""
    num_compared = min(NUM_COMPARED, len(ids) - 1)
    before = len(ids) - num_compared
    sequence.logits(ids[:before])
    alone = [sequence.logits([token])[0] for token in ids[before:]]
    worst = 0.0
    for width in WIDTHS:
        start = max(1, min(before, len(ids) - width))
        sequence.crop(start)
        rows: list[Any] = []
        while start < len(ids):
            part = ids[start : start + width]
            rows += list(sequence.logits(part, num_last=len(part)))
            start += len(part)
        worst = max(worst, *map(_relative, alone, rows[-num_compared:]))
        if worst > TOLERANCE:
            break
    return worst


def _relative(first: Rows, second: Rows) -> float:
    difference = float((abs(first - second) / abs(first).clip(1.0)).max())
    return difference if difference == difference else float("inf")  # NaN: the model computes no numbers.
