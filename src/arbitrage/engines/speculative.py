"""Token-level speculation: a target that verifies guessed tokens, several in one forward pass."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Problem, Source
from arbitrage.engines.decoder import Guesser
from arbitrage.engines.guess_count import (
    MAX_GUESSES,
    PRIOR_WEIGHT,
    WINDOW,
    AdaptiveCount,
    Costs,
    FixedCount,
    GuessCount,
    RunningMean,
)
from arbitrage.engines.local import LocalEngine
from arbitrage.engines.pass_times import PREFIX, pass_seconds
from arbitrage.engines.session import LocalSession
from arbitrage.engines.vocabulary import is_same_vocabulary, token_bytes
from arbitrage.engines.worker import CancelFlag, Cancelled

DRAFT_TOKENS: Final = 6
"""Guesses of a draft model for one forward pass of the target, where neither a number nor costs are given."""
LOOKUP_TOKENS: Final = 4
"""Likewise of the look-up."""
DRAFT_ACCEPTANCE: Final = 0.85
"""Probability that a draft's guess is right, as long as few are seen. With a lower one nothing would be guessed, and so
nothing learned, where guesses pay at a high acceptance only."""
LOOKUP_ACCEPTANCE: Final = 0.5
"""Likewise of the look-up."""
WIDTHS: Final = (1, 2, 4, 6, 8, MAX_GUESSES + 1)
"""Tokens in the measured passes of a target; kernels of llama.cpp change at 2, 4 and 8."""


class SpeculativeEngine:
    """A target in this process whose sessions verify the tokens that a guesser proposes.

    Each token is picked from the target's own logits with the same draws as without guesses. This is the rejection rule
    of Leviathan et al. (arXiv 2211.17192) for guesses that are certain. Where forward passes of different widths give
    the same logits (``target.widths_agree``, as in float32), the text is token for token the target's own, at any
    temperature. Elsewhere (16-bit weights, quantised weights) it follows the same distribution up to rounding, and may
    differ. Steps written together (``propose_many``) are batched as always, without guesses.
    """

    def __init__(
        self,
        target: LocalEngine,
        start: Callable[[Problem, Sequence[int]], Guesser],
        *,
        name: str = "speculative",
        count: GuessCount | None = None,
        draft: LocalEngine | None = None,
    ) -> None:
        """Wrap a target.

        Args:
            target: The model that writes.
            start: Makes the guesser of a problem whose prompt has the given ids.
            name: Of the guesser; run keys call the engine by both names.
            count: How many tokens the guessers guess, for :meth:`prepare`; None if their number is fixed elsewhere.
            draft: The model that guesses, if one does.

        Raises:
            ConfigError: If the target must be exact, and several tokens in one forward pass would be rounded otherwise.
        """
        if target.is_strict:
            raise ConfigError(
                f"{name!r} verifies several tokens in one forward pass, which exact = true of {target.name!r} "
                "forbids: the pass rounds them otherwise than single ones",
                hint="leave exact out for token-level speculation",
            )
        self.target, self.count = target, count
        self._name, self._start, self._draft = f"{target.name}+{name}", start, draft

    @property
    def name(self) -> str:
        """Names of target and guesser."""
        return self._name

    async def prepare(self) -> None:
        """Measure what guesses cost, once, if their number is chosen by it; sessions wait for it otherwise."""
        if isinstance(self.count, AdaptiveCount) and not self.count.is_measured:
            await self.target.worker.run(partial(self._measure, self.count))

    async def open(self, problem: Problem, source: Source) -> LocalSession:
        """Start a session; see :meth:`arbitrage.engines.local.LocalEngine.open`.

        Raises:
            ContextOverflow: If the prompt leaves no room for an answer.
        """
        await self.prepare()
        ids = self.target.prompt_ids(problem)
        return LocalSession(self.target, ids, source, self._start(problem, ids))

    def _measure(self, count: AdaptiveCount, flag: CancelFlag) -> None:
        if count.is_measured:  # By a session that came first.
            return
        try:
            count.set_costs(self._costs(flag))
        except Cancelled:
            raise
        except Exception:  # Libraries have no common error, and the default number serves as well.
            count.set_costs(None)

    def _costs(self, flag: CancelFlag) -> Costs:
        with self.target.computing(flag):
            target_s = pass_seconds(self.target, WIDTHS, flag)
            if self._draft is None:
                return Costs(target_s=target_s)
        draft_s = self._draft.worker.call(partial(_draft_seconds, self._draft, flag))
        return Costs(target_s=target_s, guess_s=draft_s[1], read_s=draft_s[PREFIX] / PREFIX)

    @classmethod
    def by_draft(cls, target: LocalEngine, draft: LocalEngine, num_tokens: int | None = None) -> "SpeculativeEngine":
        """Let a draft model guess.

        Args:
            target: The model that writes.
            draft: The model that guesses, of the same or another library; it reads the question in its own prompt, on
                its own device.
            num_tokens: How many tokens at a time; None to choose by measured acceptance and costs.

        Raises:
            ConfigError: If the two do not share a vocabulary, or the number is not positive.
        """
        count = _count(num_tokens, DRAFT_TOKENS, DRAFT_ACCEPTANCE)
        if not is_same_vocabulary(draft.tokenizer, target.tokenizer):
            raise ConfigError(
                f"token-level speculation needs one vocabulary, those of {draft.name!r} and {target.name!r} differ",
                hint="use ngram, which needs no draft",
            )
        # Embeddings are padded, each model's to a size of its own.
        num_ids = min(target.num_embeddings, max(token_bytes(target.tokenizer)) + 1)

        def start(problem: Problem, prompt_ids: Sequence[int]) -> Guesser:
            return DraftGuesser(
                draft, draft.encoded_prompt(problem), len(prompt_ids), count, num_ids=num_ids, ends=target.eos_ids
            )

        return cls(target, start, name=_name(draft.name, num_tokens), count=count, draft=draft)

    @classmethod
    def by_lookup(cls, target: LocalEngine, num_tokens: int | None = None) -> "SpeculativeEngine":
        """Guess from the prompt and the answer so far.

        Args:
            target: The model that writes.
            num_tokens: How many tokens at a time; None to choose by measured acceptance and costs.

        Raises:
            ConfigError: If the number is not positive.
        """
        count = _count(num_tokens, LOOKUP_TOKENS, LOOKUP_ACCEPTANCE)
        return cls(
            target, lambda problem, prompt_ids: LookupGuesser(count), name=_name("ngram", num_tokens), count=count
        )


class DraftGuesser(Guesser):
    """A draft model that runs ahead greedily in a KV cache of its own; wrong guesses are rolled back."""

    def __init__(
        self,
        draft: LocalEngine,
        prompt_ids: Sequence[int],
        num_target_prompt: int,
        count: GuessCount,
        *,
        num_ids: int,
        ends: frozenset[int],
    ) -> None:
        """Start behind a prompt.

        Args:
            draft: The model that guesses.
            prompt_ids: The draft's prompt.
            num_target_prompt: Length of the target's prompt, which the draft's prompt replaces.
            count: How many tokens at a time.
            num_ids: Ids below this are guessed.
            ends: Ids that end an answer; no guess goes on to one.
        """
        self._draft, self._prompt, self._num_target_prompt = draft, list(prompt_ids), num_target_prompt
        self._count, self._num_ids, self._ends = count, num_ids, ends
        self._sequence = draft.sequence()

    def guess(self, ids: Sequence[int], limit: int, flag: CancelFlag) -> list[int]:
        """Up to the end of the answer; as far as the draft's context reaches."""
        length = len(self._prompt) + len(ids) - self._num_target_prompt
        limit = min(limit, self._draft.context_length - length)
        if limit < 1:
            return []
        count = min(limit, self._count.choose(max(0, length - len(self._sequence))))
        if not count:
            return []
        context = [*self._prompt, *ids[self._num_target_prompt :]]
        return self._draft.worker.call(partial(self._run_ahead, context, count, flag))

    def learn(self, is_right: bool) -> None:
        """Pass it on to the count."""
        self._count.learn(is_right)

    def close(self) -> None:
        """Free the draft's cache."""
        self._sequence.close()

    def _run_ahead(self, context: list[int], count: int, flag: CancelFlag) -> list[int]:
        """Guess on the thread of the draft's device."""
        guessed: list[int] = []
        with self._draft.computing(flag):
            self._count.read(len(context) - self._sequence.reuse(context))
            while len(guessed) < count:
                flag.check()
                logits = self._sequence.logits([*context, *guessed][len(self._sequence) :])
                token = int(logits[-1, : self._num_ids].argmax())
                if token in self._ends:
                    break
                guessed.append(token)
        return guessed


