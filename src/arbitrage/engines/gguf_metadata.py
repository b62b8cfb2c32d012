"""What stands in a GGUF file before its weights, read in well under a second.

The package gguf makes an object of every string, which takes ten seconds for a vocabulary of 150,000 tokens.
"""

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

from arbitrage.core.errors import CheckpointError, first_line

_STRING, _ARRAY = 8, 9
_NUMBERS: Final = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""Formats of ``struct`` by numbers of ``gguf_type``."""
_FLOAT32: Final = 0
"""Of ``ggml_type``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """Where a tensor is, and how large."""

    num_elements: int
    kind: int
    """A number of ``ggml_type``."""
    offset: int
    """From the beginning of the file."""


class GGUFFile:
    """Metadata of a GGUF file, and a list of its tensors."""

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            CheckpointError: If the file is missing or broken.
        """
        if not path.is_file():
            raise CheckpointError(f"no GGUF file at {str(path)!r}", hint="`arbitrage export-gguf` makes one")
        self.path = path
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, TensorInfo] = {}
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                self._read(_Cursor(data))
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            raise CheckpointError(f"cannot read {str(path)!r}: {first_line(error)}") from error

    @property
    def architecture(self) -> str:
        """What llama.cpp calls the kind of model."""
        return str(self.metadata.get("general.architecture", ""))

    def floats(self, name: str) -> tuple[float, ...] | None:
        """A small tensor of 32-bit numbers; None where there is no such tensor."""
        tensor = self.tensors.get(name)
        if tensor is None or tensor.kind != _FLOAT32:
            return None
        with self.path.open("rb") as file:
            file.seek(tensor.offset)
            return struct.unpack(f"<{tensor.num_elements}f", file.read(4 * tensor.num_elements))

    def _read(self, cursor: "_Cursor") -> None:
        magic, version, num_tensors, num_keys = cursor.take("<4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"it begins with {magic!r} and version {version}")
        for _ in range(num_keys):
            key = cursor.string()
            self.metadata[key] = cursor.value(cursor.take("<I")[0])
        places = {}
        for _ in range(num_tensors):
            name = cursor.string()
            (num_dimensions,) = cursor.take("<I")
            *shape, kind, offset = cursor.take(f"<{num_dimensions}QIQ")
            places[name] = prod(shape), kind, offset
        alignment = int(self.metadata.get("general.alignment", 32))
        start = -(-cursor.position // alignment) * alignment
        for name, (num_elements, kind, offset) in places.items():
            self.tensors[name] = TensorInfo(num_elements=num_elements, kind=kind, offset=start + offset)


class _Cursor:
    """Reads values one behind the other."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self.position = 0

    def take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(form, self._data, self.position)
        self.position += struct.calcsize(form)
        return values

    def string(self) -> str:
        (length,) = self.take("<Q")
        start, self.position = self.position, self.position + length
        if self.position > len(self._data):
            raise ValueError("the file ends too early")
        return self._data[start : self.position].decode(errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.take(f"<{_NUMBERS[kind]}")[0]
        kind, length = self.take("<IQ")
        if kind in (_STRING, _ARRAY):
            return [self.value(kind) for _ in range(length)]
        return list(self.take(f"<{length}{_NUMBERS[kind]}"))
