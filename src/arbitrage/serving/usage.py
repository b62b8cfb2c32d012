"""Token counts of an answer in the form of OpenAI's interface."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from arbitrage.evaluation.running.solutions import Fates
from arbitrage.serving.solving import Solution


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of all solutions of a request."""

    prompt: int = 0
    """Of each problem once."""
    completion: int = 0
    cached: int = 0
    """Prompt tokens that a cache held when the solution began."""
    thinking: int = 0
    accepted: int = 0
    """The draft's tokens that were kept."""
    rejected: int = 0
    """The draft's tokens that were not."""

    @classmethod
    def of(cls, solutions: Sequence[Solution]) -> "Usage":
        """Add up solutions; several of one problem count its prompt once."""
        prompts = {id(one.problem): one.num_prompt for one in solutions}
        cached = {id(one.problem): _num_cached(one) for one in reversed(solutions)}
        fates = sum((Fates.of(step) for one in solutions for step in one.steps), Fates())
        return cls(
            prompt=sum(prompts.values()),
            completion=sum(one.num_tokens for one in solutions),
            cached=sum(cached.values()),
            thinking=sum(one.num_thinking_tokens for one in solutions),
            accepted=fates.draft_accepted,
            rejected=fates.draft_discarded,
        )

    def completion_json(self) -> dict[str, Any]:
        """The object ``usage`` of a completion."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {
                "reasoning_tokens": self.thinking,
                "accepted_prediction_tokens": self.accepted,
                "rejected_prediction_tokens": self.rejected,
            },
        }

    def response_json(self) -> dict[str, Any]:
        """The object ``usage`` of a response."""
        return {
            "input_tokens": self.prompt,
            "input_tokens_details": {"cached_tokens": self.cached},
            "output_tokens": self.completion,
            "output_tokens_details": {"reasoning_tokens": self.thinking},
            "total_tokens": self.prompt + self.completion,
        }


def _num_cached(solution: Solution) -> int:
    """What the first call of the solution found in its cache; later ones find what the solution itself has computed."""
    if not solution.steps:
        return 0
    return min(solution.num_prompt, solution.steps[0].candidates[0].cost.num_cached)
