"""llama.cpp's own objects behind small classes: a model and its tokenizer."""

import contextlib
import ctypes
import re
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

from arbitrage.core.errors import CheckpointError, ConfigError, MissingExtra
from arbitrage.engines.encoding import is_control

try:
    import llama_cpp
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter
except ImportError as error:
    raise MissingExtra("llamacpp") from error


class LlamaModel:
    """A loaded GGUF file."""

    def __init__(
        self, path: Path, *, device: str = "cpu", gpu_layers: int | None = None, is_repacked: bool = True
    ) -> None:
        """Load it.

        Args:
            path: The file.
            device: See :meth:`arbitrage.engines.llamacpp.LlamaEngine.load`.
            gpu_layers: Likewise.
            is_repacked: Whether weights may be put in the order of kernels that are faster for several tokens.

        Raises:
            CheckpointError: If it is missing or broken, or its model cannot generate text.
            ConfigError: If this build of llama.cpp has no such device.
        """
        if not path.is_file():
            raise CheckpointError(f"no GGUF file at {str(path)!r}", hint="`arbitrage export-gguf` makes one")
        parameters = llama_cpp.llama_model_default_params()
        _choose_device(parameters, device, gpu_layers)
        parameters.use_extra_bufts = self.is_repacked = is_repacked
        self.num_gpu_layers: int = parameters.n_gpu_layers
        with logged_error() as error:
            llama_cpp.llama_backend_init()
            self.pointer = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.pointer:
            raise CheckpointError(f"cannot load {str(path)!r}: {error()}")
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
        self.token_bytes = {
            token: piece
            for token, piece in enumerate(self._pieces)
            if not kinds[token] & llama_cpp.LLAMA_TOKEN_ATTR_UNUSED and piece != f"[PAD{token}]".encode()
        }
        """Bytes of each token by its id, without the padding of the embeddings, which converters name ``[PAD7]``."""
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

        A template may raise any exception when it refuses messages.
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


def is_cpu(device: str) -> bool:
    """Whether a device is the CPU, with or without a number."""
    return device.partition(":")[0] == "cpu"


def _choose_device(parameters: Any, device: str, gpu_layers: int | None) -> None:
    """Set where a model's layers are computed.

    Raises:
        ConfigError: If there is no such device, or the number of layers does not fit it.
    """
    index = device.partition(":")[2]
    if gpu_layers is not None and gpu_layers < 0:
        raise ConfigError(f"gpu_layers must be at least 0, got {gpu_layers}", hint="leave it out for all layers")
    if is_cpu(device):
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


_messages: "deque[str]" = deque(maxlen=64)
_ERROR_LEVEL: Final = 4


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _listen(level: int, text: bytes, _: Any) -> None:
    """Keep errors that llama.cpp logs; it prints nothing."""
    if level == _ERROR_LEVEL:
        _messages.append(text.decode(errors="replace"))


llama_cpp.llama_log_set(_listen, ctypes.c_void_p(0))


@contextlib.contextmanager
def logged_error() -> Iterator[Any]:
    """Collects errors that llama.cpp logs meanwhile; yields a function that returns the first of them."""
    _messages.clear()
    yield lambda: re.sub(r"^\w+: ", "", "".join(islice(_messages, 1)).strip()) or "llama.cpp gives no reason"
