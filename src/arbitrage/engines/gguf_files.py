"""What all readers and writers of GGUF files share: names, kinds of weights, and how an old file is replaced."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from arbitrage.core.errors import ConfigError

SUFFIX: Final = ".gguf"
PLAIN: Final = {"f32": 0, "f16": 1}
"""Kinds that round each weight alone, with their numbers of ``llama_ftype``."""
QUANTISED: Final = {
    "q8_0": 7,
    "q6_k": 18,
    "q5_k_m": 17,
    "q5_k_s": 16,
    "q5_1": 9,
    "q5_0": 8,
    "q4_k_m": 15,
    "q4_k_s": 14,
    "iq4_nl": 25,
    "iq4_xs": 30,
    "q4_1": 3,
    "q4_0": 2,
    "q3_k_l": 13,
    "q3_k_m": 12,
    "q3_k_s": 11,
    "q2_k": 10,
}
"""Kinds that llama.cpp quantises to, likewise. Those that need statistics of activations are left out."""
KINDS: Final = (*PLAIN, *QUANTISED)


def is_gguf(path: str) -> bool:
    """Whether a path ends as GGUF files do, in small letters or capitals."""
    return path.lower().endswith(SUFFIX)


def kind_of(name: str) -> str:
    """A key of :data:`KINDS`, in whatever letters it is written.

    Raises:
        ConfigError: If there is no such kind.
    """
    if name.lower() not in KINDS:
        raise ConfigError(f"type must be one of {', '.join(KINDS)}, got {name!r}")
    return name.lower()


@contextlib.contextmanager
def replaced_when_whole(out: Path) -> Iterator[Path]:
    """Yields a path to write to, in a new folder beside ``out``; its file becomes ``out`` unless the block raises.

    Raises:
        ConfigError: If the file cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".gguf-") as room:
            partial = Path(room) / "new.gguf"
            yield partial
            partial.replace(out)
    except OSError as error:
        raise ConfigError(f"cannot write {str(out)!r}: {error.strerror or error}") from error
