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
        self._known: Tensor | None = None
        """Logits behind the last tokens, shape [positions, vocabulary]: what was computed need not be again."""

    def __len__(self) -> int:
        return len(self._ids)

    def reuse(self, ids: Sequence[int], num_last: int = 1) -> int:
        """Crop the cache to what it shares with ``ids``, and further where outputs that are wanted would be missing.

        Args:
            ids: The sequence that is wanted.
            num_last: At how many of its last positions an output is wanted.

        Returns:
            How many tokens of ``ids`` need no computing.
        """
        limit = min(len(self._ids), len(ids))
        self.crop(next((i for i in range(limit) if self._ids[i] != ids[i]), limit))
        first_known = len(self) - (0 if self._known is None else len(self._known))
        if first_known > len(ids) - num_last:
            self.crop(len(ids) - num_last)
        return len(self)

    def known(self, ids: Sequence[int], num_last: int) -> Tensor | None:
        """Logits behind the last tokens of ``ids`` where all are there already; computes and forgets nothing.

        Returns:
            Shape [num_last, vocabulary], or None if one is missing or none is wanted.
        """
        if self._known is None or num_last < 1 or self._ids[: len(ids)] != list(ids):
            return None
        surplus = len(self) - len(ids)
        end = len(self._known) - surplus
        return self._known[end - num_last : end] if end >= num_last else None

    def behind(self, ids: Sequence[int]) -> list[int]:
        """What the sequence holds behind ``ids``; nothing where it does not begin with them."""
        return self._ids[len(ids) :] if self._ids[: len(ids)] == list(ids) else []

    def crop(self, length: int) -> None:
        """Forget all tokens from position ``length`` on."""
        surplus = len(self._ids) - length
        if surplus > 0:
            self._cache.crop(-surplus)
            del self._ids[length:]
            self._known = self._known[:-surplus] if self._known is not None and surplus < len(self._known) else None

    def logits(self, ids: Sequence[int], num_last: int = 1) -> Tensor:
        """Append tokens to a language model's sequence.

        Args:
            ids: The tokens; none where all outputs are there already.
            num_last: How many positions' logits are wanted; :meth:`reuse` sees to those that are not of ``ids``.

        Returns:
            Logits of the last positions, shape [num_last, vocabulary].
        """
        known, num_known = self._known, num_last - len(ids)
        if ids:
            fresh: Tensor = self._append(self._model, ids, logits_to_keep=min(num_last, len(ids))).logits[0]
            known = fresh if known is None or num_known <= 0 else torch.cat([known[-num_known:], fresh])
        assert known is not None
        self._known = known[-num_last:]
        return self._known

    def look_ahead(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Append tokens to a language model's sequence for their state; what follows them is then known too.

        Returns:
            Last hidden state of the last position.
        """
        output = self._append(self._model, ids, logits_to_keep=1, output_hidden_states=True)
        self._known = output.logits[0]
        return tuple(output.hidden_states[-1][0, -1].float().tolist())

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
        self._known = None
        return output

    def branches(self, count: int) -> "Branches":
        """Copies of the sequence side by side, to be continued without touching it."""
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(count)
        return Branches(self._model, cache, len(self._ids))

    def close(self) -> None:
        """Forget everything."""
        self._cache, self._known = DynamicCache(config=self._model.config), None
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
