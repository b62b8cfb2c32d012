"""llama.cpp's own objects behind small classes: a model, its tokenizer, and one context of several sequences."""

import contextlib
import ctypes
import os
import re
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

from arbitrage.core.errors import CheckpointError, ConfigError, EngineError, MissingExtra
from arbitrage.engines.encoding import is_control
from arbitrage.engines.worker import CancelFlag

try:
    import llama_cpp
    import numpy as np
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    from arbitrage.engines.logits import Logits
except ImportError as error:
    raise MissingExtra("llamacpp") from error

DEFAULT_CONTEXT: Final = 4096
"""Tokens of a sequence where nothing is said: models of long context would fill the memory with their cache."""
DEFAULT_SEQUENCES: Final = 4
MAX_BATCH: Final = 512
"""Tokens in one call of llama.cpp; between calls a cancellation is noticed."""
MAX_THREADS: Final = 512
"""``GGML_MAX_N_THREADS``."""
_CACHE_TYPES: Final = {"float32": 0, "float16": 1, "bfloat16": 30}
"""Numbers of ``ggml_type``."""
FILE_TYPES: Final = {"q8_0": 7, "q4_k_m": 15, "q3_k_l": 13}
"""Numbers of ``llama_ftype`` for what :func:`quantize` makes."""


class LlamaModel:
    """A loaded GGUF file."""

    def __init__(self, path: Path, *, device: str = "cpu", gpu_layers: int | None = None) -> None:
        """Load it.

        Args:
            path: The file.
            device: See :meth:`arbitrage.engines.llamacpp.LlamaEngine.load`.
            gpu_layers: Likewise.

        Raises:
            CheckpointError: If it is missing or broken, or its model cannot generate text.
            ConfigError: If this build of llama.cpp has no such device.
        """
        if not path.is_file():
            raise CheckpointError(f"no GGUF file at {str(path)!r}", hint="`arbitrage export-gguf` makes one")
        parameters = llama_cpp.llama_model_default_params()
        _choose_device(parameters, device, gpu_layers)
        self.num_gpu_layers: int = parameters.n_gpu_layers
        with _told() as told:
            llama_cpp.llama_backend_init()
            self.pointer = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.pointer:
            raise CheckpointError(f"cannot load {str(path)!r}: {told()}")
        self.free = weakref.finalize(self, llama_cpp.llama_model_free, self.pointer)
        self.vocabulary = llama_cpp.llama_model_get_vocab(self.pointer)
        self.num_tokens: int = llama_cpp.llama_vocab_n_tokens(self.vocabulary)
        if reason := self._why_it_cannot_generate():
            raise CheckpointError(
                f"{str(path)!r} cannot generate text: {reason}", hint="a draft or target needs a causal language model"
            )

    @property
    def trained_length(self) -> int:
        """Tokens of context that the model was trained for."""
        return int(llama_cpp.llama_model_n_ctx_train(self.pointer))

    def metadata(self, key: str) -> str | None:
        """A scalar of the file's metadata, None where it is missing."""
        size = llama_cpp.llama_model_meta_val_str(self.pointer, key.encode(), ctypes.create_string_buffer(1), 1)
        if size < 0:
            return None
        buffer = ctypes.create_string_buffer(size + 1)
        llama_cpp.llama_model_meta_val_str(self.pointer, key.encode(), buffer, size + 1)
        return buffer.value.decode()

    def _why_it_cannot_generate(self) -> str:
        """The reason, empty for a causal language model."""
        kind = self.metadata("general.architecture")
        if llama_cpp.llama_model_has_encoder(self.pointer) or not llama_cpp.llama_model_has_decoder(self.pointer):
            return f"{kind!r} has an encoder"
        if self.metadata(f"{kind}.attention.causal") == "false":
            return f"{kind!r} is an encoder, whose tokens attend to later ones"
        if self.metadata(f"{kind}.pooling_type") not in (None, "0"):
            return "it pools its states into an embedding or a score"
        if llama_cpp.llama_vocab_type(self.vocabulary) == llama_cpp.LLAMA_VOCAB_TYPE_NONE:
            return "it has no tokenizer"
        return ""


