"""Tensors of a checkpoint folder by name, in one file or several; safetensors only."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from arbitrage.core.errors import CheckpointError, MissingExtra, first_line

try:
    from safetensors import SafetensorError, safe_open
    from torch import Tensor
except ImportError as error:
    raise MissingExtra("hf") from error

WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"


def weight_map(folder: Path) -> dict[str, Path]:
    """Map the name of each tensor to its file.

    Raises:
        CheckpointError: If the weights are missing, incomplete or broken.
    """
    index = folder / INDEX
    try:
        if not index.exists():
            with safe_open(folder / WEIGHTS, framework="pt") as file:
                return dict.fromkeys(file.keys(), folder / WEIGHTS)
        file_names: Mapping[str, str] = json.loads(index.read_text())["weight_map"]
        return {name: folder / file_name for name, file_name in file_names.items()}
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"cannot read the weights in {str(folder)!r}: {first_line(error)}",
            hint=f"a checkpoint has {WEIGHTS}, or several files and {INDEX}; .bin files are not read",
        ) from error


def read_tensors(files: Mapping[str, Path], names: Iterable[str]) -> dict[str, Tensor]:
    """Read some tensors into memory.

    Args:
        files: The file of each tensor, from :func:`weight_map`.
        names: The names of the tensors to read.

    Raises:
        CheckpointError: If a file is missing or broken.
    """
    tensors: dict[str, Tensor] = {}
    for name in names:
        try:
            with safe_open(files[name], framework="pt") as file:
                tensors[name] = file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"cannot read {name} from {str(files[name])!r}: {first_line(error)}",
                hint="the checkpoint is incomplete or broken: download it again",
            ) from error
    return tensors
