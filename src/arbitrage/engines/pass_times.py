"""Seconds of a model's forward passes over several numbers of tokens, measured in this process."""

import time
from collections.abc import Sequence
from typing import Final

from arbitrage.engines import widths
from arbitrage.engines.language_model import LanguageModel
from arbitrage.engines.worker import CancelFlag

LONG_ENOUGH_S: Final = 0.4
"""Measuring stops behind the round in which this time is over."""
MIN_ROUNDS: Final = 2
"""The first pass of a width may be slow: kernels are chosen, memory is allocated."""
MAX_ROUNDS: Final = 12
PREFIX: Final = 64
"""Tokens before the measured ones."""


def pass_seconds(model: LanguageModel, num_tokens: Sequence[int], flag: CancelFlag) -> dict[int, float]:
    """Measure forward passes on the thread that calls, which must be the model's own.

    Each round measures each number once, so that a busy machine slows all of them; the fastest pass counts. A pass
    includes the choice of the last token. A pass of several tokens follows a crop, as it does behind a rejected guess.

    Args:
        model: Its sequence takes the room of one more session meanwhile.
        num_tokens: Of each pass.
        flag: Checked before each pass.

    Returns:
        Seconds by number of tokens, in the order given.

    Raises:
        ValueError: If the context is too short, or the tokenizer encodes nothing.
    """
    length = PREFIX + max(num_tokens) + 1
    ids = widths.text_ids(model, min(length, model.context_length))
    if len(ids) < length:
        raise ValueError(f"forward passes are measured on {length} tokens, got room for {len(ids)}")
    seconds = dict.fromkeys(num_tokens, float("inf"))
    started = time.perf_counter()
    sequence = model.sequence()
    try:
        sequence.logits(ids[:PREFIX])
        for number in range(MAX_ROUNDS):
            if number >= MIN_ROUNDS and time.perf_counter() - started > LONG_ENOUGH_S:
                break
            for count in num_tokens:
                flag.check()
                sequence.crop(PREFIX)
                if count == 1:
                    sequence.logits(ids[PREFIX : PREFIX + 1])
                begun = time.perf_counter()
                rows = sequence.logits(ids[len(sequence) :][:count], num_last=count)
                int(rows[-1].argmax())  # A device may still compute when the call returns.
                seconds[count] = min(seconds[count], time.perf_counter() - begun)
    finally:
        sequence.close()
    return seconds
