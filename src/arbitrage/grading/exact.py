"""What can be graded without algebra: numbers, words, choices, and equal text."""

import enum

from arbitrage.grading.answers import Prose, compare, exactly_same, formulas, is_plain, read_both


class Verdict(enum.StrEnum):
    """What came of grading one answer."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNGRADED = "ungraded"
    """There is no gold answer, or it cannot be parsed."""
    TIMED_OUT = "timed_out"
    """Comparing took too long, or too much memory."""

    @property
    def is_correct(self) -> bool | None:
        """None where nobody knows: never the same as wrong."""
        return {Verdict.CORRECT: True, Verdict.WRONG: False}.get(self)


def judge_exactly(answer: str | None, gold: str) -> tuple[Verdict, bool]:
    """Grade one answer as far as is possible without algebra.

    Args:
        answer: What the box held; None without one.
        gold: The gold answer.

    Returns:
        The verdict, and whether it is final. One that is not holds only if nothing better is at hand: equal text is
        correct, other text wrong.
    """
    said, meant = read_both(answer, gold)
    parts = list(formulas(meant))
    if any(isinstance(part, Prose) for part in parts):
        return Verdict.UNGRADED, True
    # Whether a gold answer counts must not depend on the answer, or two policies were measured on different problems:
    # equal text is final only where the gold answer is known to be readable.
    is_final = all(map(is_plain, parts))
    if said is None:
        return Verdict.WRONG, is_final
    same = compare(said, meant, exactly_same)
    return (Verdict.CORRECT if same else Verdict.WRONG), is_final and same is not None
