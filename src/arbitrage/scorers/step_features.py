"""Numbers about a draft's step that cost nothing: of its log-probabilities, and of its text beside the earlier text."""

import math
import re
from collections.abc import Sequence
from typing import Final

from arbitrage.core.boxes import last_box
from arbitrage.core.types import Candidate, Finish

LOW_SHARE: Final = 0.1
"""The share of tokens below the low quantile: more robust than the single least likely token."""
_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")


def step_features(candidate: Candidate, step: int, context: str) -> list[float] | None:
    """Compute the numbers of a step.

    Args:
        candidate: The step, with log-probabilities and the entropy of its first token.
        step: The step's position in the solution, from 0.
        context: The question and all earlier steps.

    Returns:
        Shape [:data:`NUM_STEP_FEATURES`]. Of the log-probabilities (nats): log(1 - sum), mean, minimum, 10 % quantile,
        first and last. Entropy of the first token (nats), number of tokens, position. The share of digits among the
        characters, log(1 + n) of the numbers in the step and of those that do not occur before it, and (0 or 1) whether
        the step holds a box and whether it ends the solution. None if the draft's engine did not return
        log-probabilities or entropy.
    """
    logprobs, entropy = candidate.logprobs, candidate.first_entropy
    if logprobs is None or entropy is None:
        return None
    numbers = numbers_in(candidate.text)
    num_new = len(set(numbers) - set(numbers_in(context)))
    text = candidate.text.strip()
    return [
        math.log1p(-min(0.0, sum(logprobs))),
        sum(logprobs) / max(1, len(logprobs)),
        min(logprobs, default=0.0),
        low_quantile(logprobs),
        logprobs[0] if logprobs else 0.0,
        logprobs[-1] if logprobs else 0.0,
        entropy,
        float(len(logprobs)),
        float(step),
        sum(map(str.isdigit, text)) / max(1, len(text)),
        math.log1p(len(numbers)),
        math.log1p(num_new),
        float(last_box(candidate.text) is not None),
        float(candidate.finish is Finish.END_OF_SEQUENCE),
    ]


NUM_STEP_FEATURES: Final = 14
"""The length of :func:`step_features`."""


def low_quantile(values: Sequence[float]) -> float:
    """The value below which :data:`LOW_SHARE` of the values lie, one of them; 0 without values."""
    return sorted(values)[int(LOW_SHARE * len(values))] if values else 0.0


def numbers_in(text: str) -> list[str]:
    """The numbers of a text as written, without commas between digits and zeros behind the decimal point."""
    plain = [number.replace(",", "") for number in _NUMBER.findall(text)]
    return [number.rstrip("0").rstrip(".") if number.count(".") == 1 else number for number in plain]
