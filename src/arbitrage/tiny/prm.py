"""Train the tiny PRM: solutions by both language models, labelled by the world's checker, token by token.

With one label for each step, a small model learns the surface of weak steps, not how to check a step (``dev/LOG.md``).
So every token has a label: whether the text so far can still become a true step. The loss also has a next-token part
for the tokens of true steps: the model needs the same value to predict a digit and to check a written digit.
"""

import json
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from arbitrage.core.types import Source
from arbitrage.tiny.drills import drill, mistake, recall_facts
from arbitrage.tiny.optim import Schedule, TrainState, build_optimizers
from arbitrage.tiny.sampling import StepSampler, WrittenStep
from arbitrage.tiny.tokenizer import ASSISTANT, USER
from arbitrage.tiny.world import generate
from arbitrage.tiny.world_problem import DELIMITER, WorldProblem
from arbitrage.training.sequences import Labelled

MAX_STEPS: Final = 12
AT_END, INSIDE = 1.0, 0.2
"""Weights of labels: at the last token of a step, where a PRM is read, and at all other tokens."""
LANGUAGE_MODEL_WEIGHT: Final = 0.17
"""The weight of the next-token loss; the loss of the labels has weight 1."""


@dataclass(slots=True)
class Rollout:
    """A solution that is being written."""

    problem: WorldProblem
    prompt: list[int]
    steps: list[WrittenStep] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        """Token ids of prompt and steps."""
        return [*self.prompt, *(token for step in self.steps for token in step.ids)]

    @property
    def is_open(self) -> bool:
        """Whether another step may follow."""
        return len(self.steps) < MAX_STEPS and not (self.steps and self.steps[-1].is_last)


def start_rollouts(tokenizer: PreTrainedTokenizerFast, split: str, count: int, seed: int) -> list[Rollout]:
    """Start one solution for each of ``count`` problems of a split."""
    problems = [generate(split, index, seed=seed) for index in range(count)]
    return [Rollout(p, tokenizer.encode(f"{USER}{p.question}{ASSISTANT}", add_special_tokens=False)) for p in problems]


def collect_prm(
    samplers: dict[Source, StepSampler], tokenizer: PreTrainedTokenizerFast, *, split: str, count: int, seed: int
) -> list[Labelled]:
    """Write solutions with the draft and with both models; the world's checker labels every step.

    The draft alone solves a third of the problems. In the others the authors change at random: the target writes a
    quarter of the steps, or three quarters. There are no solutions by the target alone, because most of its steps are
    right and give little information. Half of all steps are greedy, as in serving; half are sampled at temperature 1.
    """
    rng, generator = random.Random(f"prm:{seed}"), torch.Generator().manual_seed(seed)
    rollouts = start_rollouts(tokenizer, split, count, seed)
    target_share = {id(r): (0.0, 0.25, 0.75)[i % 3] for i, r in enumerate(rollouts)}
    while running := [r for r in rollouts if r.is_open]:
        groups: dict[tuple[Source, float], list[Rollout]] = {}
        for rollout in running:
            source = Source.TARGET if rng.random() < target_share[id(rollout)] else Source.DRAFT
            groups.setdefault((source, rng.choice((0.0, 1.0))), []).append(rollout)
        for (source, temperature), group in groups.items():
            steps = samplers[source].write([r.ids for r in group], temperature=temperature, generator=generator)
            for rollout, step in zip(group, steps, strict=True):
                rollout.steps.append(step)
    return [labelled(rollout, tokenizer) for rollout in rollouts]


def labelled(rollout: Rollout, tokenizer: PreTrainedTokenizerFast) -> Labelled:
    """Label each token of a solution's steps."""
    row, previous_texts = Labelled(list(rollout.prompt), [], []), set[str]()
    for step in rollout.steps:
        _append(row, _without_end(step), rollout.problem.truths - previous_texts, tokenizer)
        previous_texts.add(step.text.strip())
    return row


def _append(row: Labelled, ids: Sequence[int], truths: Iterable[str], tokenizer: PreTrainedTokenizerFast) -> None:
    """Add one step to a row, with labels from the texts that are true at its position."""
    possible, text = [truth + DELIMITER for truth in truths], ""
    for token in ids:
        text += tokenizer.decode([token])
        possible = [truth for truth in possible if truth.startswith(text)]
        row.positions.append(len(row.ids))
        row.ids.append(token)
        row.labels.append(float(bool(possible)))
        row.weights.append(INSIDE)
    row.labels[-1] = float(any(truth.strip() == text.strip() for truth in possible))
    row.weights[-1] = AT_END


def at_ends(row: Labelled) -> Labelled:
    """The same row with labels only at the ends of steps."""
    ends = [i for i, weight in enumerate(row.weights) if weight == AT_END]
    return Labelled(row.ids, [row.positions[i] for i in ends], [row.labels[i] for i in ends])


def prm_drills(tokenizer: PreTrainedTokenizerFast, count: int, seed: int) -> list[Labelled]:
    """Lists of statements with labels, half of them wrong: equations, or facts that repeat the question.

    A solution has few difficult steps, and most steps after a mistake are wrong too. In a drill, each statement is
    independent of the others.
    """
    return [_prm_drill(tokenizer, random.Random(f"prm drill:{seed}:{index}")) for index in range(count)]


