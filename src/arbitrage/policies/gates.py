"""Gates: rules on one number that no trained router gives, such as the draft's confidence or the target's rating."""

import math
from dataclasses import dataclass
from statistics import fmean

from arbitrage.core.errors import EngineError
from arbitrage.core.ports import Scorer
from arbitrage.core.turn import Turn
from arbitrage.core.types import Decision, Finish, Progress, Source
from arbitrage.policies.basic import check_threshold


@dataclass(frozen=True, slots=True)
class Confidence:
    """Accept iff the draft is at least so confident: the geometric mean of its probabilities of the step's tokens.

    The draft-confidence gate of ConfSpec (arXiv 2602.18447) without its cascade; BiLD (arXiv 2302.07863) falls back on
    the large model by the small one's confidence in the same way, token by token.
    """

    threshold: float
    name: str = "confidence"

    def __post_init__(self) -> None:
        check_threshold(self.threshold)

    async def decide(self, turn: Turn) -> Decision:
        """Read the draft's own log-probabilities; an empty step is certain."""
        draft = await turn.draft(self._is_rejected)
        logprobs = draft.logprobs
        if logprobs is None:
            raise _missing("log-probabilities", self.name)
        confidence = math.exp(fmean(logprobs)) if logprobs else 1.0
        is_accepted = confidence >= self.threshold and draft.finish is not Finish.GIVEN_UP
        return Decision(source=Source.DRAFT if is_accepted else Source.TARGET, score=confidence)

    def _is_rejected(self, progress: Progress) -> bool:
        """Whether the mean stays too low even if all tokens of the budget follow, each certain."""
        return progress.logprob / progress.max_tokens < math.log(self.threshold or 1e-300)


@dataclass(frozen=True, slots=True)
class FirstEntropy:
    """Accept iff 1 - exp(-H) is at most the threshold, H the entropy (nats) of the draft's first token of the step.

    The signal of GlimpRouter (arXiv 2601.05110), which escalates right behind that token; here the draft's step is
    written to its end, and where it is rejected, the target takes it as a proposal.
    """

    threshold: float
    name: str = "entropy"

    def __post_init__(self) -> None:
        check_threshold(self.threshold)

    async def decide(self, turn: Turn) -> Decision:
        """Read the entropy of the draft's distribution at the step's start."""
        entropy = (await turn.draft()).first_entropy
        if entropy is None:
            raise _missing("first-token entropy", self.name)
        doubt = -math.expm1(-max(0.0, entropy))
        return Decision(source=Source.DRAFT if doubt <= self.threshold else Source.TARGET, score=doubt)


@dataclass(frozen=True, slots=True)
class Judge:
    """Accept iff the target rates the draft's step at least so high: SpecReason, arXiv 2504.07891."""

    judge: Scorer
    """Gives the rating from 0 to 9 as a share of 9."""
    threshold: float
    name: str = "judge"

    def __post_init__(self) -> None:
        check_threshold(self.threshold)

    async def decide(self, turn: Turn) -> Decision:
        """Get the rating; the target writes only where it is too low."""
        rating = await turn.score(self.judge, await turn.draft())
        return Decision(source=Source.DRAFT if rating >= self.threshold else Source.TARGET, score=rating)


def _missing(figures: str, policy: str) -> EngineError:
    return EngineError(
        f"the draft's engine returns no {figures}; the policy {policy!r} needs them", hint="choose another policy"
    )
