"""A token sequence that grows, shrinks and is computed only once: shared by hf engine and hf scorers."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from arbitrage.core.errors import ArbitrageError, first_line
from arbitrage.engines.cache import CachedTokens


@contextmanager
def computing(error: type[ArbitrageError], name: str) -> Iterator[None]:
    """Compute without gradients; a call that finds no memory raises ``error``, which costs its problem only."""
    try:
        with torch.inference_mode():
            yield
    except torch.OutOfMemoryError as failed:
        raise error(
            f"{name!r} ran out of memory: {first_line(failed)}", hint="lower the number of problems in flight"
        ) from failed


class CachedSequence(CachedTokens):
    """The KV cache of one sequence in a model of transformers; shared by its engine and its scorers."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self._model = model
        self._cache = DynamicCache(config=model.config)
        self._num_computed = 0
        """Of the ids, those that the cache holds: all, but where it could not be cropped."""

    def reuse(self, ids: Sequence[int], num_last: int = 1) -> int:
        """See :meth:`arbitrage.engines.cache.CachedTokens.reuse`; what the cache lacks is computed, and billed."""
        num_held = super().reuse(ids, num_last)
        if self._num_computed == num_held:
            return num_held
        self.close()
        return 0

    def _shorten(self, length: int) -> None:
        try:
            if self._num_computed > length:
                self._cache.crop(length - self._num_computed)
                self._num_computed = length
        except (RuntimeError, NotImplementedError):  # A window that has slid, or a state that only goes forward.
            self._empty()  # Computed anew when it is needed.

    def _compute(self, ids: Sequence[int], num_last: int) -> Tensor:
        logits: Tensor = self._append(self._model, ids, logits_to_keep=num_last).logits[0]
        return logits

    def _joined(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.cat([first, second])

    def look_ahead(self, ids: Sequence[int]) -> tuple[float, ...]:
        """See :meth:`arbitrage.engines.cache.CachedTokens.look_ahead`."""
        output = self._append(self._model, ids, logits_to_keep=1, output_hidden_states=True)
        self._known = output.logits[0]
        return tuple(output.hidden_states[-1][0, -1].float().tolist())

    def states(self, ids: Sequence[int]) -> Tensor:
        """Append tokens to the backbone's sequence.

        Returns:
            Last hidden states of the new positions, shape [len(ids), hidden].
        """
        output = self._append(self._model.base_model, ids)
        states: Tensor = output.last_hidden_state[0, -len(ids) :]
        return states

    def _append(self, model: Callable[..., Any], ids: Sequence[int], **options: Any) -> Any:
        # Positions are passed so that the model need not derive them at every token.
        start, device = self._num_computed, self._model.device
        missing = [*self._ids[start:], *ids]
        positions = torch.arange(start, start + len(missing), device=device)
        output = model(
            input_ids=torch.tensor([missing], device=device),
            position_ids=positions[None],
            past_key_values=self._cache,
            use_cache=True,
            **options,
        )
        self._ids.extend(ids)
        self._num_computed = len(self._ids)
        self._known = None
        return output

    def _empty(self) -> None:
        self._cache, self._num_computed = DynamicCache(config=self._model.config), 0

    def branches(self, count: int) -> "Branches":
        """Copies of the sequence side by side, to be continued without touching it."""
        if self._num_computed < len(self):
            self._append(self._model, [], logits_to_keep=1)
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(count)
        return Branches(self._model, cache, len(self._ids))

    def close(self) -> None:
        """Forget everything."""
        self._empty()
        self._known = None
        self._ids.clear()


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
        """Nothing outlives the object."""
