"""Writes steps token by token from a model's logits: plain, verifying tokens ahead, or several side by side."""

import bisect
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from arbitrage.core.ports import StepRequest
from arbitrage.core.types import Cost, Finish, Progress
from arbitrage.engines.cache import CachedTokens, Rows, common_length
from arbitrage.engines.language_model import LanguageModel, Picker
from arbitrage.engines.tokens import MOST_TOKENS_OF_A_CHARACTER
from arbitrage.engines.worker import CancelFlag


class Guesser(Protocol):
    """Guesses how a text goes on, for a model to verify: each right guess saves a forward pass.

    It is called on the thread of the model's device, except for :meth:`close`.
    """

    def guess(self, ids: Sequence[int], limit: int, flag: CancelFlag) -> list[int]:
        """At most ``limit`` tokens that may follow ``ids`` (prompt and answer so far); empty without a guess.

        Args:
            ids: Another text than before, where a step was rejected or written by another model.
            limit: At least 1.
            flag: Checked before anything long.
        """

    def learn(self, is_right: bool) -> None:
        """Learn whether a guessed token was the one that the model picked; called in order up to a wrong one."""

    def close(self) -> None:
        """Free the memory of the session; safe to call twice."""


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
    num_taken: int = 0
    """How many of these, from the first, were given."""
    logprobs: list[Any] = field(default_factory=list)
    """Of the others."""
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
    stop: Callable[[Progress], bool] | None = None
    """See :attr:`arbitrage.core.ports.StepRequest.stop`."""
    logprob: float = 0.0
    """Sum of log-probabilities, where a stop reads it."""
    lowest_logprob: float = 0.0
    """Its lowest value so far."""
    on_token: Callable[["Writing"], None] | None = None
    """Called after each token of the step, on the thread that writes."""

    @classmethod
    def start(
        cls,
        model: LanguageModel,
        prefix: Sequence[int],
        request: StepRequest,
        max_tokens: int,
        *,
        seed: int,
        taken: Sequence[int] = (),
    ) -> "Writing":
        """Begin a step behind ``prefix``, with the tokens ``taken``."""
        return cls(
            model=model,
            prefix=prefix,
            delimiter=request.delimiter,
            max_tokens=max_tokens,
            pick=model.picker(request.sampling, seed),
            new=list(taken),
            num_taken=len(taken),
            stop=request.stop,
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
        elif self.stop is not None and self._is_given_up(self.stop, float(logprob)):
            self.finish, self.is_complete = Finish.GIVEN_UP, True
        if self.on_token is not None:
            self.on_token(self)
        return token

    def _is_given_up(self, stop: Callable[[Progress], bool], logprob: float) -> bool:
        self.logprob += logprob
        self.lowest_logprob = min(self.lowest_logprob, self.logprob)
        # A step that its budget ends inside a character loses the tokens of that one, which no rule then reads.
        return self.num_left >= MOST_TOKENS_OF_A_CHARACTER and stop(
            Progress(
                num_tokens=len(self.new),
                max_tokens=self.max_tokens,
                logprob=self.lowest_logprob,
                first_entropy=None if self.first_entropy is None else float(self.first_entropy),
            )
        )

    @property
    def cost(self) -> Cost:
        """The price of the call."""
        return Cost(
            num_calls=1,
            num_computed=len(self.prefix) + self.num_taken - self.num_cached,
            num_cached=self.num_cached,
            num_generated=len(self.new) - self.num_taken + (self.finish is Finish.END_OF_SEQUENCE),
            num_reused=self.num_reused,
            num_guessed=self.num_guessed,
            num_confirmed=self.num_confirmed,
            seconds=self.seconds,
            guessing_s=self.guessing_s,
        )


class Decoder:
    """Writes and reads steps in one sequence of a model."""

    def __init__(self, model: LanguageModel, sequence: CachedTokens, guesser: Guesser | None = None) -> None:
        """Start a decoder.

        Args:
            model: Picks tokens, and says whether it takes proposals.
            sequence: Computes logits; the tokens that it holds are reused where they fit.
            guesser: Guesses tokens ahead wherever none are proposed.
        """
        self._model, self._sequence, self._guesser = model, sequence, guesser
        self._passed: list[int] = []
        """Of a strict model, the tokens that went through forward passes, and behind which of them a pass ended."""
        self._ends: list[int] = []
        self._continued: tuple[list[int], Rows] | None = None
        """The prefix that was continued last, and the logits behind it, from a pass without tokens ahead: a second step
        from there repeats no pass, and changes with nothing that was read in between."""

    def write(
        self,
        prefix: Sequence[int],
        proposed: Sequence[int],
        request: StepRequest,
        max_tokens: int,
        flag: CancelFlag,
        on_token: Callable[[Writing], None] | None = None,
    ) -> Writing:
        """Write one step until the delimiter, end-of-sequence or the budget.

        Tokens ahead, proposed or guessed, go through the model together with those that the cache lacks. Each
        position's token is then picked as always; while it equals the one ahead, its successor's logits are already
        computed. Guesses that are left at the end stay in the sequence: they may reach into the next step.

        Args:
            prefix: Ids of prompt and committed steps.
            proposed: Ids that may come next; ignored if the model takes no proposals.
            request: Delimiter, sampling and seed; and how many of ``proposed`` the step begins with.
            max_tokens: Budget of the step.
            flag: Checked before each token.
            on_token: See :attr:`Writing.on_token`.
        """
        taken = self._model.whole_characters(list(proposed[: min(request.num_taken, max_tokens - 1)]), prefix)
        step = Writing.start(self._model, prefix, request, max_tokens, seed=request.seed, taken=taken)
        step.on_token = on_token
        sequence = self._sequence
        ahead = list(proposed[len(taken) : max_tokens - 1]) if self._model.takes_proposals else []
        is_guessing = not ahead
        if is_guessing:
            ahead = self._guess(step, flag)
        rows, num_cached = self._continue([*step.so_far, *ahead], len(ahead) + 1)
        step.num_cached, row = min(len(step.so_far), num_cached), 0
        step.first_entropy = None if taken else self._model.entropy(rows[0])
        while True:
            flag.check()
            token = step.take(rows[row])
            is_ahead = row < len(ahead) and token == ahead[row]
            if self._guesser is not None and is_guessing and row < len(ahead):
                self._guesser.learn(is_ahead)
            step.num_confirmed += is_ahead and is_guessing
            step.num_reused += is_ahead and not is_guessing
            if step.is_complete:
                return step
            row += 1
            if not is_ahead:
                sequence.crop(len(prefix) + len(step.new) - 1)
                ahead, is_guessing = self._guess(step, flag), True
                rows, row = self._pass([token, *ahead], len(ahead) + 1), 0

    def write_many(
        self, prefix: Sequence[int], request: StepRequest, seeds: Sequence[int], max_tokens: int, flag: CancelFlag
    ) -> list[Writing]:
        """Write one step for each seed, all in one batch, without tokens ahead."""
        steps = [Writing.start(self._model, prefix, request, max_tokens, seed=seed) for seed in seeds]
        (first,), num_cached = self._continue(prefix, 1)
        for number, step in enumerate(steps):
            step.num_cached = len(prefix) if number else num_cached
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

    def read(self, prefix: Sequence[int], proposed: Sequence[int], num_step: int) -> tuple[Rows, int, int]:
        """Compute the logits before each of the first ``num_step`` of ``proposed``.

        A model that takes proposals computes all of ``proposed`` in one pass; the same proposal then needs none,
        and a step of which only the last token was not read before needs none either. Elsewhere the prefix gets a pass
        of its own, so that reading a step does not change the next one that is written from the same prefix.

        Returns:
            Logits of shape [at least num_step, vocabulary]; tokens that needed no computing; tokens that did.
        """
        whole = [*prefix, *proposed]
        rows = self._sequence.rows_behind(whole[: len(prefix) + num_step - 1], num_step)
        if rows is not None:
            return rows, len(whole), 0
        if self._model.takes_proposals:
            rows, num_cached = self._continue(whole, len(proposed) + 1)
            return rows, num_cached, len(whole) - num_cached
        rows, num_cached = self._continue(prefix, 1)
        if step := proposed[: num_step - 1]:
            rows = self._sequence.joined(rows, self._pass(step, len(step)))
        return rows, num_cached, len(prefix) + len(step) - num_cached

    def last_state(self, ids: Sequence[int]) -> tuple[float, ...]:
        """The last layer's state at the last of ``ids``, which were just written; computes that token anew."""
        self._sequence.crop(len(ids) - 1)
        ids = ids[len(self._sequence) :]
        state = self._sequence.look_ahead(ids)
        self._note(ids)
        return state

    def _continue(self, ids: Sequence[int], num_last: int) -> tuple[Rows, int]:
        """Compute the part of ``ids`` that the cache lacks.

        Returns:
            Logits behind the last ``num_last`` tokens, and how many tokens needed no computing.
        """
        sequence, ids = self._sequence, list(ids)
        if num_last > 1 or self._model.takes_proposals:
            num_cached = sequence.reuse(ids, num_last)
            return self._pass(ids[num_cached:], num_last), num_cached
        if self._continued and self._continued[0] == ids and sequence.reuse(ids, 0) == len(ids):
            return self._continued[1], len(ids)
        num_cached = sequence.reuse(ids)
        if self._model.is_strict:
            num_cached = self._repeat(ids)
        self._continued = ids, self._pass(ids[len(sequence) :], 1)
        return self._continued[1], num_cached

    def _repeat(self, ids: list[int]) -> int:
        """Repeat forward passes that a strict model made over ``ids``, and whose tokens the cache has lost.

        Returns:
            How many tokens needed no computing: a pass of which a part is lost is repeated as a whole.
        """
        sequence, num_same = self._sequence, common_length(self._passed, ids)
        del self._passed[num_same:], self._ends[bisect.bisect_right(self._ends, num_same) :]
        num_whole = bisect.bisect_right(self._ends, len(sequence))
        num_cached = sequence.reuse(ids[: self._ends[num_whole - 1] if num_whole else 0], 0)
        for end in self._ends[bisect.bisect_right(self._ends, num_cached) :]:
            sequence.logits(ids[len(sequence) : end])
        return num_cached

    def _pass(self, ids: Sequence[int], num_last: int) -> Rows:
        """One forward pass; none if the logits are kept already."""
        rows = self._sequence.logits(ids, num_last=num_last)
        self._note(ids)
        return rows

    def _note(self, ids: Sequence[int]) -> None:
        """Keep for a strict model where a forward pass ended."""
        if ids and self._model.is_strict:
            num_before = len(self._sequence) - len(ids)
            del self._passed[num_before:], self._ends[bisect.bisect_right(self._ends, num_before) :]
            self._passed.extend(ids)
            self._ends.append(len(self._passed))

    def _guess(self, step: Writing, flag: CancelFlag) -> list[int]:
        """Tokens that may come next: the rest of a guess that reached beyond the step before, else a new guess."""
        limit = step.num_left - 1
        if self._guesser is None or limit < 1:
            return []
        so_far = step.so_far
        rest = self._sequence.tokens_behind(so_far)[:limit]
        if rest or self._sequence.rows_behind(so_far, 1) is not None:
            return rest  # The next token needs no forward pass: take it first, then guess.
        started = time.perf_counter()
        guessed = self._guesser.guess(so_far, limit, flag)
        step.num_guessed += len(guessed)
        step.guessing_s += time.perf_counter() - started
        return guessed
