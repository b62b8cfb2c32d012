"""Many steps at once: batched writing and judging for the recipe, where speed is throughput."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from arbitrage.tiny.world import DELIMITER


@dataclass(frozen=True, slots=True)
class WrittenStep:
    """One step from the batch; ``ids`` end with the delimiter's token or with end-of-sequence."""

    ids: tuple[int, ...]
    text: str
    is_last: bool


@dataclass(slots=True)
class _Prefilled:
    """Left-padded prefixes in a KV cache."""

    cache: DynamicCache
    mask: Tensor
    """1 where a position holds a token, shape [batch, tokens]."""
    states: Tensor
    """Last hidden states of each prefix's last token, shape [batch, hidden]."""

    def repeat(self, times: int) -> "_Prefilled":
        """Each prefix ``times`` in a row."""
        self.cache.batch_repeat_interleave(times)
        mask, states = (x.repeat_interleave(times, dim=0) for x in (self.mask, self.states))
        return _Prefilled(self.cache, mask, states)

    def extend(self, model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
        """Append tokens, right-padded where ``mask`` is 0; returns their states [batch, new, hidden]."""
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
    """Indices in chunks of similar length, so that little is padding."""
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
        num_samples: int = 1,
        max_tokens: int = 48,
    ) -> list[list[WrittenStep]]:
        """Write ``num_samples`` steps from each prefix; temperature 0 is greedy."""
        steps: list[list[WrittenStep]] = [[] for _ in prefixes]
        for chunk in _chunks([len(p) for p in prefixes], max(1, self.batch_size // num_samples)):
            rows = self._write([prefixes[i] for i in chunk], temperature, generator, num_samples, max_tokens)
            for k, row in enumerate(rows.tolist()):
                steps[chunk[k // num_samples]].append(self._finish(row))
        return steps

    def _write(
        self,
        prefixes: Sequence[Sequence[int]],
        temperature: float,
        generator: torch.Generator,
        num_samples: int,
        max_tokens: int,
    ) -> Tensor:
        """Decode all rows until each has stopped; returns ids padded behind the stop, [rows, tokens]."""
        pad_id = self.tokenizer.pad_token_id
        filled = _prefill(self.model, prefixes, pad_id).repeat(num_samples)
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


class StepJudge:
    """Reads a two-label head at the last token of each of many steps."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, batch_size: int = 256) -> None:
        self.model, self.tokenizer, self.batch_size = model.eval(), tokenizer, batch_size

    @torch.inference_mode()
    def score(self, prefixes: Sequence[Sequence[int]], steps: Sequence[Sequence[Sequence[int]]]) -> Tensor:
        """Score the steps that follow each prefix.

        Args:
            prefixes: Token ids of each history, annotated as the judge was trained.
            steps: For each prefix the same number of candidate steps, as ids.

        Returns:
            Probabilities of label 1, shape [prefixes, steps].
        """
        num_steps, pad_id = len(steps[0]), self.tokenizer.pad_token_id
        scores = torch.empty(len(prefixes), num_steps)
        for chunk in _chunks([len(p) for p in prefixes], max(1, self.batch_size // num_steps)):
            filled = _prefill(self.model, [prefixes[i] for i in chunk], pad_id).repeat(num_steps)
            rows = [step for i in chunk for step in steps[i]]
            width = max(map(len, rows))
            ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], device=self.model.device)
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=ids.device)
            states = filled.extend(self.model, ids, mask)
            last = states[torch.arange(len(rows)), mask.sum(dim=1) - 1]
            probabilities = self.model.score(last).float().softmax(dim=-1)[:, 1]
            scores[chunk] = probabilities.view(len(chunk), num_steps).cpu()
        return scores
