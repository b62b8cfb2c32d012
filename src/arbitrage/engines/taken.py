"""Steps that begin with tokens of another step: what their author's engine did not compute comes from that one."""

from dataclasses import replace

from arbitrage.core.types import Candidate


def with_beginning(written: Candidate, begun: Candidate | None, num_taken: int, taken_text: str) -> Candidate:
    """A step with two authors.

    Args:
        written: The whole step; its log-probabilities are those of the tokens behind the beginning.
        begun: The step that the beginning was taken from; None where none was.
        num_taken: Tokens of the beginning.
        taken_text: Their text.

    Returns:
        ``written`` with the beginning's log-probabilities, which are unknown if ``begun`` has none.
    """
    if begun is None or not num_taken:
        return written
    taken_logprobs = None if begun.logprobs is None or written.logprobs is None else (*begun.logprobs[:num_taken],)
    return replace(
        written,
        logprobs=None if taken_logprobs is None else (*taken_logprobs, *(written.logprobs or ())),
        first_entropy=begun.first_entropy,
        num_taken=num_taken,
        num_taken_chars=len(taken_text),
    )
