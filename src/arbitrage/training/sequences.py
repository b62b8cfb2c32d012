"""Token sequences with labels at some positions: what a step classifier is trained on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from arbitrage.core.types import Source
from arbitrage.scorers.format import InputFormat
from arbitrage.training.rows import Row


@dataclass(frozen=True, slots=True)
class Labelled:
    """One sequence; ``labels`` belong to ``positions``, the last tokens of steps."""

    ids: list[int]
    positions: list[int]
    labels: list[float]
    weights: list[float] = field(default_factory=list)
    """Of each label in the loss; empty where all count the same."""


def encode(
    rows: Sequence[Row],
    tokenizer: Any,
    input_format: InputFormat,
    label: Callable[[float], float],
    advantage: Callable[[Row], float],
    weights: Sequence[float] | None = None,
) -> list[Labelled]:
    """Encode each row as its router will read it when served: question, history, the draft's step.

    Args:
        rows: What to encode.
        tokenizer: The router's.
        input_format: How it reads a solution.
        label: From an advantage to what to predict at the step's last token.
        advantage: Of a row.
        weights: Of each row in the loss; None for 1.
    """
    sequences: list[Labelled] = []
    for row, weight in zip(rows, weights or [1.0] * len(rows), strict=True):
        steps = [*((past.source, past.text) for past in row.history), (Source.DRAFT, row.draft.text)]
        ids = [token for part in input_format.encode(tokenizer, row.problem, steps) for token in part]
        sequences.append(Labelled(ids, [len(ids) - 1], [label(advantage(row))], [weight]))
    return sequences


def pack(rows: Sequence[Labelled]) -> list[Labelled]:
    """Join sequences that are prefixes of others: a causal model reads all their labels in one pass."""
    packed: list[Labelled] = []
    for row in sorted(rows, key=lambda row: row.ids, reverse=True):
        if packed and packed[-1].ids[: len(row.ids)] == row.ids:
            packed[-1].positions.extend(row.positions)
            packed[-1].labels.extend(row.labels)
            packed[-1].weights.extend(row.weights)
        else:
            packed.append(Labelled(row.ids, [*row.positions], [*row.labels], [*row.weights]))
    return packed
