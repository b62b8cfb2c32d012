"""The forward pass over one token, recorded once for the CPU: the same operations without Python between them.

A small model computes a token in less time than Python needs to call its modules. ``torch.jit.trace`` records the
operations, and TorchScript runs them; it needs no compiler. Results are those of the model, to the last bit, or up to
the rounding of its data type where the memory layout of a tensor differs.
"""

import warnings
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from arbitrage.core.errors import first_line

LENGTHS: Final = (3, 7)
"""Tokens before the one that is recorded, and before the one that checks the record."""


class TracedToken:
    """A recorded forward pass over one token behind a cache of any length."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Record it, and check that the record does not depend on the length that it was made with.

        Args:
            model: On the CPU, with layers of caches that all grow (:func:`irregular_layers`).

        Raises:
            Exception: Of any kind, where torch cannot record the model; AssertionError if the record computes other
                numbers than the model.
        """
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of its deprecation, and of conditions on shapes: the check covers them.
            example = _example(model, LENGTHS[0])
            record: Any = torch.jit.trace
            self._run = record(_OneToken(model), example, check_trace=False)
            for length in LENGTHS:
                example = _example(model, length)
                for _ in range(2):  # The first run of a record plans the others.
                    outputs = self._run(*example)
                expected = _OneToken(model)(*example)
                torch.testing.assert_close(outputs, expected, msg="it computes other numbers than the model")

    def __call__(self, cache: DynamicCache, token: int, position: int) -> Tensor:
        """Compute a token and append it to the cache; returns its logits, shape [1, vocabulary]."""
        logits, *grown = self._run(torch.tensor([[token]]), torch.tensor([[position]]), *_parts(cache))
        for layer, keys, values in zip(cache.layers, grown[::2], grown[1::2], strict=True):
            layer.keys, layer.values = keys, values
        return logits[0]  # type: ignore[no-any-return]


class _OneToken(nn.Module):
    """A model as a function of tensors alone."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, positions: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        cache = DynamicCache(config=self.model.config)
        for layer, keys, values in zip(cache.layers, memory[::2], memory[1::2], strict=True):
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values
        output = self.model(
            input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        return output.logits, *_parts(cache)


def irregular_layers(model: PreTrainedModel) -> str:
    """Names of the kinds of a model's cache layers that do not simply grow with the sequence; empty if all do."""
    layers = DynamicCache(config=model.config).layers
    return ", ".join(sorted({type(layer).__name__ for layer in layers if type(layer) is not DynamicLayer}))


def traced(model: PreTrainedModel, *, name: str) -> TracedToken | None:
    """Record a model's pass over one token; None with a warning where that fails, and without one where it cannot be.

    Args:
        model: Any model.
        name: Its name, for the warning.
    """
    if model.device.type != "cpu" or irregular_layers(model):
        return None
    try:
        return TracedToken(model)
    except Exception as error:  # The tracer, the model and its layers have no common error.
        warnings.warn(f"{name!r} runs without a recorded pass, recording failed: {first_line(error)}", stacklevel=2)
        return None


def _example(model: PreTrainedModel, length: int) -> tuple[Tensor, ...]:
    """Arguments for one token behind ``length`` others."""
    cache = DynamicCache(config=model.config)
    model(input_ids=torch.arange(length)[None], past_key_values=cache, use_cache=True)
    return torch.tensor([[1]]), torch.tensor([[length]]), *_parts(cache)


def _parts(cache: DynamicCache) -> list[Tensor]:
    """Keys and values of each layer, one behind the other."""
    return [part for layer in cache.layers for part in (layer.keys, layer.values)]
