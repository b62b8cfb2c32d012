"""Any causal language model of transformers, in process: a KV cache per session and a tight decoding loop."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

from arbitrage.core.errors import CheckpointError, ContextOverflow, MissingExtra, first_line
from arbitrage.core.ports import StepRequest
from arbitrage.core.types import Candidate, Cost, Finish, Likelihood, Problem, Sampling, Source
from arbitrage.engines.prompt import ChatPrompt, Prompt
from arbitrage.engines.worker import CancelFlag, worker_for

try:
    import torch
    from torch import Tensor
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        LogitsProcessorList,
        MinPLogitsWarper,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )
    from transformers.utils import logging as hf_logging

    from arbitrage.engines.hf_cache import CachedSequence
except ImportError as error:
    raise MissingExtra("hf") from error

_CONTEXT_IDS: Final = 8
"""A step is decoded behind so many ids: some tokenizers write a token otherwise at the start of a text."""


class Guesser(Protocol):
    """Says how a text may go on, for a model to verify: what is right spares it a forward pass a token."""

    def guess(self, ids: Sequence[int], limit: int) -> list[int]:
        """At most ``limit`` tokens that may follow ``ids`` (prompt and answer so far); none where it has no idea."""


class HFEngine:
    """A causal language model as an engine; sessions share its weights and its device's thread."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        prompt: Prompt | None = None,
        keeps_hidden_state: bool = False,
    ) -> None:
        """Wrap a loaded model.

        Args:
            model: Any model with a language head, in eval mode.
            tokenizer: Its tokenizer.
            name: How traces and run keys call it.
            prompt: Defaults to the model's chat template.
            keeps_hidden_state: Whether candidates carry the last layer's state at their last token. It costs one
                forward of that token, which a step behind it need not repeat; lost if the step is rejected.
        """
        self.model, self.tokenizer, self._name = model.eval(), tokenizer, name
        self.prompt = prompt or ChatPrompt()
        self.keeps_hidden_state = keeps_hidden_state
        self.worker = worker_for(str(model.device))
        self.eos_ids = _eos_ids(model, tokenizer)
        self.context_length: int = getattr(model.config, "max_position_embeddings", 1 << 30)
        self._token_texts: dict[int, str] = {}

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        name: str = "",
        device: str = "cpu",
        dtype: str = "float32",
        prompt: Prompt | None = None,
        keeps_hidden_state: bool = False,
    ) -> "HFEngine":
        """Load a checkpoint from a folder or the hub; safetensors only.

        Raises:
            CheckpointError: If it is missing or broken.
        """
        model, tokenizer = load_checkpoint(AutoModelForCausalLM, path, device=device, dtype=dtype)
        return cls(model, tokenizer, name=name or Path(path).name, prompt=prompt, keeps_hidden_state=keeps_hidden_state)

    @property
    def name(self) -> str:
        """Identifies the model in traces and run keys."""
        return self._name

    async def open(self, problem: Problem, source: Source) -> "HFSession":
        """Start a session; nothing is computed before the first proposal.

        Raises:
            ContextOverflow: If the prompt leaves no room for an answer.
        """
        ids = self.prompt.encode(self.tokenizer, problem.question)
        if len(ids) >= self.context_length:
            raise ContextOverflow(
                f"the prompt of problem {problem.id!r} has {len(ids)} tokens, "
                f"the context of {self.name} has {self.context_length}"
            )
        return HFSession(self, ids, source, self.guesser(problem, ids))

    def guesser(self, problem: Problem, prompt_ids: Sequence[int]) -> Guesser | None:
        """What guesses ahead in a session on this problem; nothing, unless a subclass says what."""
        return None

    def decode(self, ids: Sequence[int], context: Sequence[int]) -> str:
        """Text of ``ids`` as it reads behind ``context``."""
        head = list(context[-_CONTEXT_IDS:])
        whole: str = self.tokenizer.decode([*head, *ids], clean_up_tokenization_spaces=False)
        return whole[len(self.tokenizer.decode(head, clean_up_tokenization_spaces=False)) :]

    def encode(self, text: str) -> list[int]:
        """Ids of a foreign step."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def may_complete(self, token: int, delimiter: str) -> bool:
        """Whether a token can be the one that completes the delimiter; spares decoding after each token."""
        if token not in self._token_texts:
            self._token_texts[token] = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        text = self._token_texts[token]
        return delimiter[-1] in text or "\ufffd" in text


class HFSession:
    """One problem's ids and KV cache."""

    def __init__(
        self, engine: HFEngine, prompt_ids: Sequence[int], source: Source, guesser: Guesser | None = None
    ) -> None:
        self._engine, self._source, self._guesser = engine, source, guesser
        self._ids = list(prompt_ids)
        self._sequence = CachedSequence(engine.model)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Prompt and committed steps."""
        return tuple(self._ids)

    async def propose(self, request: StepRequest) -> Candidate:
        """Write one step on the device's thread; see :class:`arbitrage.core.ports.Session`."""
        ids, max_tokens = self._prefix(request)
        return await self._engine.worker.run(lambda flag: self._generate(ids, request, max_tokens, flag))

    async def propose_many(self, request: StepRequest, seeds: Sequence[int]) -> list[Candidate]:
        """Write several steps in one batch; see :class:`arbitrage.core.ports.Session`."""
        ids, max_tokens = self._prefix(request)
        return await self._engine.worker.run(lambda flag: self._generate_many(ids, request, seeds, max_tokens, flag))

    def _prefix(self, request: StepRequest) -> tuple[list[int], int]:
        """The ids to continue from, and how many tokens there may be.

        Raises:
            ContextOverflow: If there may be none.
        """
        ids = [*self._ids, *(self._own_ids(request.after) if request.after else ())]
        room = self._engine.context_length - len(ids)
        if room < 1:
            raise ContextOverflow(f"{len(ids)} tokens fill the context of {self._engine.name}")
        return ids, min(request.max_tokens, room)

    async def likelihood(self, candidate: Candidate) -> Likelihood:
        """Read a step on the device's thread; see :class:`arbitrage.core.ports.Session`."""
        ids, proposed = list(self._ids), self._proposed_ids(candidate)
        if len(ids) + len(proposed) > self._engine.context_length:
            raise ContextOverflow(f"{len(ids) + len(proposed)} tokens do not fit the context of {self._engine.name}")
        return await self._engine.worker.run(
            lambda flag: self._read(ids, proposed, len(self._own_ids(candidate)), flag)
        )

    async def commit(self, candidate: Candidate) -> None:
        """Append a step's ids; they are computed with the next proposal, if they are not in the cache."""
        self._ids.extend(self._own_ids(candidate))

    async def close(self) -> None:
        """Drop the cache."""
        self._sequence = CachedSequence(self._engine.model)

    def _own_ids(self, candidate: Candidate) -> Sequence[int]:
        is_own = candidate.source is self._source
        return candidate.token_ids if is_own and candidate.token_ids else self._engine.encode(candidate.text)

    @torch.inference_mode()
    def _read(self, ids: list[int], proposed: list[int], num_step: int, flag: CancelFlag) -> Likelihood:
        """Log-probabilities of the first ``num_step`` of ``proposed``; a proposal of the same needs no forward pass.

        Nor does a step of which only the last token was not read before.
        """
        flag.check()
        started = time.perf_counter()
        wanted = [*ids, *proposed]
        num_cached = len(wanted)
        logits = self._sequence.known(wanted[: len(ids) + num_step - 1], num_step)
        if logits is None:
            num_cached = self._sequence.reuse(wanted, len(proposed) + 1)
            logits = self._sequence.logits(wanted[num_cached:], num_last=len(proposed) + 1)[:num_step]
        chosen = torch.tensor(proposed[:num_step], device=logits.device)[:, None]
        logprobs = tuple(logits.float().log_softmax(dim=-1).gather(-1, chosen)[:, 0].tolist()) if num_step else ()
        cost = Cost(
            num_calls=1,
            num_computed=len(wanted) - num_cached,
            num_cached=num_cached,
            seconds=time.perf_counter() - started,
        )
        return Likelihood(logprobs=logprobs, cost=cost)

    @torch.inference_mode()
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

    @torch.inference_mode()
    def _generate_many(
        self, ids: list[int], request: StepRequest, seeds: Sequence[int], max_tokens: int, flag: CancelFlag
    ) -> list[Candidate]:
        started = time.perf_counter()
        num_cached = self._sequence.reuse(ids)
        first = self._sequence.logits(ids[len(self._sequence) :])
        logits, branches = first.expand(len(seeds), -1), self._sequence.branches(len(seeds))
        picks = [_picker(request.sampling, seed, self._engine.model.device) for seed in seeds]
        all_done = [_Decoded(first_entropy=_entropy(first[0])) for _ in seeds]
        running = list(range(len(seeds)))
        while True:
            flag.check()
            rows = [
                row
                for row, i in enumerate(running)
                if not self._take(all_done[i], *picks[i](logits[row]), ids, request.delimiter, max_tokens)
            ]
            if not rows:
                break
            if len(rows) < len(running):
                branches.keep(rows)
                running = [running[row] for row in rows]
            logits = branches.logits([all_done[i].new[-1] for i in running])
        seconds = (time.perf_counter() - started) / len(seeds)
        return [
            replace(self._candidate(done, ids), cost=_cost(done, len(ids), len(ids) if i else num_cached, seconds))
            for i, done in enumerate(all_done)
        ]

    def _candidate(self, done: "_Decoded", ids: list[int]) -> Candidate:
        """What was decoded behind ``ids``, its cost left out."""
        new = self._whole_characters(done.new, ids) if done.finish is Finish.TOKEN_LIMIT else done.new
        return Candidate(
            source=self._source,
            text=self._engine.decode(new, ids),
            token_ids=tuple(new),
            finish=done.finish,
            logprobs=tuple(torch.stack(done.logprobs[: len(new)]).tolist()) if new else (),
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
        pick = _picker(request.sampling, request.seed, self._engine.model.device)
        logits, row = sequence.logits([*ids, *ahead][len(sequence) :], num_last=len(ahead) + 1), 0
        done.first_entropy = _entropy(logits[0])
        while True:
            flag.check()
            token, logprob = pick(logits[row])
            is_ahead = row < len(ahead) and token == ahead[row]
            if is_ahead:
                done.confirm()
            if self._take(done, token, logprob, ids, request.delimiter, max_tokens):
                return
            row += 1
            if not is_ahead:
                sequence.crop(len(ids) + len(done.new) - 1)
                ahead = self._guess(ids, max_tokens, done)
                logits, row = sequence.logits([token, *ahead], num_last=len(ahead) + 1), 0

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
        self, done: "_Decoded", token: int, logprob: Tensor, ids: list[int], delimiter: str, max_tokens: int
    ) -> bool:
        """Append a token; whether the step ends with it."""
        engine = self._engine
        if token in engine.eos_ids:
            done.finish = Finish.END_OF_SEQUENCE
            return True
        done.new.append(token)
        done.logprobs.append(logprob)
        if engine.may_complete(token, delimiter) and delimiter in engine.decode(done.new, ids):
            done.finish = Finish.STEP_END
            return True
        return len(done.new) >= max_tokens

    def _proposed_ids(self, proposal: Candidate | None) -> list[int]:
        if proposal is None:
            return []
        is_last = proposal.finish is Finish.END_OF_SEQUENCE
        return [*self._own_ids(proposal), *(sorted(self._engine.eos_ids)[:1] if is_last else ())]

    def _whole_characters(self, new: list[int], ids: list[int]) -> list[int]:
        """Drop tokens at a cut that hold only part of a character: half of one is no text."""
        for length in range(len(new), max(len(new) - 4, -1), -1):
            if not self._engine.decode(new[:length], ids).endswith("\ufffd"):
                return new[:length]
        return new

    def _hidden_state(self, ids: list[int]) -> tuple[float, ...]:
        self._sequence.crop(len(ids) - 1)
        return tuple(self._sequence.look_ahead(ids[len(self._sequence) :]).float().tolist())


