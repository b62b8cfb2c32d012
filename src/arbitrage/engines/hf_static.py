"""KV caches of fixed size for models of transformers: all forward passes over one number of tokens have one shape.

Such a pass can be compiled and captured as a CUDA graph (:mod:`arbitrage.engines.hf_graphs`). Without a GPU the same
passes run eagerly, so that tests cover them on the CPU.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from arbitrage.core.errors import ConfigError
from arbitrage.engines.hf_cache import Branches, HFSequence
from arbitrage.engines.hf_trace import irregular_layers
from arbitrage.engines.slots import DEFAULT_CONTEXT, Slots, SlotSequence

WIDTHS: Final = (1, 8, 32)
"""Tokens in one forward pass; a shorter input is padded to the next width."""
LONGEST_IN_PIECES: Final = 96
"""So many tokens are computed in passes of the widths above; more, as in a prompt, in passes of their own length."""
LONGEST_PASS: Final = 512
"""Tokens of such a pass: its mask has this many rows."""
ALIGNMENT: Final = 8
"""Attention kernels of CUDA read masks whose rows are a multiple of this many numbers."""

Layers: TypeAlias = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, shape [1, heads, tokens, width of a head]."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Results of one forward pass."""

    logits: Tensor | None
    """Shape [positions, vocabulary], of the last positions; None for a model without a language head."""
    states: Tensor | None
    """Last hidden states of all positions, shape [positions, hidden]; None where they are not kept."""


Pass: TypeAlias = Callable[[Tensor, Tensor, Layers, int], Outputs]
"""A forward pass over ids of shape [1, tokens] at positions of shape [tokens], with a sequence's cache; logits are
needed of so many last positions."""


class FixedCache(Cache):  # type: ignore[misc]
    """A cache in memory that exists already; new keys and values are written at the positions of the pass.

    Nothing depends on the number of tokens that it holds: what lies behind a position is masked, and overwritten before
    it becomes visible. Cropping therefore takes no operation.
    """

    def __init__(self, layers: Layers, positions: Tensor) -> None:
        super().__init__(layers=[])
        self._memory, self._positions = layers, positions

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one layer's keys and values; returns those of all positions."""
        keys, values = self._memory[layer_idx]
        keys.index_copy_(2, self._positions, key_states)
        values.index_copy_(2, self._positions, value_states)
        return keys, values


def language_pass(model: PreTrainedModel, *, keeps_states: bool = False) -> Pass:
    """The forward pass of a language model, with its last hidden states if they are kept."""

    def run(ids: Tensor, positions: Tensor, layers: Layers, num_last: int) -> Outputs:
        output = model(
            **_arguments(ids, positions, layers, model.dtype),
            logits_to_keep=num_last,
            **({"output_hidden_states": True} if keeps_states else {}),
        )
        return Outputs(logits=output.logits[0], states=output.hidden_states[-1][0] if keeps_states else None)

    return run


def backbone_pass(model: PreTrainedModel) -> Pass:
    """The forward pass of a model without its head."""
    backbone = model.base_model

    def run(ids: Tensor, positions: Tensor, layers: Layers, num_last: int) -> Outputs:  # noqa: ARG001
        output = backbone(**_arguments(ids, positions, layers, model.dtype))
        return Outputs(logits=None, states=output.last_hidden_state[0])

    return run


