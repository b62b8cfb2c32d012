"""GGUF files with their weights in another kind, written by llama.cpp."""

from pathlib import Path
from typing import Final

from arbitrage.core.errors import CheckpointError, ConfigError, MissingExtra
from arbitrage.engines.cores import num_physical_cores
from arbitrage.engines.gguf_files import PLAIN, QUANTISED, kind_of, replaced_when_whole

try:
    import llama_cpp

    from arbitrage.engines.llamacpp_native import logged_error
except ImportError as error:
    raise MissingExtra("llamacpp") from error

_MAGIC: Final = b"GGUF"


def requantise(source: Path, out: Path, kind: str) -> None:
    """Write a GGUF file anew with its weights in another kind.

    A target's own weights in fewer bits can be its draft. Weights that are quantised already are rounded twice: from a
    file of 16 bits, the same kind keeps more.

    Args:
        source: The file.
        out: The new one; an existing file is replaced when the new one is whole.
        kind: One of :data:`arbitrage.engines.gguf_files.KINDS`.

    Raises:
        ConfigError: If the kind is unknown, the two files are the same, or the new one cannot be written.
        CheckpointError: If the file is missing, is no GGUF file, or llama.cpp cannot quantise it.
    """
    kind = kind_of(kind)
    try:
        with source.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise CheckpointError(f"cannot read {str(source)!r}: {error.strerror or error}") from error
    if magic != _MAGIC:
        raise CheckpointError(f"{str(source)!r} is no GGUF file: it begins with {magic!r}")
    if out.exists() and out.samefile(source):
        raise ConfigError(f"the output file {str(out)!r} is also the input file", hint="name another file to write")
    with replaced_when_whole(out) as partial:
        quantise(source, partial, kind)


def quantise(source: Path, out: Path, kind: str) -> None:
    """Write a GGUF file with its weights in another kind, without the checks of :func:`requantise`.

    Args:
        source: A GGUF file.
        out: The new one.
        kind: A key of :data:`arbitrage.engines.gguf_files.PLAIN` or :data:`~arbitrage.engines.gguf_files.QUANTISED`.

    Raises:
        CheckpointError: If llama.cpp cannot read the file, or cannot quantise it.
    """
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = {**PLAIN, **QUANTISED}[kind], num_physical_cores()
    parameters.allow_requantize = True
    with logged_error() as error:
        status = llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), parameters)
    if status:
        raise CheckpointError(f"cannot quantise {str(source)!r} to {kind}: {error()}")