class GGUFTokenizer:
    """The tokenizer in a GGUF file, with as much of the interface of transformers' as engines and prompts use."""

    def __init__(self, model: LlamaModel, name: str) -> None:
        """Read the pieces of all tokens."""
        self._model, self.name_or_path = model, name
        self._pieces = [self._piece(token) for token in range(model.num_tokens)]
        self.end_ids = frozenset(
            token for token in range(model.num_tokens) if llama_cpp.llama_vocab_is_eog(model.vocabulary, token)
        )
        """All tokens that end an answer: end-of-sequence, end-of-turn and their like."""
        self.chat_template = model.metadata("tokenizer.chat_template")
        kinds = [llama_cpp.llama_vocab_get_attr(model.vocabulary, token) for token in range(model.num_tokens)]
        self.control_tokens = {
            self._pieces[token].decode(errors="replace"): token
            for token, kind in enumerate(kinds)
            if self._pieces[token] and self._steers(token, kind)
        }
        """Ids of the tokens that steer a conversation, by their spelling."""
        self._never = {id for id in self.control_tokens.values() if not kinds[id] & llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN}
        is_text = llama_cpp.LLAMA_TOKEN_ATTR_NORMAL | llama_cpp.LLAMA_TOKEN_ATTR_BYTE
        self._bytes = {
            self._pieces[token]: token  # The last one counts: a token of the text before one that stands for a byte.
            for token in sorted(range(len(kinds)), key=lambda token: kinds[token] & llama_cpp.LLAMA_TOKEN_ATTR_NORMAL)
            if kinds[token] & is_text and len(self._pieces[token]) == 1
        }

    def _steers(self, token: int, kind: int) -> bool:
        if kind & (llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN):
            return True
        spelling = self._pieces[token].decode(errors="replace")
        is_added = bool(kind & llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED)
        return is_added and (token in self.end_ids or is_control(spelling, self.chat_template or ""))

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Ids of a text; special tokens that are spelt out in it are read as such, as transformers does."""
        return self._tokenize(text, add_special_tokens, reads_special=True)

    def encode_as_text(self, text: str) -> list[int]:
        """Ids of a text's characters, also where they spell a control token; nothing is put around them."""
        ids: list[int] = []
        for id in self._tokenize(text, adds_special=False, reads_special=False):
            # llama.cpp reads tokens of the kind "user-defined" in any case.
            ids += [id] if id not in self._never else (self._bytes[bytes([byte])] for byte in self._pieces[id])
        return ids

    def _tokenize(self, text: str, adds_special: bool, reads_special: bool) -> list[int]:
        data = text.encode()
        room = len(data) + 2
        while True:
            ids = (llama_cpp.llama_token * room)()
            count = llama_cpp.llama_tokenize(
                self._model.vocabulary, data, len(data), ids, room, adds_special, reads_special
            )
            if count >= 0:
                return list(ids[:count])
            room = -count

    def decode(self, ids: Sequence[int], **options: Any) -> str:
        """Text of ids, special tokens included."""
        return b"".join(self._pieces[id] for id in ids).decode(errors="replace")

    def apply_chat_template(
        self,
        messages: list[dict[str, str]],
        *,
        add_generation_prompt: bool,
        return_dict: bool = False,
        tokenize: bool = True,
    ) -> list[int] | str:
        """Render messages by the file's template, and encode them unless the text itself is wanted.

        The template raises what it likes where it refuses them.
        """
        assert self.chat_template
        begin, end = (self._special(name) for name in ("bos", "eos"))
        render = _template(self.chat_template, end, begin, add_generation_prompt)
        text: str = render(messages=messages).prompt
        return self.encode(text, add_special_tokens=False) if tokenize else text

    def _special(self, name: str) -> str:
        """A special token's text; empty where the file names none, whatever llama.cpp takes by default."""
        id = self._model.metadata(f"tokenizer.ggml.{name}_token_id")
        return "" if id is None else self._pieces[int(id)].decode(errors="replace")

    def _piece(self, token: int) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = llama_cpp.llama_token_to_piece(self._model.vocabulary, token, buffer, size, 0, True)
            if length >= 0:
                return buffer.raw[:length]
            size = -length


