"""Convert a Skywork PRM to a sequence-classification checkpoint, which servers and transformers can load."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from arbitrage.core.errors import CheckpointError, ConfigError, MissingExtra, first_line

try:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from arbitrage.scorers.hf_weights import INDEX, WEIGHTS, read_tensors, weight_map
except ImportError as error:
    raise MissingExtra("hf") from error

CONFIG: Final = "config.json"
ARCHITECTURES: Final = {
    "llama": "LlamaForSequenceClassification",
    "mistral": "MistralForSequenceClassification",
    "qwen2": "Qwen2ForSequenceClassification",
    "qwen3": "Qwen3ForSequenceClassification",
}
"""The classifier's architecture by the configuration's ``model_type``."""
RENAMED: Final = {"v_head.summary.weight": "score.weight", "v_head.summary.bias": "score.bias"}
"""New names of the head's tensors. vLLM and this package read ``score.bias``; the classifier of transformers has no
bias."""
_COPIED: Final = frozenset({".json", ".txt", ".model", ".jinja"})
"""Suffixes of the files that are copied: tokenizer and generation settings, no code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """The result of a conversion."""

    folder: Path
    architecture: str
    num_tensors: int
    num_bytes: int


def convert_skywork(source: Path, out: Path) -> Converted:
    """Write a value-head checkpoint as a classifier with one label; memory holds the weights of one file at a time.

    Args:
        source: A folder of Skywork-o1-Open-PRM, or of any model with the same layout.
        out: A folder that does not exist yet; it appears when it is complete.

    Raises:
        ConfigError: If ``out`` exists.
        CheckpointError: If ``source`` is missing, broken, or of another layout, or ``out`` cannot be written.
    """
    if out.exists():
        raise ConfigError(f"the folder {str(out)!r} exists already", hint="name a new folder")
    config, files = _read_config(source), weight_map(source)
    missing = sorted(RENAMED.keys() - files.keys())
    if missing:
        raise CheckpointError(
            f"the checkpoint {str(source)!r} has no {', '.join(missing)}: it is no Skywork PRM",
            hint="name a folder of a Skywork PRM",
        )
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        sizes = _write_weights(files, part)
        (part / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        for file in sorted(source.iterdir()):
            if file.suffix in _COPIED and file.name not in (CONFIG, INDEX):
                shutil.copyfile(file, part / file.name)
        part.rename(out)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write {str(out)!r}: {first_line(error)}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Converted(
        folder=out, architecture=config["architectures"][0], num_tensors=len(sizes), num_bytes=sum(sizes.values())
    )


def _read_config(source: Path) -> dict[str, Any]:
    """The new configuration: a classifier with one label, without remote code."""
    try:
        config: dict[str, Any] = json.loads((source / CONFIG).read_text())
        model_type = config.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"cannot read the configuration in {str(source)!r}: {first_line(error)}") from error
    if model_type not in ARCHITECTURES:
        raise CheckpointError(
            f"{source / CONFIG}: model_type must be one of {', '.join(ARCHITECTURES)}, got {model_type!r}"
        )
    config.pop("auto_map", None)
    labels = {"num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    return {**config, "architectures": [ARCHITECTURES[model_type]], **labels}


def _write_weights(files: Mapping[str, Path], out: Path) -> dict[str, int]:
    """Write the weights of each file with the new names; returns the size of each tensor in bytes, by its new name."""
    groups: dict[Path, list[str]] = {}
    for name, file in files.items():
        if not name.startswith("lm_head."):  # A file with only this tensor is not written.
            groups.setdefault(file, []).append(name)
    sizes: dict[str, int] = {}
    index: dict[str, str] = {}
    for number, file in enumerate(sorted(groups), start=1):
        target = WEIGHTS if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        tensors = {RENAMED.get(name, name): tensor for name, tensor in read_tensors(files, groups[file]).items()}
        save_file(tensors, out / target, metadata={"format": "pt"})
        sizes |= {name: tensor.nbytes for name, tensor in tensors.items()}
        index |= dict.fromkeys(tensors, target)
    if len(groups) > 1:
        record = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": index}
        (out / INDEX).write_text(json.dumps(record, indent=2) + "\n")
    return sizes
