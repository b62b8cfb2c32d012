"""A token sequence that grows, shrinks and is computed only once: shared by hf engine and hf scorers."""

import abc
import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final, Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import DynamicCache, PreTrainedModel

from arbitrage.core.errors import ArbitrageError, first_line
from arbitrage.engines.cache import CachedTokens
from arbitrage.engines.hf_trace import RecordedPasses

GPU_ATTENTION: Final = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
"""Attention on CUDA without cuDNN, which plans anew for every length of a sequence: each token has a new one."""


@contextmanager
def computing(error: type[ArbitrageError], name: str, device: torch.device) -> Iterator[None]:
    """Compute without gradients; a call that finds no memory raises ``error``, which costs its problem only."""
    try:
        with torch.inference_mode(), sdpa_kernel([*GPU_ATTENTION]) if device.type == "cuda" else nullcontext():
            yield
    except torch.OutOfMemoryError as failed:
        raise error(
            f"{name!r} ran out of memory: {first_line(failed)}", hint="lower the number of problems in flight"
        ) from failed


class HFSequence(CachedTokens):
    """The KV cache of one sequence in a model of transformers; shared by its engine and its scorers."""

    @abc.abstractmethod
    def states(self, ids: Sequence[int]) -> Tensor:
        """Append tokens to the backbone's sequence.

        Returns:
            Last hidden states of the new positions, shape [len(ids), hidden].
        """

    def joined(self, first: Tensor, second: Tensor) -> Tensor:
        """See :meth:`arbitrage.engines.cache.CachedTokens.joined`."""
        return torch.cat([first, second])


class Memory(Protocol):
    """The KV caches of one model's sequences."""

    @property
    def path(self) -> str:
        """How forward passes run: ``eager``, ``traced``, ``static`` or ``graphs``."""

    @property
    def length(self) -> int | None:
        """Tokens that a sequence may have; None for as many as the model takes."""

    def sequence(self) -> HFSequence:
        """A new sequence, empty."""


class DynamicMemory:
    """A cache for each sequence that grows with it: any kind of model, any number of sequences."""

    length: int | None = None

    def __init__(self, model: PreTrainedModel, recorded: RecordedPasses | None = None) -> None:
        """Start without sequences.

        Args:
            model: Any model.
            recorded: Its recorded passes; None to call the model for every pass.
        """
        self._model, self._recorded = model, recorded
        self.path: str = "eager" if recorded is None else "traced"

    def sequence(self) -> "DynamicSequence":
        """A new sequence, empty."""
        return DynamicSequence(self._model, self._recorded)


class DynamicSequence(HFSequence):
    """A KV cache that grows with its sequence."""

    def __init__(self, model: PreTrainedModel, recorded: RecordedPasses | None = None) -> None:
        super().__init__()
        self._model, self._recorded = model, recorded
        self._cache = DynamicCache(config=model.config)

    def close(self) -> None:
        """Forget all tokens."""
        super().close()
        self._cache = DynamicCache(config=self._model.config)

    def look_ahead(self, ids: Sequence[int]) -> tuple[float, ...]:
        """See :meth:`arbitrage.engines.cache.CachedTokens.look_ahead`."""
        output = self._append(self._model, ids, logits_to_keep=1, output_hidden_states=True)
        self._rows = output.logits[0]
        return tuple(output.hidden_states[-1][0, -1].float().tolist())

    def states(self, ids: Sequence[int]) -> Tensor:
        """See :meth:`HFSequence.states`."""
        output = self._append(self._model.base_model, ids)
        states: Tensor = output.last_hidden_state[0, -len(ids) :]
        return states

    def _shorten(self, length: int) -> bool:
        try:
            self._cache.crop(length - self._num_computed)
        except (RuntimeError, NotImplementedError):  # A window that has slid, or a state that only goes forward.
            self._cache = DynamicCache(config=self._model.config)
            return False
        return True

    def _compute(self, ids: Sequence[int], num_last: int) -> Tensor:
        recorded = self._recorded
        if recorded is not None and recorded.takes(self._num_computed, len(self) + len(ids) - self._num_computed):
            with self._appending(ids) as missing:
                return recorded(self._cache, missing, self._num_computed, num_last)
        logits: Tensor = self._append(self._model, ids, logits_to_keep=num_last).logits[0]
        return logits

    def _append(self, model: Callable[..., Any], ids: Sequence[int], **options: Any) -> Any:
        device = self._model.device
        with self._appending(ids) as missing:
            # Positions are passed so that the model need not derive them at every token.
            positions = torch.arange(self._num_computed, len(self), device=device)
            return model(
                input_ids=torch.tensor([missing], device=device),
                position_ids=positions[None],
                past_key_values=self._cache,
                use_cache=True,
                **options,
            )

    def _branches(self, count: int) -> "Branches":
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(count)
        return Branches(self._model, cache, len(self))


class Branches:
    """Continuations of one sequence, all equally long, so that nothing is padded."""

    def __init__(self, model: PreTrainedModel, cache: DynamicCache, length: int) -> None:
        self._model, self._cache, self._length = model, cache, length

    def logits(self, tokens: Sequence[int]) -> Tensor:
        """Append one token to each branch; returns logits of shape [branches, vocabulary]."""
        device = self._model.device
        output = self._model(
            input_ids=torch.tensor(tokens, device=device)[:, None],
            position_ids=torch.full((len(tokens), 1), self._length, device=device),
            past_key_values=self._cache,
            use_cache=True,
        )
        self._length += 1
        logits: Tensor = output.logits[:, -1]
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other branches."""
        self._cache.batch_select_indices(torch.tensor(rows, device=self._model.device))

    def close(self) -> None:
        """The cache is freed with the object."""
