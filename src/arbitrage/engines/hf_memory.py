"""Chooses the KV caches of a model of transformers: growing, of fixed size, or of fixed size with CUDA graphs."""

import logging
import warnings
from collections.abc import Callable

from transformers import PreTrainedModel

from arbitrage.core.errors import EngineError
from arbitrage.engines.cache_options import CacheOptions
from arbitrage.engines.hf_cache import DynamicMemory, Memory, computing
from arbitrage.engines.hf_graphs import capture
from arbitrage.engines.hf_static import Pass, StaticMemory, static_length, why_not_static
from arbitrage.engines.hf_trace import recorded

_log = logging.getLogger(__name__)


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
    device = str(model.device)
    if not options.is_fixed(device):
        return DynamicMemory(model, recorded(model, name=name) if options.traces else None)
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
            device,
        )
        if options.captures(device) and not capture(memory, name=name, report=_log.info):
            return DynamicMemory(model)
    return memory
