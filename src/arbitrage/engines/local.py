"""Decoding in process: everything about a session but the forward passes and the arithmetic on their logits."""

import abc
import contextlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, TypeVar

from arbitrage.core.errors import ContextOverflow
from arbitrage.core.ports import StepRequest
from arbitrage.core.types import Candidate, Cost, Finish, Likelihood, Problem, Sampling, Source
from arbitrage.engines.prompt import Prompt
from arbitrage.engines.tokens import TokenText
from arbitrage.engines.worker import CancelFlag, worker_for

T = TypeVar("T")
Rows = Any
"""Logits of shape [positions, vocabulary], a tensor or an array; a row is what indexing gives."""
Picker = Callable[[Any], tuple[int, Any]]
"""Picks a token from a row of logits; its log-probability at temperature 1 may stay on the device."""


class Guesser(Protocol):
    """Says how a text may go on, for a model to verify: what is right spares it a forward pass a token."""

    def guess(self, ids: Sequence[int], limit: int) -> list[int]:
        """At most ``limit`` tokens that may follow ``ids`` (prompt and answer so far); none where it has no idea."""


class Branches(Protocol):
    """Continuations of one sequence, to be written side by side."""

    def logits(self, tokens: Sequence[int]) -> Rows:
        """Append one token to each branch; a row for each."""

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other branches."""

    def close(self) -> None:
        """Release what they hold."""


class CachedTokens(abc.ABC):
    """The KV cache of one sequence; any next sequence reuses the longest common prefix."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._known: Rows | None = None
        """Logits behind the last tokens: what was computed need not be again."""

    def __len__(self) -> int:
        return len(self._ids)

    def reuse(self, ids: Sequence[int], num_last: int = 1) -> int:
        """Crop the cache to what it shares with ``ids``, and further where outputs that are wanted would be missing.

        Args:
            ids: The sequence that is wanted.
            num_last: At how many of its last positions an output is wanted.

        Returns:
            How many tokens of ``ids`` need no computing.
        """
        limit = min(len(self._ids), len(ids))
        self.crop(next((i for i in range(limit) if self._ids[i] != ids[i]), limit))
        first_known = len(self) - (0 if self._known is None else len(self._known))
        if first_known > len(ids) - num_last:
            self.crop(len(ids) - num_last)
        return len(self)

    def known(self, ids: Sequence[int], num_last: int) -> Rows | None:
        """Logits behind the last tokens of ``ids`` where all are there already; computes and forgets nothing.

        Returns:
            Shape [num_last, vocabulary], or None if one is missing or none is wanted.
        """
        if self._known is None or num_last < 1 or self._ids[: len(ids)] != list(ids):
            return None
        end = len(self._known) - (len(self) - len(ids))
        return self._known[end - num_last : end] if end >= num_last else None

    def behind(self, ids: Sequence[int]) -> list[int]:
        """What the sequence holds behind ``ids``; nothing where it does not begin with them."""
        return self._ids[len(ids) :] if self._ids[: len(ids)] == list(ids) else []

    def crop(self, length: int) -> None:
        """Forget all tokens from position ``length`` on."""
        surplus = len(self._ids) - length
        if surplus > 0:
            self._shorten(length)
            del self._ids[length:]
            self._known = self._known[:-surplus] if self._known is not None and surplus < len(self._known) else None

    def logits(self, ids: Sequence[int], num_last: int = 1) -> Rows:
        """Append tokens to a language model's sequence.

        Args:
            ids: The tokens; none where all outputs are there already.
            num_last: How many positions' logits are wanted; :meth:`reuse` sees to those that are not of ``ids``.

        Returns:
            Logits of the last positions, shape [num_last, vocabulary].
        """
        known, num_known = self._known, num_last - len(ids)
        if ids:
            fresh = self._compute(ids, min(num_last, len(ids)))
            known = fresh if known is None or num_known <= 0 else self._joined(known[-num_known:], fresh)
        assert known is not None
        self._known = known[-num_last:]
        return self._known

    @abc.abstractmethod
    def _shorten(self, length: int) -> None:
        """Drop positions from ``length`` on from the cache itself; the ids are dropped behind it."""

    @abc.abstractmethod
    def _compute(self, ids: Sequence[int], num_last: int) -> Rows:
        """Append tokens to ids and cache; the logits of the last of them."""

    @abc.abstractmethod
    def _joined(self, first: Rows, second: Rows) -> Rows:
        """One below the other."""

    @abc.abstractmethod
    def look_ahead(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Append tokens for the last one's state; what follows them is then known too.

        Returns:
            Last layer's state at the last position.
        """

    @abc.abstractmethod
    def branches(self, count: int) -> Branches:
        """Copies side by side, to be continued without touching the sequence."""

    @abc.abstractmethod
    def close(self) -> None:
        """Forget everything and release what it holds."""


class LocalEngine(TokenText, abc.ABC):
    """A language model in this process as an engine; sessions share its weights and its device's thread."""

    eos_ids: frozenset[int]
    max_branches: int = 1 << 30
    """So many continuations of a sequence are written in one batch."""

    def __init__(
        self, tokenizer: Any, *, name: str, device: str, prompt: Prompt | None, keeps_hidden_state: bool
    ) -> None:
        """Keep what does not depend on the library; see the subclasses."""
        super().__init__(tokenizer, name, prompt)
        self.keeps_hidden_state = keeps_hidden_state
        self.worker = worker_for(device)

    async def open(self, problem: Problem, source: Source) -> "LocalSession":
        """Start a session; nothing is computed before the first proposal.

        Raises:
            ContextOverflow: If the prompt leaves no room for an answer.
        """
        ids = self.prompt_ids(problem)
        return LocalSession(self, ids, source, self.guesser(problem, ids))

    def guesser(self, problem: Problem, prompt_ids: Sequence[int]) -> Guesser | None:
        """What guesses ahead in a session on this problem; nothing, unless a subclass says what."""
        return None

    @abc.abstractmethod
    def sequence(self) -> CachedTokens:
        """A new sequence, empty."""

    @abc.abstractmethod
    def picker(self, sampling: Sampling, seed: int) -> Picker:
        """The function that picks each token of one step."""

    @abc.abstractmethod
    def entropy(self, row: Any) -> Any:
        """Entropy at temperature 1 of one row, in nats."""

    @abc.abstractmethod
    def logprobs(self, rows: Rows, tokens: Sequence[int]) -> tuple[float, ...]:
        """Log-probability at temperature 1 of one token in each of the first ``len(tokens)`` rows."""

    def floats(self, values: Sequence[Any]) -> tuple[float, ...]:
        """What a picker said of log-probabilities, as plain numbers."""
        return tuple(map(float, values))

    def computing(self, flag: CancelFlag) -> AbstractContextManager[Any]:
        """Surrounds every call on the device's thread."""
        return contextlib.nullcontext()


class LocalSession:
    """One problem's ids and KV cache."""

    def __init__(
        self, engine: LocalEngine, prompt_ids: Sequence[int], source: Source, guesser: Guesser | None = None
    ) -> None:
        self._engine, self._source, self._guesser = engine, source, guesser
        self._ids = list(prompt_ids)
        self._sequence = engine.sequence()

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Prompt and committed steps."""
        return tuple(self._ids)

    async def propose(self, request: StepRequest) -> Candidate:
        """Write one step on the device's thread; see :class:`arbitrage.core.ports.Session`."""
        ids, max_tokens = self._prefix(request)
        return await self._run(lambda flag: self._generate(ids, request, max_tokens, flag))

    async def propose_many(self, request: StepRequest, seeds: Sequence[int]) -> list[Candidate]:
        """Write several steps in one batch; see :class:`arbitrage.core.ports.Session`."""
        ids, max_tokens = self._prefix(request)
        made: list[Candidate] = []
        while len(made) < len(seeds):
            part = seeds[len(made) : len(made) + self._engine.max_branches]
            made += await self._run(partial(self._generate_many, ids, request, part, max_tokens))
        return made

    async def likelihood(self, candidate: Candidate) -> Likelihood:
        """Read a step on the device's thread; see :class:`arbitrage.core.ports.Session`."""
        ids, proposed = list(self._ids), self._proposed_ids(candidate)
        if len(ids) + len(proposed) > self._engine.context_length:
            raise ContextOverflow(f"{len(ids) + len(proposed)} tokens do not fit the context of {self._engine.name}")
        return await self._run(lambda flag: self._read(ids, proposed, len(self._own_ids(candidate)), flag))

    async def commit(self, candidate: Candidate) -> None:
        """Append a step's ids; they are computed with the next proposal, if they are not in the cache."""
        self._ids.extend(self._own_ids(candidate))

    async def close(self) -> None:
        """Drop the cache."""
        self._sequence.close()

    async def _run(self, call: Callable[[CancelFlag], T]) -> T:
        def inside(flag: CancelFlag) -> T:
            with self._engine.computing(flag):
                return call(flag)

        return await self._engine.worker.run(inside)

    def _prefix(self, request: StepRequest) -> tuple[list[int], int]:
        """The ids to continue from, and how many tokens there may be.

        Raises:
            ContextOverflow: If there may be none.
        """
        ids = [*self._ids, *(self._own_ids(request.after) if request.after else ())]
        return ids, min(request.max_tokens, self._engine.room(ids))

    def _own_ids(self, candidate: Candidate) -> Sequence[int]:
        return self._engine.ids_of(candidate, self._source)

    def _proposed_ids(self, proposal: Candidate | None) -> list[int]:
        if proposal is None:
            return []
        is_last = proposal.finish is Finish.END_OF_SEQUENCE
        return [*self._own_ids(proposal), *(sorted(self._engine.eos_ids)[:1] if is_last else ())]

    def _read(self, ids: list[int], proposed: list[int], num_step: int, flag: CancelFlag) -> Likelihood:
        """Log-probabilities of the first ``num_step`` of ``proposed``; a proposal of the same needs no forward pass.

        Nor does a step of which only the last token was not read before.
        """
        flag.check()
        started = time.perf_counter()
        wanted = [*ids, *proposed]
        num_cached = len(wanted)
        rows = self._sequence.known(wanted[: len(ids) + num_step - 1], num_step)
        if rows is None:
            num_cached = self._sequence.reuse(wanted, len(proposed) + 1)
            rows = self._sequence.logits(wanted[num_cached:], num_last=len(proposed) + 1)
        logprobs = self._engine.logprobs(rows, proposed[:num_step])
        cost = Cost(
            num_calls=1,
            num_computed=len(wanted) - num_cached,
            num_cached=num_cached,
            seconds=time.perf_counter() - started,
        )
        return Likelihood(logprobs=logprobs, cost=cost)

    def _generate(self, ids: list[int], request: StepRequest, max_tokens: int, flag: CancelFlag) -> Candidate:
        started, done = time.perf_counter(), _Decoded()
        proposed = self._proposed_ids(request.proposal)[: max_tokens - 1]
        ahead = proposed or self._guess(ids, max_tokens, done)
        num_cached = min(len(ids), self._sequence.reuse([*ids, *ahead], len(ahead) + 1))
        self._decode(ids, ahead, request, max_tokens, done, flag)
        made = self._candidate(done, ids)
        if self._engine.keeps_hidden_state:
            made = replace(made, hidden_state=self._hidden_state([*ids, *made.token_ids]))
        return replace(made, cost=_cost(done, len(ids), num_cached, time.perf_counter() - started))

    def _generate_many(
        self, ids: list[int], request: StepRequest, seeds: Sequence[int], max_tokens: int, flag: CancelFlag
    ) -> list[Candidate]:
        started = time.perf_counter()
        num_cached = self._sequence.reuse(ids)
        first = self._sequence.logits(ids[len(self._sequence) :])[0]
        picks = [self._engine.picker(request.sampling, seed) for seed in seeds]
        all_done = [_Decoded(first_entropy=self._engine.entropy(first)) for _ in seeds]
        running, rows = list(range(len(seeds))), [first] * len(seeds)
        with contextlib.closing(self._sequence.branches(len(seeds))) as branches:
            while True:
                flag.check()
                kept = [
                    row
                    for row, i in enumerate(running)
                    if not self._take(all_done[i], *picks[i](rows[row]), ids, request.delimiter, max_tokens)
                ]
                if not kept:
                    break
                if len(kept) < len(running):
                    branches.keep(kept)
                    running = [running[row] for row in kept]
                rows = branches.logits([all_done[i].new[-1] for i in running])
        seconds = (time.perf_counter() - started) / len(seeds)
        return [
            replace(self._candidate(done, ids), cost=_cost(done, len(ids), len(ids) if i else num_cached, seconds))
            for i, done in enumerate(all_done)
        ]

    def _candidate(self, done: "_Decoded", ids: list[int]) -> Candidate:
        """What was decoded behind ``ids``, its cost left out."""
        engine = self._engine
        new = engine.whole_characters(done.new, ids) if done.finish is Finish.TOKEN_LIMIT else done.new
        return Candidate(
            source=self._source,
            text=engine.decode(new, ids),
            token_ids=tuple(new),
            finish=done.finish,
            logprobs=engine.floats(done.logprobs[: len(new)]),
            first_entropy=None if done.first_entropy is None else float(done.first_entropy),
            cost=Cost(),
        )

    def _decode(
        self,
        ids: list[int],
        ahead: list[int],
        request: StepRequest,
        max_tokens: int,
        done: "_Decoded",
        flag: CancelFlag,
    ) -> None:
        """Decode until the delimiter, end-of-sequence or the budget.

        Tokens ahead, proposed or guessed, go through the model together with what the cache lacks. Each position's
        token is then picked as always; while it equals the one ahead, its successor's logits are already there.
        What is left of them at the end stays: guesses may reach into the next step.
        """
        sequence = self._sequence
        pick = self._engine.picker(request.sampling, request.seed)
        rows, row = sequence.logits([*ids, *ahead][len(sequence) :], num_last=len(ahead) + 1), 0
        done.first_entropy = self._engine.entropy(rows[0])
        while True:
            flag.check()
            token, logprob = pick(rows[row])
            is_ahead = row < len(ahead) and token == ahead[row]
            if is_ahead:
                done.confirm()
            if self._take(done, token, logprob, ids, request.delimiter, max_tokens):
                return
            row += 1
            if not is_ahead:
                sequence.crop(len(ids) + len(done.new) - 1)
                ahead = self._guess(ids, max_tokens, done)
                rows, row = sequence.logits([token, *ahead], num_last=len(ahead) + 1), 0

    def _guess(self, ids: list[int], max_tokens: int, done: "_Decoded") -> list[int]:
        """What may come next: what was guessed beyond the end of the step before, else a new guess."""
        limit = max_tokens - 1 - len(done.new)
        if self._guesser is None or limit < 1:
            return []
        done.is_guessing = True
        so_far = [*ids, *done.new]
        rest = self._sequence.behind(so_far)[:limit]
        if rest or self._sequence.known(so_far, 1) is not None:
            return rest  # The next token costs no forward pass: first take it, then guess.
        started = time.perf_counter()
        guessed = self._guesser.guess(so_far, limit)
        done.num_guessed += len(guessed)
        done.guessing_s += time.perf_counter() - started
        return guessed

    def _take(
        self, done: "_Decoded", token: int, logprob: Any, ids: list[int], delimiter: str, max_tokens: int
    ) -> bool:
        """Append a token; whether the step ends with it."""
        engine = self._engine
        if token in engine.eos_ids:
            done.finish = Finish.END_OF_SEQUENCE
            return True
        done.new.append(token)
        done.logprobs.append(logprob)
        if engine.ends_step(done.new, ids, delimiter):
            done.finish = Finish.STEP_END
            return True
        return len(done.new) >= max_tokens

    def _hidden_state(self, ids: list[int]) -> tuple[float, ...]:
        self._sequence.crop(len(ids) - 1)
        return self._sequence.look_ahead(ids[len(self._sequence) :])


@dataclass(slots=True)
class _Decoded:
    """What one decoding loop made."""

    first_entropy: Any = None
    new: list[int] = field(default_factory=list)
    """Ids without end-of-sequence."""
    logprobs: list[Any] = field(default_factory=list)
    finish: Finish = Finish.TOKEN_LIMIT
    num_reused: int = 0
    is_guessing: bool = False
    """Whether the tokens ahead are guesses, no longer a proposal."""
    num_guessed: int = 0
    num_confirmed: int = 0
    guessing_s: float = 0.0

    def confirm(self) -> None:
        """Count a token that was there already."""
        if self.is_guessing:
            self.num_confirmed += 1
        else:
            self.num_reused += 1


def _cost(done: _Decoded, num_prompt: int, num_cached: int, seconds: float) -> Cost:
    return Cost(
        num_calls=1,
        num_computed=num_prompt - num_cached,
        num_cached=num_cached,
        num_generated=len(done.new) + (done.finish is Finish.END_OF_SEQUENCE),
        num_reused=done.num_reused,
        num_guessed=done.num_guessed,
        num_confirmed=done.num_confirmed,
        seconds=seconds,
        guessing_s=done.guessing_s,
    )