class Holder(Protocol):
    """Whoever computes in a context."""

    place: int | None
    """The sequence that it holds; None for one that has not computed anything, or has lost it to another."""

    def lose(self) -> None:
        """Have nothing in the context any more."""


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
    ) -> None:
        """Open it; see :meth:`arbitrage.engines.llamacpp.LlamaEngine.load`.

        Raises:
            ConfigError: If a number cannot be used.
            CheckpointError: If llama.cpp cannot make a context for the model.
        """
        if not 0 <= length <= model.trained_length:
            raise ConfigError(f"context must be between 1 and the model's {model.trained_length} tokens, got {length}")
        if dtype not in _CACHE_TYPES:
            raise ConfigError(f"dtype must be one of {', '.join(_CACHE_TYPES)}, got {dtype!r}")
        most = llama_cpp.llama_max_parallel_sequences()
        if not 2 <= num_sequences <= most:
            raise ConfigError(f"sequences must be between 2 and {most}, got {num_sequences}")
        for name, number in (("threads", threads), ("threads_batch", threads_batch)):
            if number is not None and not 1 <= number <= MAX_THREADS:
                raise ConfigError(f"{name} must be between 1 and {MAX_THREADS}, got {number}")
        self.model, self.num_sequences = model, num_sequences
        self.length = length or min(model.trained_length, DEFAULT_CONTEXT)
        self.flag: CancelFlag | None = None
        """Of the call that computes."""
        self._lock = threading.Lock()  # Sessions close on their own thread, while others compute.
        self._holders: OrderedDict[int, Holder | None] = OrderedDict.fromkeys(range(num_sequences))
        """Who holds each sequence, the longest unused first."""
        threads = threads or _default_threads()
        self._context = self._open(dtype, threads, threads_batch or threads, is_flash=bool(flash_attention))
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._width: int = llama_cpp.llama_model_n_embd(model.pointer)
        self._batch = llama_cpp.llama_batch_init(MAX_BATCH, 0, 1)
        self._tokens, self._positions, self._outputs = (
            np.ctypeslib.as_array(part, (MAX_BATCH,))
            for part in (self._batch.token, self._batch.pos, self._batch.logits)
        )
        np.ctypeslib.as_array(self._batch.n_seq_id, (MAX_BATCH,))[:] = 1
        self.free = weakref.finalize(self, _free, self._context, self._batch, model)

    def _open(self, dtype: str, threads: int, threads_batch: int, *, is_flash: bool) -> Any:
        parameters = llama_cpp.llama_context_default_params()
        # A part of the cache for each sequence, not one for all: then neighbours change no sum's order.
        parameters.kv_unified, parameters.n_seq_max = False, self.num_sequences
        parameters.n_ctx = -(-self.length // 256) * 256 * self.num_sequences
        parameters.n_batch = parameters.n_ubatch = MAX_BATCH
        parameters.n_threads, parameters.n_threads_batch = threads, threads_batch
        parameters.type_k = parameters.type_v = _CACHE_TYPES[dtype]
        parameters.flash_attn_type = (
            llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if is_flash else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        parameters.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_NONE
        self.arithmetic = {
            "llama_cpp": llama_cpp.__version__,
            "build": llama_cpp.llama_print_system_info().decode(),
            "cache": dtype,
            "gpu_layers": self.model.num_gpu_layers,
            "flash_attention": is_flash,
            "threads": [threads, threads_batch],
            "sequences": self.num_sequences,
            "length": self.length,
        }
        """What the rounding of logits depends on besides the weights."""
        with _told() as told:
            context = llama_cpp.llama_init_from_model(self.model.pointer, parameters)
        if not context:
            raise CheckpointError(
                f"llama.cpp makes no context of {self.num_sequences} times {self.length} tokens: {told()}",
                hint="ask for a shorter context or fewer sequences",
            )
        return context

    def hold(self, holder: Holder) -> int:
        """The place of whoever computes; its own if it still has one, else the longest unused, emptied."""
        with self._lock:
            place = holder.place
            if place is None:
                free = (place for place, other in self._holders.items() if other is None)
                place = next(free, next(iter(self._holders)))
                if (former := self._holders[place]) is not None:
                    former.lose()
                self._holders[place], holder.place = holder, place
                self.crop(place, 0)
            self._holders.move_to_end(place)
            return place

    def release(self, holder: Holder) -> None:
        """Take a place back."""
        with self._lock:
            if holder.place is not None:
                self._holders[holder.place] = None
                self._holders.move_to_end(holder.place, last=False)
            holder.lose()

    def crop(self, place: int, length: int) -> bool:
        """Forget a sequence's tokens from position ``length`` on; False if this kind of cache cannot, but for all."""
        return bool(llama_cpp.llama_memory_seq_rm(self._memory, place, length, -1))

    def copy(self, source: int, place: int) -> None:
        """Make one sequence a copy of another."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, place, -1, -1)

    def run(
        self, tokens: Sequence[int], positions: Sequence[int], places: Sequence[int], outputs: Sequence[bool]
    ) -> Logits:
        """Compute one batch, at most :data:`MAX_BATCH` tokens.

        Args:
            tokens: Their ids.
            positions: Where each stands in its sequence.
            places: Of each token's sequence.
            outputs: Whether its logits are wanted.

        Returns:
            Logits of shape [those wanted, vocabulary].

        Raises:
            EngineError: If llama.cpp fails.
        """
        if self.flag:
            self.flag.check()
        count = self._batch.n_tokens = len(tokens)
        self._tokens[:count], self._positions[:count], self._outputs[:count] = tokens, positions, outputs
        for index, place in enumerate(places):
            self._batch.seq_id[index][0] = place
        with _told() as told:
            status = llama_cpp.llama_decode(self._context, self._batch)
        if status:
            raise EngineError(f"llama.cpp failed on a batch of {count} tokens with status {status}: {told()}")
        wanted = sum(outputs)
        if not wanted:
            return np.empty((0, self.model.num_tokens), np.float32)
        return _floats(llama_cpp.llama_get_logits(self._context), wanted, self.model.num_tokens)

    def run_for_state(self, token: int, position: int, place: int) -> tuple[Logits, tuple[float, ...]]:
        """Compute one token; its logits of shape [1, vocabulary] and the last layer's state behind the final norm."""
        llama_cpp.llama_set_embeddings(self._context, True)
        try:
            logits = self.run([token], [position], [place], [True])
            state = _floats(llama_cpp.llama_get_embeddings(self._context), 1, self._width)[0]
        finally:
            llama_cpp.llama_set_embeddings(self._context, False)
        return logits, tuple(state.tolist())


def quantize(source: Path, out: Path, kind: str) -> None:
    """Write a GGUF file with its weights in fewer bits.

    Args:
        source: A GGUF file of 16- or 32-bit weights.
        out: The new one.
        kind: A key of :data:`FILE_TYPES`.

    Raises:
        ConfigError: If the kind is unknown.
        CheckpointError: If llama.cpp cannot.
    """
    if kind not in FILE_TYPES:
        raise ConfigError(f"quantisation must be one of {', '.join(FILE_TYPES)}, got {kind!r}")
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = FILE_TYPES[kind], _default_threads()
    with _told() as told:
        status = llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), parameters)
    if status:
        raise CheckpointError(f"cannot quantise {str(source)!r} to {kind}: {told()}")