class LookupGuesser(Guesser):
    """Guesses that the tokens that followed the last n-gram before will follow it again: prompt lookup, no model.

    After LLMA (arXiv 2304.04487), which copies spans from a reference. Here the reference is the prompt and the answer
    so far, as in Saxena's prompt-lookup decoding (2023).
    """

    def __init__(self, count: GuessCount, longest: int = 3, shortest: int = 1) -> None:
        """Start a look-up.

        Args:
            count: How many tokens at a time.
            longest: Length of the n-gram that is looked for first.
            shortest: The last.
        """
        self._count, self._lengths = count, range(longest, shortest - 1, -1)
        self._ids: list[int] = []
        """The text in which the n-grams are noted."""
        self._behind: dict[tuple[int, ...], int] = {}
        """Where the text goes on behind the latest occurrence of an n-gram that is followed by a token."""

    def guess(self, ids: Sequence[int], limit: int, flag: CancelFlag) -> list[int]:
        """The tokens behind the latest earlier occurrence of the longest n-gram that has one."""
        count = min(limit, self._count.choose(0))
        if not count:
            return []
        self._note(list(ids))
        ends = (self._behind.get(tuple(ids[-length:])) for length in self._lengths)
        end = next((end for end in ends if end is not None), len(ids))
        return list(ids[end : end + count])

    def learn(self, is_right: bool) -> None:
        """Pass it on to the count."""
        self._count.learn(is_right)

    def close(self) -> None:
        """There is no memory to free."""

    def _note(self, ids: list[int]) -> None:
        """Note the n-grams of a text; of those behind the text before, where it goes on from that."""
        start = len(self._ids)
        if ids[:start] != self._ids:
            start = 0
            self._behind.clear()
        for end in range(max(1, start), len(ids)):
            for length in self._lengths:
                if length <= end:
                    self._behind[tuple(ids[end - length : end])] = end
        self._ids = ids


def _draft_seconds(draft: LocalEngine, flag: CancelFlag) -> dict[int, float]:
    with draft.computing(flag):
        return pass_seconds(draft, (1, PREFIX), flag)


def _count(num_tokens: int | None, default: int, acceptance: float) -> GuessCount:
    if num_tokens is not None:
        return FixedCount(num_tokens)
    return AdaptiveCount(default=default, acceptance=RunningMean(acceptance, PRIOR_WEIGHT, WINDOW))


def _name(guesser: str, num_tokens: int | None) -> str:
    return guesser if num_tokens is None else f"{guesser}:{num_tokens}"
