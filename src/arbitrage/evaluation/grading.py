"""Whether an answer is right."""

from fractions import Fraction

from arbitrage.core.trace import Trace


def is_correct(trace: Trace) -> bool | None:
    r"""Compare the last ``\boxed{}`` with the gold answer: as numbers where both are, else as text.

    Returns:
        None where there is no gold answer: ungraded, never wrong.
    """
    gold = trace.problem.answer
    return None if gold is None else is_same(trace.answer, gold)


def is_same(answer: str | None, gold: str) -> bool:
    """Whether an answer says what the gold one does; none never does."""
    if answer is None:
        return False
    said, meant = _number(answer), _number(gold)
    if said is not None and meant is not None:
        return said == meant
    return "".join(answer.split()) == "".join(gold.split())


def _number(text: str) -> Fraction | None:
    try:
        return Fraction(text.replace(",", "").replace("$", "").strip())
    except (ValueError, ZeroDivisionError):
        return None
