"""One context of llama.cpp: several sequences, each with its own part of the KV cache."""

import ctypes
import os
import weakref
from collections.abc import Sequence
from typing import Any, Final

from arbitrage.core.errors import CheckpointError, ConfigError, EngineError, MissingExtra
from arbitrage.engines.cores import num_physical_cores
from arbitrage.engines.slots import DEFAULT_CONTEXT, DEFAULT_SEQUENCES, Slots
from arbitrage.engines.worker import CancelFlag

try:
    import llama_cpp
    import numpy as np

    from arbitrage.engines.llamacpp_native import LlamaModel, logged_error
    from arbitrage.engines.logits import Logits
except ImportError as error:
    raise MissingExtra("llamacpp") from error

MAX_BATCH: Final = 512
"""Tokens in one call of llama.cpp."""
MAX_THREADS: Final = 512
"""``GGML_MAX_N_THREADS``."""
_CACHE_TYPES: Final = {"float32": 0, "float16": 1, "bfloat16": 30}
"""Numbers of ``ggml_type``."""
_HAS_TILES: Final = os.environ.get("GGML_CPU_TILED_MM") != "0"
"""Whether llama.cpp may use tiled products. It reads this variable once, at the first computation of the process; a
value that is set after this module was imported is not seen here."""
_INVARIANT_VALUES: Final = "bfloat16"
"""Of the cache of a batch-invariant context. For values of other types, flash attention splits the work of a single
token over the threads where the context is long, and rounds otherwise than for several tokens."""