class StaticMemory:
    """KV caches for a fixed number of sequences of one model; only the device's thread computes in them."""

    def __init__(self, model: PreTrainedModel, run: Pass, *, length: int, num_sequences: int) -> None:
        """Allocate the caches.

        Args:
            model: Of a kind that :func:`why_not_static` accepts.
            run: Its forward pass.
            length: Tokens of one sequence.
            num_sequences: How many sequences keep their cache.

        Raises:
            ConfigError: If the memory of the device does not hold them.
        """
        self.model, self.length, self.num_sequences, self.path = model, length, num_sequences, "static"
        self.run_eagerly, self.slots = run, Slots(num_sequences)
        self._captured: dict[tuple[int, int], Callable[[Sequence[int], int], Outputs]] = {}
        """Captured passes by slot and width."""
        shapes, num_allocated = _shapes(model), -(-length // ALIGNMENT) * ALIGNMENT
        self.num_bytes = num_sequences * num_allocated * _bytes_per_token(shapes, model.dtype)
        _check_memory(self, model.device)
        self.layers: list[Layers] = [_allocated(shapes, num_allocated, model) for _ in range(num_sequences)]

    def sequence(self) -> "StaticSequence":
        """A new sequence, empty; it takes a slot with its first forward pass."""
        return StaticSequence(self)

    def capture(self, record: Callable[[int, Layers], Callable[[Sequence[int], int], Outputs]]) -> None:
        """Replace the passes of all widths and slots by recorded ones.

        Args:
            record: Records a pass over a number of tokens of one sequence; see :mod:`arbitrage.engines.hf_graphs`.
        """
        widths = [width for width in WIDTHS if width <= self.length]
        self._captured = {
            (slot, width): record(width, layers) for width in widths for slot, layers in enumerate(self.layers)
        }
        self.path = "graphs"

    def run(self, slot: int, tokens: Sequence[int], start: int, num_last: int) -> Outputs:
        """Compute tokens behind the first ``start`` of a sequence.

        Args:
            slot: Where the sequence computes.
            tokens: Their ids.
            start: The position of the first.
            num_last: For how many of the last positions logits are needed.
        """
        parts, first_row = [], len(tokens) - num_last
        done = 0
        while done < len(tokens):
            count, width = self._shape(len(tokens) - done, start + done)
            num_rows = min(count, max(0, done + count - first_row))
            parts.append(self._pass(slot, tokens[done : done + count], start + done, width, num_rows))
            done += count
        logits = [part.logits for part in parts if part.logits is not None and len(part.logits)]
        states = [part.states for part in parts if part.states is not None]
        return Outputs(logits=_joined(logits), states=_joined(states))

    def _shape(self, num_left: int, start: int) -> tuple[int, int]:
        """How many tokens the next pass computes, and over how many positions it runs."""
        if num_left > LONGEST_IN_PIECES:
            count = min(num_left, LONGEST_PASS)
            return count, count
        count = min(num_left, WIDTHS[-1])
        width = next(width for width in WIDTHS if width >= count)
        return count, width if start + width <= self.length else count

    def _pass(self, slot: int, tokens: Sequence[int], start: int, width: int, num_rows: int) -> Outputs:
        """One forward pass over ``width`` positions, of which the last may be padding."""
        padded = [*tokens, *[0] * (width - len(tokens))]
        captured = self._captured.get((slot, width))
        if captured is not None:
            whole = captured(padded, start)
        else:
            device = self.model.device
            positions = torch.arange(start, start + width, device=device)
            num_last = max(1, num_rows + width - len(tokens))
            whole = self.run_eagerly(torch.tensor([padded], device=device), positions, self.layers[slot], num_last)
        return _without_padding(whole, width, len(tokens), num_rows, is_copied=captured is not None)


class StaticSequence(SlotSequence, HFSequence):
    """The KV cache of one sequence in memory of fixed size."""

    def __init__(self, memory: StaticMemory) -> None:
        super().__init__(memory.slots)
        self._memory = memory

    def look_ahead(self, ids: Sequence[int]) -> tuple[float, ...]:
        """See :meth:`arbitrage.engines.cache.CachedTokens.look_ahead`."""
        output = self._append(ids, 1)
        assert output.states is not None
        self._rows = output.logits
        return tuple(output.states[-1].float().tolist())

    def states(self, ids: Sequence[int]) -> Tensor:
        """See :meth:`arbitrage.engines.hf_cache.HFSequence.states`."""
        output = self._append(ids, 0)
        assert output.states is not None
        return output.states[-len(ids) :]

    def _shorten(self, length: int) -> bool:
        return True  # What lies behind is masked.

    def _compute(self, ids: Sequence[int], num_last: int) -> Tensor:
        logits = self._append(ids, num_last).logits
        assert logits is not None
        return logits

    def _append(self, ids: Sequence[int], num_last: int) -> Outputs:
        slot = self.hold()
        with self._appending(ids) as missing:
            return self._memory.run(slot, missing, self._num_computed, num_last)

    def _branches(self, count: int) -> Branches:
        layers, num_tokens = self._memory.layers[self.hold()], len(self)
        cache = DynamicCache()
        for index, (keys, values) in enumerate(layers):
            cache.update(keys[:, :, :num_tokens], values[:, :, :num_tokens], index)
        cache.batch_repeat_interleave(count)
        return Branches(self._memory.model, cache, num_tokens)


def why_not_static(model: PreTrainedModel) -> str:
    """The reason why a model's cache cannot have a fixed size; empty if it can."""
    if (attention := getattr(model.config, "_attn_implementation", "")) not in ("sdpa", "eager"):
        return f"its attention {attention!r} takes no mask of its own"
    kinds = irregular_layers(model)
    return f"it has layers of the kind {kinds}" if kinds else ""


def static_length(model: PreTrainedModel, chosen: int | None) -> int:
    """Tokens of a sequence: the chosen number, else the model's own, at most the default.

    Raises:
        ConfigError: If the chosen number is above the model's own.
    """
    trained: int = getattr(model.config, "max_position_embeddings", DEFAULT_CONTEXT)
    if chosen is not None and not 1 <= chosen <= trained:
        raise ConfigError(f"context_length must be between 1 and the model's {trained} tokens, got {chosen}")
    return chosen or min(trained, DEFAULT_CONTEXT)


def _arguments(ids: Tensor, positions: Tensor, layers: Layers, dtype: torch.dtype) -> dict[str, Any]:
    """What a model needs for a pass with a cache of fixed size."""
    return {
        "input_ids": ids,
        "position_ids": positions[None],
        "attention_mask": _mask(positions, layers, dtype),
        "past_key_values": FixedCache(layers, positions),
        "use_cache": True,
    }


def _mask(positions: Tensor, layers: Layers, dtype: torch.dtype) -> Tensor:
    """An additive mask of shape [1, 1, positions, length]: each token attends to those before it and to itself."""
    columns = torch.arange(layers[0][0].shape[2], device=positions.device)
    hidden = columns[None, :] > positions[:, None]
    return torch.zeros(hidden.shape, dtype=dtype, device=positions.device).masked_fill(hidden, torch.finfo(dtype).min)[
        None, None
    ]


def _shapes(model: PreTrainedModel) -> list[tuple[torch.Size, torch.Size]]:
    """Shapes of each layer's keys and values for one token, read from a forward pass."""
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model.base_model(
            input_ids=torch.zeros((1, 1), dtype=torch.long, device=model.device), past_key_values=cache, use_cache=True
        )
    return [(layer.keys.shape, layer.values.shape) for layer in cache.layers]


def _bytes_per_token(shapes: Sequence[tuple[torch.Size, torch.Size]], dtype: torch.dtype) -> int:
    return sum(keys.numel() + values.numel() for keys, values in shapes) * dtype.itemsize


def _allocated(shapes: Sequence[tuple[torch.Size, torch.Size]], length: int, model: PreTrainedModel) -> Layers:
    def zeros(shape: torch.Size) -> Tensor:
        batch, heads, _, width = shape
        return torch.zeros((batch, heads, length, width), dtype=model.dtype, device=model.device)

    return [(zeros(keys), zeros(values)) for keys, values in shapes]


def _check_memory(memory: StaticMemory, device: torch.device) -> None:
    """Refuse caches that the free memory of a GPU does not hold.

    Raises:
        ConfigError: With the memory that is needed and that is free.
    """
    if device.type != "cuda":
        return
    free, _ = torch.cuda.mem_get_info(device)
    if memory.num_bytes > free:
        raise ConfigError(
            f"context_length = {memory.length} for sequences = {memory.num_sequences} needs "
            f"{memory.num_bytes / 2**30:.1f} GiB for caches on {device}, {free / 2**30:.1f} GiB are free",
            hint="a shorter context_length, or fewer sequences",
        )


def _without_padding(whole: Outputs, width: int, num_tokens: int, num_rows: int, *, is_copied: bool) -> Outputs:
    """The rows of real tokens, copied where the next pass overwrites them."""
    logits, states = whole.logits, whole.states
    if logits is not None:
        end = len(logits) - (width - num_tokens)
        logits = logits[end - num_rows : end]
    if states is not None:
        states = states[:num_tokens]
    if is_copied:
        logits, states = (None if rows is None else rows.clone() for rows in (logits, states))
    return Outputs(logits=logits, states=states)


def _joined(parts: Sequence[Tensor]) -> Tensor | None:
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
