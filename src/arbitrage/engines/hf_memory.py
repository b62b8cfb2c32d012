"""Chooses the KV caches of a model of transformers: growing, of fixed size, or of fixed size with CUDA graphs."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from transformers import PreTrainedModel

from arbitrage.core.errors import ConfigError, EngineError
from arbitrage.engines.hf_cache import DynamicMemory, Memory, computing
from arbitrage.engines.hf_graphs import capture
from arbitrage.engines.hf_static import Pass, StaticMemory, static_length, why_not_static
from arbitrage.engines.hf_trace import traced

DEFAULT_SEQUENCES: Final = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """How caches are kept."""

    traces: bool = False
    """Whether the pass over one token is recorded on the CPU, where caches grow."""
    static: bool = False
    """Whether they have a fixed size, also without graphs."""
    compile: bool | None = None
    """Whether forward passes are compiled and captured as CUDA graphs; None for yes on CUDA."""
    context_length: int | None = None
    """Tokens of a sequence in a cache of fixed size; None for the model's own, at most 4,096."""
    sequences: int = DEFAULT_SEQUENCES
    """How many sequences keep their cache at once, where the size is fixed."""

    def captures(self, device: torch.device) -> bool:
        """Whether forward passes are captured on a device.

        Raises:
            ConfigError: If they must be, and the device has no CUDA graphs.
        """
        if self.compile and device.type != "cuda":
            raise ConfigError(
                f"compile = true needs a CUDA device, got {str(device)!r}",
                hint="leave compile out, or name a device such as cuda:0",
            )
        return device.type == "cuda" and self.compile is not False


def memory_for(
    model: PreTrainedModel, make_pass: Callable[[PreTrainedModel], Pass], options: CacheOptions, *, name: str
) -> Memory:
    """Allocate the caches of one model.

    A model whose cache cannot have a fixed size, and a capture that fails, get growing caches with one warning.

    Args:
        model: On its device.
        make_pass: Makes its forward pass for caches of fixed size.
        options: How caches are kept.
        name: The model's, for messages.

    Raises:
        ConfigError: If an option cannot be used, or the device's memory does not hold the caches.
    """
    is_captured = options.captures(model.device)
    if not (options.static or is_captured):
        return DynamicMemory(model, traced(model, name=name) if options.traces else None)
    if reason := why_not_static(model):
        warnings.warn(f"{name!r} runs without a cache of fixed size: {reason}", stacklevel=2)
        return DynamicMemory(model)
    with computing(EngineError, name, model.device):
        memory = StaticMemory(
            model,
            make_pass(model),
            length=static_length(model, options.context_length),
            num_sequences=options.sequences,
        )
        _log.info(
            "%s: caches of %d sequences of %d tokens take %.2f GiB on %s",
            name,
            memory.num_sequences,
            memory.length,
            memory.num_bytes / 2**30,
            model.device,
        )
        if is_captured and not capture(memory, name=name, report=_log.info):
            return DynamicMemory(model)
    return memory