class LlamaContext:
    """One context of llama.cpp: its sequences, its batch and its outputs. Only the device's thread computes in it."""

    def __init__(
        self,
        model: LlamaModel,
        *,
        length: int = 0,
        num_sequences: int = DEFAULT_SEQUENCES,
        dtype: str = "float32",
        threads: int | None = None,
        threads_batch: int | None = None,
        flash_attention: bool | None = None,
        is_batch_invariant: bool = False,
    ) -> None:
        """Open it; see :meth:`arbitrage.engines.llamacpp.LlamaEngine.load`.

        Args:
            model: Its weights; not repacked for a batch-invariant context.
            length: Tokens of a sequence.
            num_sequences: How many there are.
            dtype: Of the cache.
            threads: For a single token.
            threads_batch: For several tokens.
            flash_attention: None for no, and for yes in a batch-invariant context.
            is_batch_invariant: Whether only kernels are used that round a token's sums alike however many tokens are
                computed together. That is so on x86-64 for most quantised weights; others must be measured.

        Raises:
            ConfigError: If a number cannot be used.
            CheckpointError: If llama.cpp cannot make a context for the model.
        """
        if dtype not in _CACHE_TYPES:
            raise ConfigError(f"dtype must be one of {', '.join(_CACHE_TYPES)}, got {dtype!r}")
        _check_numbers(model, length, num_sequences, threads=threads, threads_batch=threads_batch)
        self.model, self.num_sequences = model, num_sequences
        self.length = length or min(model.trained_length, DEFAULT_CONTEXT)
        self.flag: CancelFlag | None = None
        """Cancels the call that computes."""
        self.slots = Slots(num_sequences, lambda slot: self.crop(slot, 0))
        self.is_batch_invariant = is_batch_invariant
        self.batch_at_once = _invariant_batch() if is_batch_invariant else MAX_BATCH
        """Tokens in one computation."""
        self.max_batch = 63 if is_batch_invariant else MAX_BATCH
        """Tokens in one call of llama.cpp; between calls a cancellation is noticed."""
        threads = threads or num_physical_cores()
        is_flash = is_batch_invariant if flash_attention is None else flash_attention
        self._context = self._open(dtype, threads, threads_batch or threads, is_flash=is_flash)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._width: int = llama_cpp.llama_model_n_embd(model.pointer)
        self._open_batch()
        self.free = weakref.finalize(self, _free, self._context, self._batch, model)

    def _open_batch(self) -> None:
        """Allocate the batch; its fields are written through views."""
        self._batch = llama_cpp.llama_batch_init(MAX_BATCH, 0, 1)
        self._tokens, self._positions, self._outputs = (
            np.ctypeslib.as_array(part, (MAX_BATCH,))
            for part in (self._batch.token, self._batch.pos, self._batch.logits)
        )
        np.ctypeslib.as_array(self._batch.n_seq_id, (MAX_BATCH,))[:] = 1

    def _open(self, dtype: str, threads: int, threads_batch: int, *, is_flash: bool) -> Any:
        parameters = llama_cpp.llama_context_default_params()
        # Each sequence has its own part of the cache, so that the order of sums does not depend on other sequences.
        parameters.kv_unified, parameters.n_seq_max = False, self.num_sequences
        parameters.n_ctx = -(-self.length // 256) * 256 * self.num_sequences
        parameters.n_batch = MAX_BATCH
        parameters.n_ubatch = self.batch_at_once
        parameters.n_threads, parameters.n_threads_batch = threads, threads_batch
        parameters.type_k = _CACHE_TYPES[dtype]
        parameters.type_v = _CACHE_TYPES[_INVARIANT_VALUES if self.is_batch_invariant else dtype]
        parameters.flash_attn_type = (
            llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if is_flash else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        parameters.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_NONE
        self.arithmetic = {
            "llama_cpp": llama_cpp.__version__,
            "build": llama_cpp.llama_print_system_info().decode(),
            "cache": dtype,
            "batch_invariant": self.is_batch_invariant,
            "batch_at_once": self.batch_at_once,
            "tiled_products": _HAS_TILES,
            "gpu_layers": self.model.num_gpu_layers,
            "flash_attention": is_flash,
            "threads": [threads, threads_batch],
            "sequences": self.num_sequences,
            "length": self.length,
        }
        """The settings that the rounding of logits depends on, besides the weights."""
        with logged_error() as error:
            context = llama_cpp.llama_init_from_model(self.model.pointer, parameters)
        if not context:
            raise CheckpointError(
                f"llama.cpp cannot make a context of {self.num_sequences} times {self.length} tokens: {error()}",
                hint="ask for a shorter context or fewer sequences",
            )
        return context

    def crop(self, slot: int, length: int) -> bool:
        """Forget a sequence's tokens from position ``length`` on; False if this kind of cache cannot, but for all."""
        return bool(llama_cpp.llama_memory_seq_rm(self._memory, slot, length, -1))

    def copy(self, source: int, slot: int) -> None:
        """Make one sequence a copy of another."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, slot, -1, -1)

    def run(
        self, tokens: Sequence[int], positions: Sequence[int], slots: Sequence[int], outputs: Sequence[bool]
    ) -> Logits:
        """Compute one batch, at most ``max_batch`` tokens.

        Args:
            tokens: Their ids.
            positions: Where each stands in its sequence.
            slots: Of each token's sequence.
            outputs: Whether its logits are returned.

        Returns:
            Logits of shape [number of outputs, vocabulary].

        Raises:
            EngineError: If llama.cpp fails.
        """
        if self.flag:
            self.flag.check()
        count = self._batch.n_tokens = len(tokens)
        self._tokens[:count], self._positions[:count], self._outputs[:count] = tokens, positions, outputs
        for index, slot in enumerate(slots):
            self._batch.seq_id[index][0] = slot
        with logged_error() as error:
            status = llama_cpp.llama_decode(self._context, self._batch)
        if status:
            raise EngineError(f"llama.cpp failed on a batch of {count} tokens with status {status}: {error()}")
        num_outputs = sum(outputs)
        if not num_outputs:
            return np.empty((0, self.model.num_tokens), np.float32)
        return _floats(llama_cpp.llama_get_logits(self._context), num_outputs, self.model.num_tokens)

    def run_for_state(self, token: int, position: int, slot: int) -> tuple[Logits, tuple[float, ...]]:
        """Compute one token; its logits of shape [1, vocabulary] and the last layer's state behind the final norm."""
        llama_cpp.llama_set_embeddings(self._context, True)
        try:
            logits = self.run([token], [position], [slot], [True])
            state = _floats(llama_cpp.llama_get_embeddings(self._context), 1, self._width)[0]
        finally:
            llama_cpp.llama_set_embeddings(self._context, False)
        return logits, tuple(state.tolist())


def _invariant_batch() -> int:
    """Tokens in one computation below the width at which llama.cpp takes tiled products, or else tiled attention."""
    return 7 if _HAS_TILES else 63


def _floats(pointer: Any, num_rows: int, width: int) -> Logits:
    """A copy of an output of llama.cpp: the next call overwrites the original."""
    values: Any = (ctypes.c_float * (num_rows * width)).from_address(ctypes.addressof(pointer.contents))
    floats: Logits = np.frombuffer(values, np.float32).reshape(num_rows, width).copy()
    return floats


def _check_numbers(model: LlamaModel, length: int, num_sequences: int, **threads: int | None) -> None:
    """Refuse numbers that llama.cpp does not take.

    Raises:
        ConfigError: With the field, its bounds and the number.
    """
    if not 0 <= length <= model.trained_length:
        raise ConfigError(f"context must be between 1 and the model's {model.trained_length} tokens, got {length}")
    most = llama_cpp.llama_max_parallel_sequences()
    if not 2 <= num_sequences <= most:
        raise ConfigError(f"sequences must be between 2 and {most}, got {num_sequences}")
    for name, number in threads.items():
        if number is not None and not 1 <= number <= MAX_THREADS:
            raise ConfigError(f"{name} must be between 1 and {MAX_THREADS}, got {number}")


def _free(context: Any, batch: Any, model: LlamaModel) -> None:  # noqa: ARG001
    """Free a context; the argument ``model`` keeps the model in memory until then."""
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