@dataclass(slots=True)
class _Decoded:
    """What one decoding loop made."""

    first_entropy: Tensor | None = None
    new: list[int] = field(default_factory=list)
    """Ids without end-of-sequence."""
    logprobs: list[Tensor] = field(default_factory=list)
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


def load_checkpoint(
    kind: type, path: str | Path, *, device: str, dtype: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model class with its tokenizer; safetensors only, no remote code.

    Raises:
        CheckpointError: If the checkpoint is missing, broken or incomplete.
    """
    if Path(path).is_dir():
        hf_logging.disable_progress_bar()  # Only a download is worth one.
    try:
        model, report = kind.from_pretrained(  # type: ignore[attr-defined]
            str(path), dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(str(path))
        # The context is checked where it matters, with one clear error: no second opinion on standard error.
        tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    except Exception as error:  # transformers, safetensors and the hub each raise what they like.
        raise CheckpointError(f"cannot load the checkpoint {str(path)!r}: {first_line(error)}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(f"the checkpoint {str(path)!r} lacks weights: {', '.join(missing[:3])}")
    return model.to(device).eval(), tokenizer


def _eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(id for id in (*ids, tokenizer.eos_token_id) if id is not None)


def _entropy(logits: Tensor) -> Tensor:
    each: Tensor = torch.special.entr(logits.float().softmax(dim=-1))
    return each.sum()


def _picker(sampling: Sampling, seed: int, device: torch.device) -> Callable[[Tensor], tuple[int, Tensor]]:
    """Make the function that picks a token from logits of shape [vocabulary], with its log-probability."""
    if sampling.temperature == 0.0:

        def greedy(logits: Tensor) -> tuple[int, Tensor]:
            best, index = logits.max(dim=-1)
            return int(index), best - logits.logsumexp(dim=-1)

        return greedy

    generator = torch.Generator(device=device).manual_seed(seed)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        warpers.append(MinPLogitsWarper(sampling.min_p))

    def sample(logits: Tensor) -> tuple[int, Tensor]:
        logits = logits.float()
        weights = warpers(torch.empty(1, 0), logits[None]).softmax(dim=-1)
        index = int(torch.multinomial(weights, 1, generator=generator))
        return index, logits[index] - logits.logsumexp(dim=-1)

    return sample
