"""Train one tiny language model from random weights; a stopped training continues."""

import json
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from arbitrage.core.errors import ConfigError
from arbitrage.tiny.drills import drill, recall_facts, recall_names
from arbitrage.tiny.optim import Schedule, TrainState, build_optimizers
from arbitrage.tiny.tokenizer import ASSISTANT, END, USER
from arbitrage.tiny.world import generate
from arbitrage.tiny.world_problem import DELIMITER, Habit

IGNORED: Final = -100
"""Label of a position that has no part in the loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A Llama shape with head size 64, which every engine accepts."""

    hidden: int
    layers: int
    feed_forward: int

    def config(self, tokenizer: PreTrainedTokenizerFast, max_positions: int = 512) -> LlamaConfig:
        """Build the model configuration; the vocabulary size is rounded up to a multiple of 64."""
        return LlamaConfig(
            vocab_size=-(-len(tokenizer) // 64) * 64,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            intermediate_size=self.feed_forward,
            num_attention_heads=self.hidden // 64,
            num_key_value_heads=self.hidden // 64,
            head_dim=64,
            max_position_embeddings=max_positions,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModelRecipe:
    """The training of one language model: recall tasks, then problems mixed with drills, at last a decay to zero.

    Raises:
        ConfigError: If a kind of recall is unknown, or there is none.
    """

    shape: Shape
    habit: Habit
    num_steps: int
    tokens_per_batch: int
    recalls: Mapping[str, int] = field(default_factory=lambda: {"names": 320, "facts": 640})
    """Kinds of recall tasks, ``names`` or ``facts``, each with a number of steps. The training begins with these steps,
    one kind after the other; later, half of the drills are recall tasks. Recall is trained alone first because few
    tokens of the mixed data depend on it, so a model hardly learns it there."""
    drill_steps: int
    """Before this step, half of the examples are drills."""
    drill_share: float = 0.1
    """The share of drills after that step."""
    schedule: Schedule
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.recalls or not set(self.recalls) <= {"names", "facts"}:
            raise ConfigError(f"the keys of recalls must be names or facts, got {list(self.recalls)}")

    def only_recall(self, step: int) -> str | None:
        """The kind of recall that is trained alone at ``step``; None at a step with mixed data."""
        end = 0
        for recall, num_steps in self.recalls.items():
            end += num_steps
            if step < end:
                return recall
        return None


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids with labels; the prompt has no part in the loss."""

    ids: list[int]
    labels: list[int]


class ExampleStream:
    """An endless stream of training examples; the same (recipe, index) always gives the same example."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, recipe: LanguageModelRecipe) -> None:
        self.tokenizer, self.recipe = tokenizer, recipe
        self.habit, self.seed = recipe.habit, recipe.seed

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def problem(self, index: int) -> Example:
        """A question and its solution; only the solution has labels."""
        problem = generate("train", index, seed=self.seed)
        rng = random.Random(f"{self.seed}:habit:{index}")
        prompt = self._encode(f"{USER}{problem.question}{ASSISTANT}")
        solution = self._encode(problem.solution(self.habit, rng) + END)
        return Example(prompt + solution, [IGNORED] * len(prompt) + solution)

    def drill(self, index: int) -> Example:
        """Equations, or a recall task."""
        rng = random.Random(f"{self.seed}:drill:{index}")
        share, recalls = rng.random(), list(self.recipe.recalls)
        if share < 0.5:
            return self.recall(index, recalls[int(share * 2 * len(recalls))])
        lines = [line.partition("=") for line in drill(rng, 8).split(DELIMITER)]
        return self._drilled("", [(f"{expression}=", f"{result}{DELIMITER}") for expression, _, result in lines])

    def recall(self, index: int, content: str) -> Example:
        """A recall task: statements, then their beginnings in another order, each to be completed."""
        rng = random.Random(f"{self.seed}:{'recall' if content == 'names' else 'facts'}:{index}")
        if content == "names":
            pairs, shuffled_pairs = recall_names(rng, rng.randint(2, 10))
            statements = "".join(f" {a} {b}." for a, b in pairs)
            return self._drilled(statements, [(f". {a}", f" {b}") for a, b in shuffled_pairs])
        facts, questions = recall_facts(rng, rng.randint(2, 7))
        return self._drilled(" ".join(facts), [(question, f"{answer}.{DELIMITER}") for question, answer in questions])

    def _drilled(self, statements: str, pairs: list[tuple[str, str]]) -> Example:
        """Questions and answers after some statements; only answers have labels, since questions are random."""
        ids = self._encode(f"{USER}{statements}{ASSISTANT}")
        labels = [IGNORED] * len(ids)
        for question, answer in pairs:
            question_ids, answer_ids = self._encode(question), self._encode(answer)
            ids += question_ids + answer_ids
            labels += [IGNORED] * len(question_ids) + answer_ids
        return Example(ids, labels)


def batches(stream: ExampleStream, recipe: LanguageModelRecipe, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches (ids, labels), each of shape [batch, tokens], with examples of similar length.

    Each window of 16 batches depends only on its number, so a stopped training can continue with the same batches.

    Args:
        stream: The examples.
        recipe: The settings.
        first_step: The first step to yield a batch for.
    """
    window_steps = 16
    for window in range(first_step // window_steps, recipe.num_steps // window_steps + 1):
        rng = random.Random(f"{recipe.seed}:window:{window}")
        start = window * window_steps
        size = recipe.tokens_per_batch // 96 * window_steps
        examples = [_example(stream, recipe, start, rng, i) for i in range(window * size, (window + 1) * size)]
        examples.sort(key=lambda example: len(example.ids))
        per_batch = size // window_steps
        order = rng.sample(range(window_steps), window_steps)
        for k in order[first_step - start if start < first_step else 0 :]:
            yield collate(examples[k * per_batch : (k + 1) * per_batch], stream.tokenizer.pad_token_id)


def _example(stream: ExampleStream, recipe: LanguageModelRecipe, step: int, rng: random.Random, index: int) -> Example:
    if content := recipe.only_recall(step):
        return stream.recall(index, content)
    share = 0.5 if step < recipe.drill_steps else recipe.drill_share
    return stream.drill(index) if rng.random() < share else stream.problem(index)


def collate(examples: list[Example], pad_id: int) -> tuple[Tensor, Tensor]:
    """Make a batch (ids, labels); padding is on the right, which earlier positions of a causal model do not read."""
    width = max(len(example.ids) for example in examples)
    ids = torch.tensor([example.ids + [pad_id] * (width - len(example.ids)) for example in examples])
    labels = torch.tensor([example.labels + [IGNORED] * (width - len(example.labels)) for example in examples])
    return ids, labels


def loss_of(model: LlamaForCausalLM, ids: Tensor, labels: Tensor) -> Tensor:
    """Next-token cross-entropy; the vocabulary head is computed only at positions with a label."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    next_labels = labels[:, 1:]
    is_labelled = next_labels != IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[is_labelled]).float(), next_labels[is_labelled])


def train_language_model(
    recipe: LanguageModelRecipe,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    device: str = "cpu",
) -> LlamaForCausalLM:
    """Train a model, or continue from the last checkpoint in ``folder``.

    Args:
        recipe: Shape, data and schedule.
        tokenizer: The shared tokenizer.
        folder: The folder for checkpoints.
        device: A torch device.

    Returns:
        The trained model.
    """
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(recipe.shape.config(tokenizer)).to(device).train()
    # On a CPU, at this length, the backward pass of fused attention is slower than plain matrix products.
    model.set_attn_implementation("eager")
    state = TrainState(model, build_optimizers(model, recipe.schedule), folder)
    step = state.restore()
    stream = ExampleStream(tokenizer, recipe)
    started, num_tokens, losses = time.monotonic(), 0, []
    for ids, labels in batches(stream, recipe, step):
        if step >= recipe.num_steps:
            break
        with torch.autocast(device.partition(":")[0], torch.bfloat16):
            loss = loss_of(model, ids.to(device), labels.to(device))
        state.update(loss, recipe.schedule.factor(step, recipe.num_steps))
        step, num_tokens = step + 1, num_tokens + ids.numel()
        losses.append(loss.detach())
        if step % 50 == 0:
            mean = torch.stack(losses).mean().item()
            rate = num_tokens / (time.monotonic() - started)
            print(json.dumps({"step": step, "loss": round(mean, 4), "tokens_per_s": round(rate)}), flush=True)
            losses.clear()
        if step % 100 == 0:
            state.save(step)
    state.save(step)
    return model.eval()
