"""A token sequence that grows, shrinks and is computed only once: shared by hf engine and hf scorers."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel


class CachedSequence:
    """The KV cache of one sequence; any next sequence reuses the longest common prefix."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)
        self._ids: list[int] = []
        self._next_logits: Tensor | None = None
        """Behind the last token, shape [1, vocabulary], where :meth:`look_ahead` left them."""

    def __len__(self) -> int:
        return len(self._ids)

    def reuse(self, ids: Sequence[int]) -> int:
        """Crop the cache to what it shares with ``ids``, short of the last token unless its output is there already.

        Returns:
            How many tokens of ``ids`` need no computing.
        """
        if self._next_logits is not None and self._ids == list(ids):
            return len(ids)
        limit = min(len(self._ids), len(ids) - 1)
        shared = next((i for i in range(limit) if self._ids[i] != ids[i]), limit)
        self.crop(shared)
        return shared

    def crop(self, length: int) -> None:
        """Forget all tokens from position ``length`` on."""
        surplus = len(self._ids) - length
        if surplus > 0:
            self._cache.crop(-surplus)
            del self._ids[length:]
            self._next_logits = None

    def logits(self, ids: Sequence[int], num_last: int = 1) -> Tensor:
        """Append tokens to a language model's sequence.

        Args:
            ids: The tokens.
            num_last: How many positions' logits are wanted; one more than ``ids`` right behind :meth:`look_ahead`.

        Returns:
            Logits of the last positions, shape [num_last, vocabulary].
        """
        known = self._next_logits if num_last > len(ids) else None
        if known is not None and not ids:
            return known
        output = self._append(self._model, ids, logits_to_keep=num_last if known is None else len(ids))
        logits: Tensor = output.logits[0]
        return logits if known is None else torch.cat([known, logits])

    def look_ahead(self, ids: Sequence[int]) -> Tensor:
        """Append tokens to a language model's sequence for their state; what follows them is then known too.

        Returns:
            Last hidden state of the last position, shape [hidden].
        """
        output = self._append(self._model, ids, logits_to_keep=1, output_hidden_states=True)
        self._next_logits = output.logits[0]
        state: Tensor = output.hidden_states[-1][0, -1]
        return state

    def states(self, ids: Sequence[int]) -> Tensor:
        """Append tokens to the backbone's sequence.

        Returns:
            Last hidden states of the new positions, shape [len(ids), hidden].
        """
        output = self._append(self._model.base_model, ids)
        states: Tensor = output.last_hidden_state[0]
        return states

    def _append(self, model: Callable[..., Any], ids: Sequence[int], **options: Any) -> Any:
        # Positions are passed so that the model need not derive them at every token.
        start, device = len(self._ids), self._model.device
        positions = torch.arange(start, start + len(ids), device=device)
        output = model(
            input_ids=torch.tensor([ids], device=device),
            position_ids=positions[None],
            past_key_values=self._cache,
            use_cache=True,
            **options,
        )
        self._ids.extend(ids)
        self._next_logits = None
        return output

    def branches(self, count: int) -> "Branches":
        """Copies of the sequence side by side, to be continued without touching it."""
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(count)
        return Branches(self._model, cache, len(self._ids))


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
