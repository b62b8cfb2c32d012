"""Grading without algebra: numbers, units, words, choices, and equal text."""

import enum

from arbitrage.grading.answers import read_both
from arbitrage.grading.comparison import compare, exactly_same, formulas, is_plain
from arbitrage.grading.types import Prose


class Verdict(enum.StrEnum):
    """The result of grading one answer."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNGRADED = "ungraded"
    """There is no gold answer, or it cannot be parsed."""
    TIMED_OUT = "timed_out"
    """The comparison took too long, or too much memory."""

    @property
    def is_correct(self) -> bool | None:
        """None for an answer without a grade, which does not count as wrong."""
        return {Verdict.CORRECT: True, Verdict.WRONG: False}.get(self)


def judge_exactly(answer: str | None, gold: str) -> tuple[Verdict, bool]:
    """Grade one answer as far as possible without algebra.

    Args:
        answer: The content of the box; None without a box.
        gold: The gold answer.

    Returns:
        The verdict, and whether it is final. A verdict that is not final holds only where algebra is not installed:
        then equal text is correct and other text is wrong.
    """
    read_answer, read_gold = read_both(answer, gold)
    parts = list(formulas(read_gold))
    if any(isinstance(part, Prose) for part in parts):
        return Verdict.UNGRADED, True
    # Whether a gold answer counts must not depend on the answer, or two policies would be measured on different
    # problems: equal text is final only if the gold answer is certain to be readable.
    is_final = all(map(is_plain, parts))
    if read_answer is None:
        return Verdict.WRONG, is_final
    same = compare(read_answer, read_gold, exactly_same)
    return (Verdict.CORRECT if same else Verdict.WRONG), is_final and same is not None
