"""A small world of word problems whose every step can be checked: problems by split, index and seed."""

import hashlib
import random
from typing import Final

from arbitrage.tiny.families import FAMILIES
from arbitrage.tiny.world_problem import WorldProblem

LEVELS: Final = (1, 2, 3, 4, 5)
OOD_LEVELS: Final = (6, 7, 8)
"""Levels out of distribution: the models were trained on shorter chains of operations."""

SPLITS: Final = {"train": range(0, 90), "validation": range(90, 95), "test": range(95, 100), "ood": range(95, 100)}
"""Hashes of a split's questions, in [0, 100). The hash of its text decides the split of a question, so splits share no
question; ``test`` and ``ood`` have the same hashes but different levels."""


def generate(split: str, index: int, *, seed: int = 0) -> WorldProblem:
    """Generate problem ``index`` of a split; levels and families rotate with the index.

    Args:
        split: ``train``, ``validation``, ``test`` or ``ood``.
        index: A non-negative number; the same (split, index, seed) always gives the same problem.
        seed: Another seed gives another sample of the same split.
    """
    levels = OOD_LEVELS if split == "ood" else LEVELS
    level = levels[index % len(levels)]
    family = list(FAMILIES)[index // len(levels) % len(FAMILIES)]
    rng = random.Random(f"{seed}:{split}:{index}")
    while True:
        problem = FAMILIES[family](rng, level)
        if _bucket(problem.question) in SPLITS[split]:
            return WorldProblem(
                question=problem.question,
                family=family,
                level=level,
                steps=problem.steps,
                id=f"{split}-{index}" if seed == 0 else f"{split}-{seed}-{index}",
            )


def _bucket(question: str) -> int:
    return int.from_bytes(hashlib.sha256(question.encode()).digest()[:4], "big") % 100
