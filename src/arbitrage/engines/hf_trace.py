"""Forward passes recorded once for the CPU: the same operations without Python between them.

A small model computes a few tokens in less time than Python needs to call its modules. ``torch.jit.trace`` records the
operations, and TorchScript runs them; it needs no compiler. Results are those of the model, to the last bit, or up to
the rounding of its data type where the memory layout of a tensor differs.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from arbitrage.core.errors import first_line

R = TypeVar("R")
ONE: Final = (3, 1), (7, 1)
"""Tokens in the cache and in the pass: of the pass over one token that is recorded, then of those that check it."""
SEVERAL: Final = (3, 3), (7, 2), (2, 5), (0, 4)
"""The same of the pass over several."""
MAX_TOKENS: Final = 64
"""The widest pass that is recorded: in wider ones Python's share of the time is small."""


class RecordedPasses:
    """Recorded forward passes over one token behind others, and over several behind any number."""

    def __init__(self, model: PreTrainedModel, *, name: str) -> None:
        """Record the pass over one token; the one over several is recorded at its first use.

        Args:
            model: On the CPU, with layers of caches that all grow (:func:`irregular_layers`).
            name: The model's, for a warning where the pass over several tokens cannot be recorded.

        Raises:
            Exception: Of any kind, where torch cannot record the model; AssertionError if the record computes other
                numbers than the model.
        """
        self._model, self._name = model, name
        self._one = _recorded(_OneToken(model), ONE)

    @cached_property
    def _several(self) -> Any:
        """The record of the pass over several tokens; None where there can be none."""
        return _without_failure(
            lambda: _recorded(_SeveralTokens(self._model), SEVERAL), self._name, "pass over several tokens"
        )

    @cached_property
    def _nothing(self) -> list[Tensor]:
        """The parts of an empty cache."""
        return _parts_of(self._model, 0)

    def takes(self, num_before: int, num_tokens: int) -> bool:
        """Whether there is a record for a pass over so many tokens behind so many in the cache."""
        if num_tokens == 1:
            return num_before > 0
        return num_tokens <= MAX_TOKENS and self._several is not None

    def __call__(self, cache: DynamicCache, ids: Sequence[int], position: int, num_last: int) -> Tensor:
        """Compute tokens and append them to the cache.

        Args:
            cache: Holds the tokens before them.
            ids: As many as :meth:`takes` allows.
            position: Of the first of them.
            num_last: For how many of the last ones logits are needed.

        Returns:
            Logits of shape [num_last, vocabulary].
        """
        tokens, positions = torch.tensor([ids]), torch.arange(position, position + len(ids))[None]
        if len(ids) == 1:
            logits, *grown = self._one(tokens, positions, *_parts(cache))
        else:
            mask, kept = _mask(position, len(ids), self._model.dtype), torch.arange(len(ids) - num_last, len(ids))
            memory = _parts(cache) if position else self._nothing
            logits, *grown = self._several(tokens, positions, mask, kept, *memory)
        _set_parts(cache, grown)
        return logits[0]  # type: ignore[no-any-return]


class _ModelPass(nn.Module):
    """A model's pass as a function of tensors alone: ids, positions, options, and the parts of its cache."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def options(self, num_before: int, num_tokens: int) -> tuple[Tensor, ...]:
        """The options of a pass over tokens behind others."""
        return ()


class _OneToken(_ModelPass):
    """Over one token, without options."""

    def forward(self, ids: Tensor, positions: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        return _run(self.model, ids, positions, memory, logits_to_keep=1)


class _SeveralTokens(_ModelPass):
    """Over several tokens; the options are the mask, and the positions whose logits count."""

    def forward(
        self, ids: Tensor, positions: Tensor, mask: Tensor, kept: Tensor, *memory: Tensor
    ) -> tuple[Tensor, ...]:
        return _run(self.model, ids, positions, memory, attention_mask=mask, logits_to_keep=kept)

    def options(self, num_before: int, num_tokens: int) -> tuple[Tensor, ...]:
        return _mask(num_before, num_tokens, self.model.dtype), torch.arange(num_tokens)


def _run(
    model: PreTrainedModel, ids: Tensor, positions: Tensor, memory: Sequence[Tensor], **options: Any
) -> tuple[Tensor, ...]:
    cache = DynamicCache(config=model.config)
    _set_parts(cache, memory)
    output = model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, **options)
    return output.logits, *_parts(cache)


def _mask(num_before: int, num_tokens: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scores of attention so that no token attends to a later one, shape [1, 1, tokens, all]."""
    own = torch.full((num_tokens, num_tokens), -torch.inf, dtype=dtype).triu(1)
    return torch.cat([torch.zeros(num_tokens, num_before, dtype=dtype), own], dim=1)[None, None]


def _recorded(module: _ModelPass, sizes: Sequence[tuple[int, int]]) -> Any:
    """Record a pass of the first size, and check the record with all sizes.

    Raises:
        Exception: See :class:`RecordedPasses`.
    """
    model = module.model
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of its deprecation, and of conditions on shapes: the checks cover them.
        record: Any = torch.jit.trace
        run: Any = None
        for num_before, num_tokens in sizes:
            ids = torch.arange(1, num_tokens + 1)[None]
            positions = torch.arange(num_before, num_before + num_tokens)[None]
            memory = _parts_of(model, num_before)
            example = ids, positions, *module.options(num_before, num_tokens), *memory
            run = run or record(module, example, check_trace=False)
            for _ in range(2):  # The first run of a record plans the others.
                outputs = run(*example)
            expected = _run(model, ids, positions, memory, logits_to_keep=num_tokens)
            torch.testing.assert_close(outputs, expected, msg="it computes other numbers than the model")
    return run


def _parts_of(model: PreTrainedModel, length: int) -> list[Tensor]:
    """The parts of a cache that holds ``length`` tokens."""
    cache = DynamicCache(config=model.config)
    model(input_ids=torch.arange(max(1, length))[None], past_key_values=cache, use_cache=True)
    return [part[:, :, :length] for part in _parts(cache)]


def _parts(cache: DynamicCache) -> list[Tensor]:
    """Keys and values of each layer, one behind the other."""
    return [part for layer in cache.layers for part in (layer.keys, layer.values)]


def _set_parts(cache: DynamicCache, parts: Sequence[Tensor]) -> None:
    """Replace the content of a cache."""
    for layer, keys, values in zip(cache.layers, parts[::2], parts[1::2], strict=True):
        if not layer.is_initialized:
            layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values


def irregular_layers(model: PreTrainedModel) -> str:
    """Names of the kinds of a model's cache layers that do not simply grow with the sequence; empty if all do."""
    layers = DynamicCache(config=model.config).layers
    return ", ".join(sorted({type(layer).__name__ for layer in layers if type(layer) is not DynamicLayer}))


def recorded(model: PreTrainedModel, *, name: str) -> RecordedPasses | None:
    """Record a model's passes; None with a warning where that fails, and without one where it cannot be.

    Args:
        model: Any model.
        name: Its name, for the warning.
    """
    if model.device.type != "cpu" or irregular_layers(model):
        return None
    return _without_failure(lambda: RecordedPasses(model, name=name), name, "pass")


def _without_failure(record: Callable[[], R], name: str, what: str) -> R | None:
    try:
        return record()
    except Exception as error:  # The tracer, the model and its layers have no common error.
        warnings.warn(f"{name!r} runs without a recorded {what}, recording failed: {first_line(error)}", stacklevel=2)
        return None
