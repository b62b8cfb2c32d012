"""Token-level speculation: a target that verifies guessed tokens, several in one forward pass."""

from collections.abc import Callable, Sequence
from typing import Final

from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Problem
from arbitrage.engines.decoder import Guesser
from arbitrage.engines.hf import HFEngine

DRAFT_TOKENS: Final = 6
"""Guesses of a draft model for one forward pass of the target; see docs/methods.md for the choice."""
LOOKUP_TOKENS: Final = 4
"""Likewise of the look-up."""


class SpeculativeEngine(HFEngine):
    """A target, sharing its weights, whose sessions verify the tokens that a guesser says come next.

    Each token is picked from the target's own logits with the same draws as without guesses. This is the rejection rule
    of Leviathan et al. (arXiv 2211.17192) for guesses that are certain. Where forward passes of different widths give
    the same logits (``widths_agree``, as in float32), the text is token for token the target's own, at any temperature.
    Elsewhere (16-bit weights, quantised weights) it follows the same distribution up to rounding, and may differ.
    Steps written together (``propose_many``) are batched as always, without guesses.
    """

    def __init__(
        self, target: HFEngine, start: Callable[[Problem, Sequence[int]], Guesser], *, name: str = "speculative"
    ) -> None:
        """Wrap a target.

        Args:
            target: The model that writes.
            start: Makes the guesser of a problem whose prompt has the given ids.
            name: Of the guesser; traces and run keys call the engine by both names.

        Raises:
            ConfigError: If the target must be exact, and several tokens in one forward pass would be rounded otherwise.
        """
        if target.is_strict:
            raise ConfigError(
                f"{name!r} verifies several tokens in one forward pass, which exact = true of {target.name!r} "
                "forbids: the pass rounds them otherwise than single ones",
                hint="leave exact out for token-level speculation",
            )
        super().__init__(
            target.model,
            target.tokenizer,
            name=f"{target.name}+{name}",
            prompt=target.prompt,
            keeps_hidden_state=target.keeps_hidden_state,
            exact=target.exact,
        )
        self._start, self._target = start, target

    @property
    def width_difference(self) -> float:
        """Of the target, whose weights these are."""
        return self._target.width_difference

    def guesser(self, problem: Problem, prompt_ids: Sequence[int]) -> Guesser:
        """Start guessing on a problem."""
        return self._start(problem, prompt_ids)

    @classmethod
    def by_draft(cls, target: HFEngine, draft: HFEngine, num_tokens: int = DRAFT_TOKENS) -> "SpeculativeEngine":
        """Let a draft model guess.

        Args:
            target: The model that writes.
            draft: The model that guesses; it reads the question in its own prompt, on its own device.
            num_tokens: How many tokens at a time.

        Raises:
            ConfigError: If the two do not share a vocabulary, or the number is not positive.
        """
        _check_number(num_tokens)
        if draft.tokenizer.get_vocab() != target.tokenizer.get_vocab():
            raise ConfigError(
                f"token-level speculation needs one vocabulary, those of {draft.name!r} and {target.name!r} differ",
                hint="use ngram, which needs no draft",
            )

        def start(problem: Problem, prompt_ids: Sequence[int]) -> Guesser:
            own = draft.prompt.encode(draft.tokenizer, problem)
            return DraftGuesser(draft, own, len(prompt_ids), num_tokens, target)

        return cls(target, start, name=f"{draft.name}:{num_tokens}")

    @classmethod
    def by_lookup(cls, target: HFEngine, num_tokens: int = LOOKUP_TOKENS) -> "SpeculativeEngine":
        """Guess from the prompt and the answer so far.

        Args:
            target: The model that writes.
            num_tokens: How many tokens at a time.

        Raises:
            ConfigError: If the number is not positive.
        """
        _check_number(num_tokens)
        return cls(target, lambda problem, prompt_ids: LookupGuesser(num_tokens), name=f"ngram:{num_tokens}")


class DraftGuesser:
    """A draft model that runs ahead greedily in a KV cache of its own; wrong guesses are rolled back."""

    def __init__(
        self, draft: HFEngine, prompt_ids: Sequence[int], num_target_prompt: int, num_tokens: int, target: HFEngine
    ) -> None:
        """Start behind a prompt.

        Args:
            draft: The model that guesses.
            prompt_ids: The draft's prompt.
            num_target_prompt: Length of the target's prompt, which the draft's prompt replaces.
            num_tokens: How many tokens at a time.
            target: Whose vocabulary bounds the guesses: the embeddings of one model may be padded further.
        """
        self._draft, self._prompt, self._num_target_prompt = draft, list(prompt_ids), num_target_prompt
        self._num_tokens, self._ends = num_tokens, target.eos_ids
        self._vocabulary = int(target.model.get_input_embeddings().num_embeddings)
        self._sequence = draft.sequence()

    def guess(self, ids: Sequence[int], limit: int) -> list[int]:
        """Up to the end of the answer; as far as the draft's context reaches."""
        context = [*self._prompt, *ids[self._num_target_prompt :]]
        count = min(self._num_tokens, limit, self._draft.context_length - len(context))
        guessed: list[int] = []
        self._sequence.reuse(context)
        while len(guessed) < count:
            logits = self._sequence.logits([*context, *guessed][len(self._sequence) :])
            token = int(logits[-1, : self._vocabulary].argmax())
            if token in self._ends:
                break
            guessed.append(token)
        return guessed


class LookupGuesser:
    """Guesses that the tokens that followed the last n-gram before will follow it again: prompt lookup, no model.

    After LLMA (arXiv 2304.04487), which copies spans from a reference. Here the reference is the prompt and the answer
    so far, as in Saxena's prompt-lookup decoding (2023).
    """

    def __init__(self, num_tokens: int, longest: int = 3, shortest: int = 1) -> None:
        """Start a look-up.

        Args:
            num_tokens: How many tokens at a time.
            longest: Length of the n-gram that is looked for first.
            shortest: The last.
        """
        self._num_tokens, self._lengths = num_tokens, range(longest, shortest - 1, -1)

    def guess(self, ids: Sequence[int], limit: int) -> list[int]:
        """The tokens behind the latest earlier occurrence of the longest n-gram that has one."""
        for length in self._lengths:
            tail = ids[-length:]
            for end in range(len(ids) - 1, length - 1, -1):
                if ids[end - 1] == tail[-1] and ids[end - length : end] == tail:
                    return list(ids[end : end + min(self._num_tokens, limit)])
        return []


def _check_number(num_tokens: int) -> None:
    if num_tokens < 1:
        raise ConfigError(f"the number of guessed tokens must be at least 1, got {num_tokens}")
