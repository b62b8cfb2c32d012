"""A GGUF file read by transformers, its weights de-quantised, so that the same file runs on two engines."""

import importlib.util
from pathlib import Path
from typing import Any, Final

from arbitrage.core.errors import CheckpointError, MissingExtra, first_line
from arbitrage.engines.gguf_metadata import GGUFFile

try:
    import torch
    from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase
    from transformers.utils import logging as hf_logging

    from arbitrage.engines.hf_gguf_tokenizer import end_ids, gguf_tokenizer
except ImportError as error:
    raise MissingExtra("hf") from error

_PACKAGES: Final = {"gguf": "gguf", "accelerate": "hf"}
"""What transformers reads GGUF files with, and the extra that installs it."""
_ROPE: Final = "rope_freqs.weight"


def load_gguf(kind: type, path: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Any]:
    """Load a model class with its tokenizer.

    Everything that transformers would leave out of the file in silence is either carried over here or an error.

    Args:
        kind: An auto class of transformers.
        path: The file.
        dtype: Of the de-quantised weights.

    Returns:
        Model, tokenizer, and transformers' report on the weights.

    Raises:
        CheckpointError: If the file is missing or broken, or transformers cannot read its architecture, its tokenizer
            or all of its weights.
        MissingExtra: If transformers lacks a package for it.
    """
    for package, extra in _PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(extra)
    hf_logging.disable_progress_bar()
    file = GGUFFile(path)
    source: dict[str, Any] = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    try:
        config = AutoConfig.from_pretrained(**source)
    except Exception as error:  # transformers has no common error; this one comes before any weight is read.
        raise CheckpointError(
            f"transformers cannot read {str(path)!r} of the architecture {file.architecture!r}: {first_line(error)}",
            hint='try engine = "llamacpp"',
        ) from error
    tokenizer = gguf_tokenizer(file.metadata, path)
    divisors = _rope_divisors(file)
    model, report = kind.from_pretrained(  # type: ignore[attr-defined]
        **source, config=config, dtype=dtype, output_loading_info=True
    )
    num_read = sum(weight.numel() for weight in model.parameters())
    num_weights = sum(tensor.num_elements for name, tensor in file.tensors.items() if name != _ROPE)
    if not report["missing_keys"] and num_read < num_weights:
        raise CheckpointError(
            f"transformers reads {num_read} of the {num_weights} weights in {str(path)!r}",
            hint='set engine = "llamacpp", which reads all of them',
        )
    if divisors is not None:
        _divide_frequencies(model, divisors, path)
    if (generation := getattr(model, "generation_config", None)) and (ends := end_ids(file.metadata)):
        generation.eos_token_id = sorted(ends)
    return model, tokenizer, report


def _rope_divisors(file: GGUFFile) -> torch.Tensor | None:
    """By what each frequency of the position encoding is divided, or one number for all; None for nothing.

    Raises:
        CheckpointError: If the file stretches positions in a way that is not carried over.
    """
    if (divisors := file.floats(_ROPE)) is not None:
        return torch.tensor(divisors)
    prefix = f"{file.architecture}.rope.scaling"
    scaling = file.metadata.get(f"{prefix}.type", "none")
    if scaling == "linear":
        return torch.tensor([file.metadata[f"{prefix}.factor"]])
    if scaling != "none":
        raise CheckpointError(
            f"{str(file.path)!r} stretches positions by {scaling!r}, which transformers does not read from it",
            hint='set engine = "llamacpp", which reads it',
        )
    return None


def _divide_frequencies(model: PreTrainedModel, divisors: torch.Tensor, path: Path) -> None:
    """Stretch the position encoding as the file says; transformers leaves it out."""
    encodings = [module for module in model.modules() if hasattr(module, "inv_freq")]
    if not encodings or any(len(divisors) not in (1, len(encoding.inv_freq)) for encoding in encodings):
        raise CheckpointError(
            f"the position encoding of {str(path)!r} does not fit the model of transformers",
            hint='try engine = "llamacpp"',
        )
    for encoding in encodings:
        encoding.inv_freq = encoding.inv_freq / divisors.to(encoding.inv_freq)
        encoding.original_inv_freq = encoding.inv_freq.clone()  # One tensor under two names cannot be traced.
