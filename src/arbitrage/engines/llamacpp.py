"""A GGUF file in this process, by llama.cpp: several sequences in one context, each with its own part of the cache."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from arbitrage.core.errors import MissingExtra
from arbitrage.core.types import Sampling
from arbitrage.engines.language_model import Picker
from arbitrage.engines.local import LocalEngine
from arbitrage.engines.prompt import Prompt
from arbitrage.engines.slots import DEFAULT_SEQUENCES, SlotSequence
from arbitrage.engines.worker import CancelFlag

try:
    import numpy as np

    from arbitrage.engines import logits as arithmetic
    from arbitrage.engines.llamacpp_context import LlamaContext
    from arbitrage.engines.llamacpp_native import GGUFTokenizer, LlamaModel, is_cpu
    from arbitrage.engines.logits import Logits
except ImportError as error:
    raise MissingExtra("llamacpp") from error


class LlamaEngine(LocalEngine):
    """A GGUF model as an engine.

    Sessions run one after another on the device's thread, each in a slot of its own in the context. While there are no
    more sessions than slots, the logits of a session do not depend, to the last bit, on the other sessions. Beyond
    that, a session that computes takes the slot that was unused for the longest time, and the session that held it
    computes its tokens anew at its next call. The new logits are the same up to rounding, and bit for bit for an exact
    engine, which repeats its forward passes one by one. No session waits for another to close, so two problems cannot
    block each other.
    """

    probe_lengths = (128, 640)
    """Behind 512 tokens, llama.cpp's flash attention splits a single token's work over the threads."""

    def __init__(
        self,
        context: "LlamaContext",
        *,
        name: str,
        device: str = "cpu",
        prompt: Prompt | None = None,
        keeps_hidden_state: bool = False,
        exact: bool | None = None,
    ) -> None:
        """Wrap an open context.

        Args:
            context: With its model.
            name: How traces and run keys call it.
            device: Names the thread that computes; one for each device.
            prompt: Defaults to the chat template in the file.
            keeps_hidden_state: Whether candidates carry the last layer's state at their last token; see
                :class:`arbitrage.engines.hf.HFEngine`.
            exact: Whether texts must be those of plain decoding; see
                :class:`arbitrage.engines.language_model.LanguageModel`.
        """
        super().__init__(
            GGUFTokenizer(context.model, name),
            name=name,
            device=device,
            prompt=prompt,
            keeps_hidden_state=keeps_hidden_state,
            exact=exact,
        )
        self.context = context
        self.eos_ids = self.tokenizer.end_ids
        self.num_embeddings = context.model.num_tokens
        self.context_length = context.length
        # In one computation, llama.cpp takes one sequence more than it may take tokens.
        self.max_branches = min(context.num_sequences - 1, context.batch_at_once)

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
        context: int = 0,
        sequences: int = DEFAULT_SEQUENCES,
        threads: int | None = None,
        threads_batch: int | None = None,
        gpu_layers: int | None = None,
        flash_attention: bool | None = None,
        exact: bool | None = None,
    ) -> "LlamaEngine":
        """Load a GGUF file.

        Args:
            path: The file.
            name: Defaults to the file's.
            device: ``cpu``, or the accelerator that llama.cpp was built for, with a number to choose one of several:
                ``cuda``, ``cuda:1``, ``metal``.
            dtype: Of the cache; the weights' are in the file.
            prompt: See :class:`LlamaEngine`.
            keeps_hidden_state: See :class:`LlamaEngine`.
            context: Tokens of a sequence; 0 for the model's own, at most
                :data:`arbitrage.engines.slots.DEFAULT_CONTEXT`.
            sequences: How many sessions keep their cache; each takes the memory of a whole context.
            threads: That compute a single token; None for all physical cores.
            threads_batch: That compute several tokens at once, such as a prompt; None for as many.
            gpu_layers: How many layers the accelerator computes; None for all.
            flash_attention: Whether attention is one kernel, which needs less memory; None for no, but for yes where
                ``exact`` needs it.
            exact: See :class:`LlamaEngine`. On a CPU, True chooses kernels that do not depend on the number of tokens
                in a forward pass. Where the measurement finds them to depend on it all the same, the file is loaded
                anew as without ``exact``, and tokens get forward passes of their own.

        Raises:
            CheckpointError: If the file is missing or broken, or its model cannot generate text.
            ConfigError: If a number cannot be used, or this build of llama.cpp has no such device.
        """

        def measured(*, is_batch_invariant: bool) -> "LlamaEngine":
            opened = LlamaContext(
                LlamaModel(Path(path), device=device, gpu_layers=gpu_layers, is_repacked=not is_batch_invariant),
                length=context,
                num_sequences=sequences,
                dtype=dtype,
                threads=threads,
                threads_batch=threads_batch,
                flash_attention=flash_attention,
                is_batch_invariant=is_batch_invariant,
            )
            engine = cls(
                opened,
                name=name or Path(path).stem,
                device=device,
                prompt=prompt,
                keeps_hidden_state=keeps_hidden_state,
                exact=exact,
            )
            engine.measure_widths(path)
            return engine

        if exact and is_cpu(device):
            engine = measured(is_batch_invariant=True)
            if not engine.is_strict:
                return engine
            del engine  # Its memory is needed.
        return measured(is_batch_invariant=False)

    def arithmetic(self) -> dict[str, Any]:
        """See :meth:`arbitrage.engines.language_model.LanguageModel.arithmetic`."""
        return {"engine": "llamacpp", **self.context.arithmetic}

    def sequence(self) -> "LlamaSequence":
        """A new sequence, empty; it takes a slot in the context with its first forward pass."""
        return LlamaSequence(self.context)

    def picker(self, sampling: Sampling, seed: int) -> Picker:
        """See :func:`arbitrage.engines.logits.picker`."""
        return arithmetic.picker(sampling, seed)

    def entropy(self, row: Any) -> float:
        """See :func:`arbitrage.engines.logits.entropy`."""
        return arithmetic.entropy(row)

    def logprobs(self, rows: Any, tokens: Sequence[int]) -> tuple[float, ...]:
        """See :func:`arbitrage.engines.logits.logprobs`."""
        return arithmetic.logprobs(rows, tokens)

    @contextlib.contextmanager
    def computing(self, flag: CancelFlag) -> Iterator[None]:
        """Let a cancellation end a long prompt too."""
        outer, self.context.flag = self.context.flag, flag
        try:
            yield
        finally:
            self.context.flag = outer


class LlamaSequence(SlotSequence):
    """The KV cache of one sequence in a context of llama.cpp."""

    def __init__(self, context: LlamaContext) -> None:
        super().__init__(context.slots)
        self._context = context

    def look_ahead(self, ids: Sequence[int]) -> tuple[float, ...]:
        """See :meth:`arbitrage.engines.cache.CachedTokens.look_ahead`."""
        if len(ids) > 1 or self._num_computed < len(self):
            self._compute(ids[:-1], 0)
        slot = self.hold()
        with self._appending(ids[-1:]) as (token,):
            self._rows, state = self._context.run_for_state(token, self._num_computed, slot)
        return state

    def _shorten(self, length: int) -> bool:
        slot = self.hold()
        if self._context.crop(slot, length):
            return True
        self._context.crop(slot, 0)
        return False

    def _compute(self, ids: Sequence[int], num_last: int) -> Logits:
        slot = self.hold()
        rows = []
        with self._appending(ids) as missing:
            first_output = len(missing) - num_last
            for start in range(0, len(missing), self._context.max_batch):
                part = missing[start : start + self._context.max_batch]
                positions = range(self._num_computed, self._num_computed + len(part))
                outputs = [index >= first_output for index in range(start, start + len(part))]
                rows.append(self._context.run(part, positions, [slot] * len(part), outputs))
                self._num_computed += len(part)
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def joined(self, first: Logits, second: Logits) -> Logits:
        """See :meth:`arbitrage.engines.cache.CachedTokens.joined`."""
        return np.concatenate([first, second])

    def _branches(self, count: int) -> "LlamaBranches":
        return LlamaBranches(self._context, self.hold(), len(self), count)


class LlamaBranches:
    """Continuations of one sequence, written side by side in slots of their own."""

    def __init__(self, context: LlamaContext, source: int, length: int, count: int) -> None:
        self._context, self._length = context, length
        self._sequences = [LlamaSequence(context) for _ in range(count)]
        for sequence in self._sequences:
            context.copy(source, sequence.hold())
        self._running = list(self._sequences)

    def logits(self, tokens: Sequence[int]) -> Logits:
        """Append one token to each branch; returns logits of shape [branches, vocabulary]."""
        count = len(tokens)
        slots = [sequence.hold() for sequence in self._running]
        rows = self._context.run(tokens, [self._length] * count, slots, [True] * count)
        self._length += 1
        return rows

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other branches."""
        self._running = [self._running[row] for row in rows]

    def close(self) -> None:
        """Give the slots back."""
        for sequence in self._sequences:
            sequence.close()
