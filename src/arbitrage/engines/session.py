"""One problem's session on a language model in this process."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from arbitrage.core.errors import ContextOverflow
from arbitrage.core.ports import StepRequest
from arbitrage.core.types import Candidate, Cost, Finish, Likelihood, Source
from arbitrage.engines.committed import CommittedIds
from arbitrage.engines.decoder import Decoder, Guesser, Writing
from arbitrage.engines.language_model import LanguageModel
from arbitrage.engines.taken import with_beginning
from arbitrage.engines.text_parts import TextParts
from arbitrage.engines.worker import CancelFlag

T = TypeVar("T")


class LocalSession:
    """One problem's ids and KV cache."""

    def __init__(
        self, model: LanguageModel, prompt_ids: Sequence[int], source: Source, guesser: Guesser | None = None
    ) -> None:
        """Start behind a prompt.

        Args:
            model: The language model.
            prompt_ids: The encoded problem.
            source: The role that the model plays: steps of this role are its own.
            guesser: Guesses tokens ahead; see :class:`arbitrage.engines.decoder.Guesser`.
        """
        self._model, self._source = model, source
        self._ids = CommittedIds(prompt_ids)
        self._sequence = model.sequence()
        self._guesser = guesser
        self._decoder = Decoder(model, self._sequence, guesser)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Prompt and committed steps."""
        return tuple(self._ids)

    async def propose(self, request: StepRequest) -> Candidate:
        """Write one step on the device's thread; see :class:`arbitrage.core.ports.Session`."""
        prefix, max_tokens = self._prefix(request)
        parts = None
        if request.on_text is not None:
            parts = TextParts.on_loop(self._model, request.on_text, has_beginning=request.num_taken > 0)
        return await self._run(partial(self._write, prefix, request, max_tokens, parts))

    async def propose_many(self, request: StepRequest, seeds: Sequence[int]) -> list[Candidate]:
        """Write several steps in one batch; see :class:`arbitrage.core.ports.Session`."""
        if self._model.is_strict:  # The sums of a batch are rounded by its width.
            alone = replace(request, proposal=None, num_taken=0, on_text=None)
            return [await self.propose(replace(alone, seed=seed)) for seed in seeds]
        prefix, max_tokens = self._prefix(request)
        written: list[Candidate] = []
        while len(written) < len(seeds):
            part = seeds[len(written) : len(written) + self._model.max_branches]
            written += await self._run(partial(self._write_many, prefix, request, part, max_tokens))
        return written

    async def likelihood(self, candidate: Candidate) -> Likelihood:
        """Read a step on the device's thread; see :class:`arbitrage.core.ports.Session`."""
        prefix, proposed = list(self._ids), self._proposed_ids(candidate)
        if len(prefix) + len(proposed) > self._model.context_length:
            raise ContextOverflow(f"{len(prefix) + len(proposed)} tokens do not fit the context of {self._model.name}")
        return await self._run(partial(self._read, prefix, proposed, len(self._own_ids(candidate))))

    async def commit(self, candidate: Candidate) -> None:
        """Append a step's ids; those that the cache lacks are computed with the next proposal."""
        self._ids.commit(self._own_ids(candidate))

    async def rewind(self, num_steps: int) -> None:
        """Take steps back; the cache keeps the tokens before them. See :class:`arbitrage.core.ports.Rewindable`."""
        self._ids.rewind(num_steps)

    async def close(self) -> None:
        """Drop the cache, and the guesser's."""
        self._sequence.close()
        if self._guesser is not None:
            self._guesser.close()

    async def _run(self, call: Callable[[CancelFlag], T]) -> T:
        def inside(flag: CancelFlag) -> T:
            with self._model.computing(flag):
                return call(flag)

        return await self._model.worker.run(inside)

    def _prefix(self, request: StepRequest) -> tuple[list[int], int]:
        """The ids to continue from, and how many tokens there may be.

        Raises:
            ContextOverflow: If there may be none.
        """
        prefix = [*self._ids, *(self._own_ids(request.after) if request.after else ())]
        return prefix, min(request.max_tokens, self._model.room(prefix))

    def _own_ids(self, candidate: Candidate) -> Sequence[int]:
        return self._model.ids_of(candidate, self._source)

    def _proposed_ids(self, proposal: Candidate | None) -> list[int]:
        if proposal is None:
            return []
        is_last = proposal.finish is Finish.END_OF_SEQUENCE
        return [*self._own_ids(proposal), *(sorted(self._model.eos_ids)[:1] if is_last else ())]

    def _write(
        self,
        prefix: list[int],
        request: StepRequest,
        max_tokens: int,
        parts: TextParts | None,
        flag: CancelFlag,
    ) -> Candidate:
        started = time.perf_counter()
        proposed = self._proposed_ids(request.proposal)
        step = self._decoder.write(prefix, proposed, request, max_tokens, flag, parts.add if parts else None)
        written = self._candidate(step, request.proposal)
        if parts is not None:
            parts.end(written)
        if self._model.keeps_hidden_state:
            state = self._decoder.last_state([*prefix, *written.token_ids])
            written = replace(written, hidden_state=state)
        step.seconds = time.perf_counter() - started
        return replace(written, cost=step.cost)

    def _write_many(
        self, prefix: list[int], request: StepRequest, seeds: Sequence[int], max_tokens: int, flag: CancelFlag
    ) -> list[Candidate]:
        started = time.perf_counter()
        steps = self._decoder.write_many(prefix, request, seeds, max_tokens, flag)
        for step in steps:
            step.seconds = (time.perf_counter() - started) / len(seeds)
        return [replace(self._candidate(step), cost=step.cost) for step in steps]

    def _candidate(self, step: Writing, begun: Candidate | None = None) -> Candidate:
        """A written step, its cost left out; ``begun`` is the one that its first tokens were taken from."""
        model, new, num_taken = self._model, step.new, step.num_taken
        if step.finish is Finish.TOKEN_LIMIT:
            new = model.whole_characters(new, step.prefix)
        written = Candidate(
            source=self._source,
            text=model.decode(new, step.prefix),
            token_ids=tuple(new),
            finish=step.finish,
            logprobs=model.floats(step.logprobs[: len(new) - num_taken]),
            first_entropy=None if step.first_entropy is None else float(step.first_entropy),
            cost=Cost(),
        )
        taken_text = model.decode(new[:num_taken], step.prefix) if num_taken else ""
        return with_beginning(written, begun, num_taken, taken_text)

    def _read(self, prefix: list[int], proposed: list[int], num_step: int, flag: CancelFlag) -> Likelihood:
        """Log-probabilities of the first ``num_step`` of ``proposed``."""
        flag.check()
        started = time.perf_counter()
        rows, num_cached, num_computed = self._decoder.read(prefix, proposed, num_step)
        logprobs = self._model.logprobs(rows, proposed[:num_step])
        cost = Cost(
            num_calls=1, num_computed=num_computed, num_cached=num_cached, seconds=time.perf_counter() - started
        )
        return Likelihood(logprobs=logprobs, cost=cost)
