"""Writes steps token by token from a model's logits: plain, verifying tokens ahead, or several side by side."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from arbitrage.core.ports import StepRequest
from arbitrage.core.types import Cost, Finish
from arbitrage.engines.cache import CachedTokens
from arbitrage.engines.language_model import LanguageModel, Picker
from arbitrage.engines.worker import CancelFlag


class Guesser(Protocol):
    """Guesses how a text goes on, for a model to verify: each right guess saves a forward pass."""

    def guess(self, ids: Sequence[int], limit: int) -> list[int]:
        """At most ``limit`` tokens that may follow ``ids`` (prompt and answer so far); empty without a guess."""


@dataclass(slots=True, kw_only=True)
class Writing:
    """One step while it is written, and when it is complete."""

    model: LanguageModel
    prefix: Sequence[int]
    """Ids before the step."""
    delimiter: str
    max_tokens: int
    pick: Picker
    new: list[int] = field(default_factory=list)
    """Ids without end-of-sequence."""
    logprobs: list[Any] = field(default_factory=list)
    first_entropy: Any = None
    finish: Finish = Finish.TOKEN_LIMIT
    is_complete: bool = False
    num_cached: int = 0
    """Tokens of the prefix that needed no computing."""
    num_reused: int = 0
    """Tokens that were proposed."""
    num_guessed: int = 0
    num_confirmed: int = 0
    """Guessed tokens that were right."""
    guessing_s: float = 0.0
    seconds: float = 0.0

    @classmethod
    def start(
        cls, model: LanguageModel, prefix: Sequence[int], request: StepRequest, max_tokens: int, *, seed: int
    ) -> "Writing":
        """Begin a step behind ``prefix``."""
        return cls(
            model=model,
            prefix=prefix,
            delimiter=request.delimiter,
            max_tokens=max_tokens,
            pick=model.picker(request.sampling, seed),
        )

    @property
    def so_far(self) -> list[int]:
        """Prefix and step."""
        return [*self.prefix, *self.new]

    @property
    def num_left(self) -> int:
        """How many tokens may still follow."""
        return self.max_tokens - len(self.new)

    def take(self, row: Any) -> int:
        """Pick the next token from a row of logits and append it; end-of-sequence and the delimiter complete the step.

        Returns:
            The token.
        """
        token, logprob = self.pick(row)
        if token in self.model.eos_ids:
            self.finish, self.is_complete = Finish.END_OF_SEQUENCE, True
            return token
        self.new.append(token)
        self.logprobs.append(logprob)
        if self.model.ends_step(self.new, self.prefix, self.delimiter):
            self.finish, self.is_complete = Finish.STEP_END, True
        elif not self.num_left:
            self.is_complete = True
        return token

    @property
    def cost(self) -> Cost:
        """The price of the call."""
        return Cost(
            num_calls=1,
            num_computed=len(self.prefix) - self.num_cached,
            num_cached=self.num_cached,
            num_generated=len(self.new) + (self.finish is Finish.END_OF_SEQUENCE),
            num_reused=self.num_reused,
            num_guessed=self.num_guessed,
            num_confirmed=self.num_confirmed,
            seconds=self.seconds,
            guessing_s=self.guessing_s,
        )


class Decoder:
    """Writes steps in one sequence of a model."""

    def __init__(self, model: LanguageModel, sequence: CachedTokens, guesser: Guesser | None = None) -> None:
        """Start a decoder.

        Args:
            model: Picks tokens.
            sequence: Computes logits; whatever it holds is reused where it fits.
            guesser: Guesses tokens ahead wherever none are proposed.
        """
        self._model, self._sequence, self._guesser = model, sequence, guesser

    def write(
        self, prefix: Sequence[int], proposed: Sequence[int], request: StepRequest, max_tokens: int, flag: CancelFlag
    ) -> Writing:
        """Write one step until the delimiter, end-of-sequence or the budget.

        Tokens ahead, proposed or guessed, go through the model together with those that the cache lacks. Each
        position's token is then picked as always; while it equals the one ahead, its successor's logits are already
        computed. Guesses that are left at the end stay in the sequence: they may reach into the next step.

        Args:
            prefix: Ids of prompt and committed steps.
            proposed: Ids that may come next.
            request: Delimiter, sampling and seed.
            max_tokens: Budget of the step.
            flag: Checked before each token.
        """
        step = Writing.start(self._model, prefix, request, max_tokens, seed=request.seed)
        sequence, ahead = self._sequence, list(proposed[: max_tokens - 1])
        is_guessing = not ahead
        if is_guessing:
            ahead = self._guess(step)
        step.num_cached = min(len(prefix), sequence.reuse([*prefix, *ahead], len(ahead) + 1))
        rows, row = sequence.logits([*prefix, *ahead][len(sequence) :], num_last=len(ahead) + 1), 0
        step.first_entropy = self._model.entropy(rows[0])
        while True:
            flag.check()
            token = step.take(rows[row])
            is_ahead = row < len(ahead) and token == ahead[row]
            step.num_confirmed += is_ahead and is_guessing
            step.num_reused += is_ahead and not is_guessing
            if step.is_complete:
                return step
            row += 1
            if not is_ahead:
                sequence.crop(len(prefix) + len(step.new) - 1)
                ahead, is_guessing = self._guess(step), True
                rows, row = sequence.logits([token, *ahead], num_last=len(ahead) + 1), 0

    def write_many(
        self, prefix: Sequence[int], request: StepRequest, seeds: Sequence[int], max_tokens: int, flag: CancelFlag
    ) -> list[Writing]:
        """Write one step for each seed, all in one batch, without tokens ahead."""
        steps = [Writing.start(self._model, prefix, request, max_tokens, seed=seed) for seed in seeds]
        for number, step in enumerate(steps):
            step.num_cached = len(prefix) if number else self._sequence.reuse(prefix)
        first = self._sequence.logits(prefix[len(self._sequence) :])[0]
        for step in steps:
            step.first_entropy = self._model.entropy(first)
        running, rows = steps, [first] * len(steps)
        with contextlib.closing(self._sequence.branches(len(steps))) as branches:
            while True:
                flag.check()
                tokens = [step.take(row) for step, row in zip(running, rows, strict=True)]
                kept = [row for row, step in enumerate(running) if not step.is_complete]
                if not kept:
                    return steps
                if len(kept) < len(running):
                    branches.keep(kept)
                    running = [running[row] for row in kept]
                rows = branches.logits([tokens[row] for row in kept])

    def _guess(self, step: Writing) -> list[int]:
        """Tokens that may come next: the rest of a guess that reached beyond the step before, else a new guess."""
        limit = step.num_left - 1
        if self._guesser is None or limit < 1:
            return []
        so_far = step.so_far
        rest = self._sequence.tokens_behind(so_far)[:limit]
        if rest or self._sequence.rows_behind(so_far, 1) is not None:
            return rest  # The next token needs no forward pass: take it first, then guess.
        started = time.perf_counter()
        guessed = self._guesser.guess(so_far, limit)
        step.num_guessed += len(guessed)
        step.guessing_s += time.perf_counter() - started
        return guessed
