"""A token sequence that grows, shrinks and is computed only once: shared by hf engine and hf scorers."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel


class CachedSequence:
    """The KV cache of one sequence; any next sequence reuses the longest common prefix."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)
        self._ids: list[int] = []

    def __len__(self) -> int:
        return len(self._ids)

    def reuse(self, ids: Sequence[int]) -> int:
        """Crop the cache to what it shares with ``ids``, short of the last token: its output is wanted.

        Returns:
            How many tokens of ``ids`` need no computing.
        """
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

    def logits(self, ids: Sequence[int], num_last: int = 1) -> Tensor:
        """Append tokens to a language model's sequence.

        Returns:
            Logits of the last ``num_last`` positions, shape [num_last, vocabulary].
        """
        output = self._model(**self._inputs(ids), past_key_values=self._cache, use_cache=True, logits_to_keep=num_last)
        self._ids.extend(ids)
        logits: Tensor = output.logits[0]
        return logits

    def states(self, ids: Sequence[int]) -> Tensor:
        """Append tokens to the backbone's sequence.

        Returns:
            Last hidden states of the new positions, shape [len(ids), hidden].
        """
        output = self._model.base_model(**self._inputs(ids), past_key_values=self._cache, use_cache=True)
        self._ids.extend(ids)
        states: Tensor = output.last_hidden_state[0]
        return states

    def _inputs(self, ids: Sequence[int]) -> dict[str, Tensor]:
        # Positions are passed so that the model need not derive them at every token.
        start, device = len(self._ids), self._model.device
        positions = torch.arange(start, start + len(ids), device=device)
        return {"input_ids": torch.tensor([ids], device=device), "position_ids": positions[None]}