def _prm_drill(tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> Labelled:
    if rng.random() < 0.5:
        prompt, true = "", [line.removesuffix(".") for line in drill(rng, 8).split(DELIMITER)]
        wrong = [f"{left}={mistake(rng, int(result))}" for left, _, result in (line.partition("=") for line in true)]
    else:
        facts, questions = recall_facts(rng, rng.randint(2, 7))
        prompt, true = " ".join(facts), [beginning + ending for beginning, ending in questions]
        # A wrong statement has the ending of another fact in the same phrasing, verbose ("Compared to …") or terse.
        endings = {
            is_verbose: [ending for beginning, ending in questions if ("Compared" in beginning) == is_verbose]
            for is_verbose in (False, True)
        }
        wrong = [beginning + rng.choice(endings["Compared" in beginning]) for beginning, _ in questions]
    row = Labelled(tokenizer.encode(f"{USER}{prompt}{ASSISTANT}", add_special_tokens=False), [], [])
    for pair in zip(true, wrong, strict=True):
        line = tokenizer.encode(f"{rng.choice(pair)}.{DELIMITER}", add_special_tokens=False)
        _append(row, line, [f"{pair[0]}."], tokenizer)
    return row


def _without_end(step: WrittenStep) -> Sequence[int]:
    # In serving, a scorer reads the step's text, and end-of-sequence has no text.
    return step.ids[:-1] if step.is_last else step.ids


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierRecipe:
    """The settings of the PRM's fine-tuning."""

    num_epochs: int
    tokens_per_batch: int
    schedule: Schedule
    seed: int = 0


def _epoch(rows: Sequence[Labelled], recipe: ClassifierRecipe, epoch: int) -> list[list[Labelled]]:
    """Batches of rows with similar length, in random order; the same epoch always gives the same batches."""
    rng = random.Random(f"{recipe.seed}:epoch:{epoch}")
    order = sorted(rng.sample(rows, len(rows)), key=lambda row: len(row.ids) // 8)
    batches: list[list[Labelled]] = [[]]
    for row in order:
        if batches[-1] and (len(batches[-1]) + 1) * len(row.ids) > recipe.tokens_per_batch:
            batches.append([])
        batches[-1].append(row)
    rng.shuffle(batches)
    return batches


def _all_batches(rows: Sequence[Labelled], recipe: ClassifierRecipe) -> Iterator[list[Labelled]]:
    for epoch in range(recipe.num_epochs):
        yield from _epoch(rows, recipe, epoch)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows padded on the right, with the labelled positions of all rows in one list."""

    ids: Tensor
    """Shape [rows, tokens]."""
    positions: Tensor
    """Row and token of each label; shape [labels, 2]."""
    labels: Tensor
    """Shape [labels]."""
    weights: Tensor
    """The weight of each label in the loss, shape [labels]."""

    @classmethod
    def of(cls, rows: Sequence[Labelled], pad_id: int, device: torch.device) -> "_Batch":
        width = max(len(row.ids) for row in rows)
        return cls(
            torch.tensor([row.ids + [pad_id] * (width - len(row.ids)) for row in rows], device=device),
            torch.tensor([(i, position) for i, row in enumerate(rows) for position in row.positions], device=device),
            torch.tensor(labels_of(rows), device=device),
            torch.tensor([weight for row in rows for weight in row.weights], device=device),
        )


def _states(model: PreTrainedModel, batch: _Batch) -> Tensor:
    states: Tensor = model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state
    return states


def _logits(model: PreTrainedModel, states: Tensor, positions: Tensor) -> Tensor:
    logits: Tensor = model.score(states[positions[:, 0], positions[:, 1]]).float()
    return logits


def position_logits(model: PreTrainedModel, rows: Sequence[Labelled], pad_id: int) -> Tensor:
    """Compute the head's logits at all labelled positions, row after row; shape [positions, 2]."""
    batch = _Batch.of(rows, pad_id, model.device)
    return _logits(model, _states(model, batch), batch.positions)


def labels_of(rows: Sequence[Labelled]) -> list[int]:
    """All labels, in the order of :func:`position_logits`."""
    return [int(label) for row in rows for label in row.labels]


def loss_of(model: PreTrainedModel, batch: _Batch) -> Tensor:
    """Cross-entropy of the labels, plus the next-token cross-entropy at tokens with label 1."""
    states = _states(model, batch)
    label_losses = cross_entropy(_logits(model, states, batch.positions), batch.labels, reduction="none")
    rows, tokens = batch.positions[batch.labels == 1].T
    token_logits = linear(states[rows, tokens - 1], model.get_input_embeddings().weight).float()
    token_loss = cross_entropy(token_logits, batch.ids[rows, tokens], reduction="sum") / max(1, len(rows))
    return (label_losses * batch.weights).sum() / batch.weights.sum() + LANGUAGE_MODEL_WEIGHT * token_loss


def train_classifier(
    model: PreTrainedModel, rows: Sequence[Labelled], recipe: ClassifierRecipe, folder: Path
) -> PreTrainedModel:
    """Fine-tune a classifier, or continue from the last checkpoint in ``folder``."""
    model.train().set_attn_implementation("eager")
    pad_id = int(model.config.pad_token_id or 0)
    num_steps = sum(len(_epoch(rows, recipe, epoch)) for epoch in range(recipe.num_epochs))
    state = TrainState(model, build_optimizers(model, recipe.schedule), folder)
    first_step = state.restore()
    started, losses = time.monotonic(), []
    for step, batch in enumerate(_all_batches(rows, recipe)):
        if step < first_step:
            continue
        with torch.autocast(model.device.type, torch.bfloat16):
            loss = loss_of(model, _Batch.of(batch, pad_id, model.device))
        state.update(loss, recipe.schedule.factor(step, num_steps))
        losses.append(loss.detach())
        if (step + 1) % 50 == 0:
            mean = torch.stack(losses).mean().item()
            print(json.dumps({"step": step + 1, "of": num_steps, "loss": round(mean, 4)}), flush=True)
            losses.clear()
        if (step + 1) % 250 == 0:
            state.save(step + 1)
    state.save(num_steps)
    print(json.dumps({"seconds": round(time.monotonic() - started)}), flush=True)
    return model.eval()