def _choose_device(parameters: Any, device: str, gpu_layers: int | None) -> None:
    """Set where a model's layers are computed.

    Raises:
        ConfigError: If there is no such device, or the number of layers does not fit it.
    """
    kind, _, index = device.partition(":")
    if gpu_layers is not None and gpu_layers < 0:
        raise ConfigError(f"gpu_layers must be at least 0, got {gpu_layers}", hint="leave it out for all layers")
    if kind == "cpu":
        if gpu_layers:
            raise ConfigError(
                f"gpu_layers must be 0 on the device {device!r}, got {gpu_layers}", hint='name the device, as in "cuda"'
            )
        parameters.n_gpu_layers = 0
        return
    if not llama_cpp.llama_supports_gpu_offload():
        raise ConfigError(
            f"device must be 'cpu', since this build of llama.cpp supports no accelerator, got {device!r}",
            hint="install llama-cpp-python anew with CMAKE_ARGS such as -DGGML_CUDA=on for another device",
        )
    parameters.n_gpu_layers = -1 if gpu_layers is None else gpu_layers
    if index:
        if not index.isdecimal():
            raise ConfigError(f"a device's number must be a whole number, got {device!r}")
        parameters.split_mode, parameters.main_gpu = llama_cpp.LLAMA_SPLIT_MODE_NONE, int(index)


@lru_cache(maxsize=8)
def _template(source: str, end: str, begin: str, add_generation_prompt: bool) -> Any:
    """Parsed once: that takes longer than many a step."""
    return Jinja2ChatFormatter(source, end, begin, add_generation_prompt=add_generation_prompt)


def _default_threads() -> int:
    """Half of the cores that this process may use.

    Two logical cores often share a physical one, and llama.cpp's threads wait for each other busily at every operation:
    one that has to share its core holds up all others.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2)


def _floats(pointer: Any, num_rows: int, width: int) -> Logits:
    """A copy of what llama.cpp computed: the next call overwrites it."""
    there: Any = (ctypes.c_float * (num_rows * width)).from_address(ctypes.addressof(pointer.contents))
    floats: Logits = np.frombuffer(there, np.float32).reshape(num_rows, width).copy()
    return floats


def _free(context: Any, batch: Any, model: LlamaModel) -> None:  # noqa: ARG001
    """Free a context; that its model is named here keeps it in memory so long."""
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)


_messages: "deque[str]" = deque(maxlen=64)
_ERROR_LEVEL: Final = 4


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _listen(level: int, text: bytes, _: Any) -> None:
    """Keep what llama.cpp says went wrong, and let it print nothing."""
    if level == _ERROR_LEVEL:
        _messages.append(text.decode(errors="replace"))


llama_cpp.llama_log_set(_listen, ctypes.c_void_p(0))


@contextlib.contextmanager
def _told() -> Iterator[Any]:
    """Collects errors that llama.cpp logs meanwhile; yields a function that tells the first of them."""
    _messages.clear()
    yield lambda: re.sub(r"^\w+: ", "", "".join(islice(_messages, 1)).strip()) or "it does not say why"
