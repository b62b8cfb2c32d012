"""Write many steps in one batch, for the recipe."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from arbitrage.tiny.world_problem import DELIMITER


@dataclass(frozen=True, slots=True)
class WrittenStep:
    """One step; ``ids`` end with the delimiter's token or with end-of-sequence, or at the token limit."""

    ids: tuple[int, ...]
    text: str
    is_last: bool


@dataclass(slots=True)
class _Prefilled:
    """Prefixes in a KV cache, padded on the left."""

    cache: DynamicCache
    mask: Tensor
    """1 at positions with a token, 0 at padding; shape [batch, tokens]."""
    states: Tensor
    """The last layer's state at the last token of each prefix, shape [batch, hidden]."""

    def extend(self, model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
        """Append tokens and return their states.

        Args:
            model: The language model.
            ids: Token ids, shape [batch, new].
            mask: 1 at tokens, 0 at padding on the right; shape [batch, new].

        Returns:
            States of shape [batch, new, hidden].
        """
        self.mask = torch.cat([self.mask, mask], dim=1)
        positions = (self.mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        states: Tensor = model.base_model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        return states


def _prefill(model: PreTrainedModel, prefixes: Sequence[Sequence[int]], pad_id: int) -> _Prefilled:
    width, device = max(map(len, prefixes)), model.device
    ids = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prefixes], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prefixes], device=device)
    filled = _Prefilled(DynamicCache(config=model.config), mask[:, :0], torch.empty(0))
    filled.states = filled.extend(model, ids, mask)[:, -1]
    return filled


def _chunks(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield indices in chunks of similar length, which need little padding."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), size):
        yield order[start : start + size]


class StepSampler:
    """Writes one step for each of many prefixes."""

    def __init__(self, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, *, batch_size: int = 128) -> None:
        self.model, self.tokenizer, self.batch_size = model.eval(), tokenizer, batch_size
        texts = [tokenizer.decode([i]) for i in range(len(tokenizer))]
        closing = [i for i, text in enumerate(texts) if DELIMITER in text]
        self.end_id: int = tokenizer.eos_token_id
        self._stops = torch.tensor([*closing, self.end_id], device=model.device)

    @torch.inference_mode()
    def write(
        self,
        prefixes: Sequence[Sequence[int]],
        *,
        temperature: float,
        generator: torch.Generator,
        max_tokens: int = 48,
    ) -> list[WrittenStep]:
        """Write one step from each prefix; temperature 0 is greedy."""
        steps: dict[int, WrittenStep] = {}
        for chunk in _chunks([len(p) for p in prefixes], self.batch_size):
            rows = self._write([prefixes[i] for i in chunk], temperature, generator, max_tokens)
            steps |= {i: self._finish(row) for i, row in zip(chunk, rows.tolist(), strict=True)}
        return [steps[i] for i in range(len(prefixes))]

    def _write(
        self,
        prefixes: Sequence[Sequence[int]],
        temperature: float,
        generator: torch.Generator,
        max_tokens: int,
    ) -> Tensor:
        """Decode until all rows have stopped; returns ids of shape [rows, tokens], padded after the stop."""
        pad_id = self.tokenizer.pad_token_id
        filled = _prefill(self.model, prefixes, pad_id)
        states, columns = filled.states, []
        running = torch.ones(len(states), dtype=torch.bool, device=states.device)
        for _ in range(max_tokens):
            logits = self.model.lm_head(states).float()
            if temperature == 0.0:
                tokens = logits.argmax(dim=-1)
            else:
                weights = (logits / temperature).softmax(dim=-1)
                tokens = torch.multinomial(weights, 1, generator=generator)[:, 0]
            tokens = torch.where(running, tokens, pad_id)
            columns.append(tokens)
            running = running & ~torch.isin(tokens, self._stops)
            if not running.any():
                break
            states = filled.extend(self.model, tokens[:, None], running[:, None].long())[:, -1]
        return torch.stack(columns, dim=1)

    def _finish(self, row: list[int]) -> WrittenStep:
        ids = [token for token in row if token != self.tokenizer.pad_token_id]
        is_last = self.end_id in ids
        text = self.tokenizer.decode([token for token in ids if token != self.end_id])
        return WrittenStep(tuple(ids), text, is_last)
