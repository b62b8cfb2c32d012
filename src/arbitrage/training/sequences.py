"""Token sequences with labels at some positions, to train a step classifier."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from arbitrage.core.types import Source
from arbitrage.scorers.format import InputFormat
from arbitrage.training.rows import Row


@dataclass(frozen=True, slots=True)
class Labelled:
    """One sequence; ``labels[i]`` is the label of the token at ``positions[i]``, the last token of a step."""

    ids: list[int]
    positions: list[int]
    labels: list[float]
    weights: list[float] = field(default_factory=list)
    """The weight of each label in the loss; empty for equal weights."""


def encode(
    rows: Sequence[Row],
    tokenizer: Any,
    input_format: InputFormat,
    label: Callable[[float], float],
    advantage: Callable[[Row], float],
    weights: Sequence[float] | None = None,
) -> list[Labelled]:
    """Encode each row as a router reads it in serving: the question, the history, the draft's step.

    Args:
        rows: The rows to encode.
        tokenizer: The router's tokenizer.
        input_format: The router's input format.
        label: Maps an advantage to the label at the step's last token.
        advantage: Gives the advantage of a row.
        weights: The weight of each row in the loss; None for 1.
    """
    sequences: list[Labelled] = []
    for row, weight in zip(rows, weights or [1.0] * len(rows), strict=True):
        history = (past.as_candidate().parts for past in row.history)
        steps = [*history, ((Source.DRAFT, row.draft.text),)]
        ids = [token for part in input_format.encode(tokenizer, row.problem, steps) for token in part]
        sequences.append(Labelled(ids, [len(ids) - 1], [label(advantage(row))], [weight]))
    return sequences


def pack(sequences: Sequence[Labelled]) -> list[Labelled]:
    """Merge each sequence that is a prefix of another into it: a causal model computes all their labels in one pass."""
    packed: list[Labelled] = []
    for sequence in sorted(sequences, key=lambda sequence: sequence.ids, reverse=True):
        if packed and packed[-1].ids[: len(sequence.ids)] == sequence.ids:
            packed[-1].positions.extend(sequence.positions)
            packed[-1].labels.extend(sequence.labels)
            packed[-1].weights.extend(sequence.weights)
        else:
            packed.append(Labelled(sequence.ids, [*sequence.positions], [*sequence.labels], [*sequence.weights]))
    return packed
