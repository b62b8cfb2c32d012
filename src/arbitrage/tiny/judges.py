"""Train the tiny PRM and router: data from the two language models, one classification loop for both."""

import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from arbitrage.core.types import Source
from arbitrage.tiny import MARKS
from arbitrage.tiny.optim import Schedule, TrainState, build_optimizers
from arbitrage.tiny.sampling import StepJudge, StepSampler, WrittenStep
from arbitrage.tiny.tokenizer import ASSISTANT, USER
from arbitrage.tiny.world import WorldProblem, generate
from arbitrage.training.sequences import Labelled, pack

MAX_STEPS: Final = 12
TARGET_TEMPERATURE: Final = 0.7
"""Of the target's samples: served greedily, it makes fewer mistakes than at temperature 1."""


@dataclass(slots=True)
class Rollout:
    """A solution in the making: who wrote which step."""

    problem: WorldProblem
    prompt: list[int]
    steps: list[WrittenStep] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        """Prompt and steps, as the language models and the PRM read them."""
        return [*self.prompt, *(token for step in self.steps for token in step.ids)]

    def annotated(self, marks: dict[str, int]) -> list[int]:
        """Prompt and steps with their authors' marks, as the router reads them."""
        ids = list(self.prompt)
        for step, source in zip(self.steps, self.sources, strict=True):
            ids += [marks[source], *step.ids]
        return ids

    def append(self, step: WrittenStep, source: Source) -> None:
        """Keep a step."""
        self.steps.append(step)
        self.sources.append(source)

    @property
    def is_open(self) -> bool:
        """Whether another step may follow."""
        return len(self.steps) < MAX_STEPS and not (self.steps and self.steps[-1].is_last)


def start_rollouts(tokenizer: PreTrainedTokenizerFast, split: str, count: int, seed: int) -> list[Rollout]:
    """Open one rollout for each of ``count`` problems of a split."""
    problems = [generate(split, index, seed=seed) for index in range(count)]
    return [Rollout(p, tokenizer.encode(f"{USER}{p.question}{ASSISTANT}", add_special_tokens=False)) for p in problems]


# --- the process reward model ----------------------------------------------------------------------


def collect_prm(
    samplers: dict[Source, StepSampler], tokenizer: PreTrainedTokenizerFast, *, split: str, count: int, seed: int
) -> list[Labelled]:
    """Write solutions by draft, target and both in turn; the world's checker labels every step.

    A third of the problems goes to the draft alone, a third to the target alone, the rest changes authors at
    random. Half of all steps is greedy, as when served, half is sampled at temperature 1.
    """
    rng, generator = random.Random(f"prm:{seed}"), torch.Generator().manual_seed(seed)
    rollouts = start_rollouts(tokenizer, split, count, seed)
    target_share = {id(r): (0.0, 0.5, 1.0)[i % 3] for i, r in enumerate(rollouts)}
    while running := [r for r in rollouts if r.is_open]:
        groups: dict[tuple[Source, float], list[Rollout]] = {}
        for rollout in running:
            source = Source.TARGET if rng.random() < target_share[id(rollout)] else Source.DRAFT
            groups.setdefault((source, rng.choice((0.0, 1.0))), []).append(rollout)
        for (source, temperature), group in groups.items():
            steps = samplers[source].write([r.ids for r in group], temperature=temperature, generator=generator)
            for rollout, (step,) in zip(group, steps, strict=True):
                rollout.append(step, source)
    return [_judged(rollout) for rollout in rollouts]


def _judged(rollout: Rollout) -> Labelled:
    ids, positions, labels = list(rollout.prompt), list[int](), list[float]()
    texts: list[str] = []
    for step in rollout.steps:
        ids += _without_end(step)
        positions.append(len(ids) - 1)
        labels.append(int(rollout.problem.is_correct(step.text, texts)))
        texts.append(step.text)
    return Labelled(ids, positions, labels)


def _without_end(step: WrittenStep) -> Sequence[int]:
    # A scorer reads text, and end-of-sequence has none.
    return step.ids[:-1] if step.is_last else step.ids


# --- the router ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RouterRow:
    """One draft step with what the target could have written instead."""

    prefix: list[int]
    """Annotated history."""
    step: list[int]
    """The draft's step with its mark."""
    draft_score: float
    target_scores: list[float]

    @property
    def advantage(self) -> float:
        """Mean advantage over the target's samples."""
        return sum(self.target_scores) / len(self.target_scores) - self.draft_score


def collect_router(
    samplers: dict[Source, StepSampler],
    prm: StepJudge,
    tokenizer: PreTrainedTokenizerFast,
    *,
    split: str,
    count: int,
    seed: int,
    num_target_samples: int = 4,
) -> list[RouterRow]:
    """From every prefix one greedy draft step and several sampled target steps, scored by the PRM.

    Where the target is better, its step is kept with probability 0.7, else the draft's: the router must also
    know the histories that follow a mistake.
    """
    rng, generator = random.Random(f"router:{seed}"), torch.Generator().manual_seed(seed)
    marks = {source: tokenizer.convert_tokens_to_ids(mark) for source, mark in MARKS.items()}
    rollouts, rows = start_rollouts(tokenizer, split, count, seed), []
    while running := [r for r in rollouts if r.is_open]:
        prefixes = [r.ids for r in running]
        drafts = samplers[Source.DRAFT].write(prefixes, temperature=0.0, generator=generator)
        targets = samplers[Source.TARGET].write(
            prefixes, temperature=TARGET_TEMPERATURE, generator=generator, num_samples=num_target_samples
        )
        candidates = [[*d, *t] for d, t in zip(drafts, targets, strict=True)]
        scores = prm.score(prefixes, [[_without_end(step) or step.ids for step in c] for c in candidates]).tolist()
        for rollout, steps, values in zip(running, candidates, scores, strict=True):
            step = [marks[Source.DRAFT], *_without_end(steps[0])]
            row = RouterRow(rollout.annotated(marks), step, values[0], values[1:])
            rows.append(row)
            is_escalated = row.advantage > 0.05 and rng.random() < 0.7
            rollout.append(steps[1 if is_escalated else 0], Source.TARGET if is_escalated else Source.DRAFT)
        print(json.dumps({"rows": len(rows), "open": len(running)}), flush=True)
    return rows


def balance(rows: Sequence[RouterRow], rng: random.Random, *, margin: float) -> list[Labelled]:
    """Label rows by y = 1{advantage > margin} and downsample the larger class (method).

    Args:
        rows: What :func:`collect_router` gave.
        rng: Chooses what to drop.
        margin: Advantages up to this are noise of the PRM, not gain; the paper has 0.
    """
    classes: tuple[list[Labelled], list[Labelled]] = ([], [])
    for row in rows:
        ids = [*row.prefix, *row.step]
        label = int(row.advantage > margin)
        classes[label].append(Labelled(ids, [len(ids) - 1], [label]))
    size = min(map(len, classes))
    return pack([row for members in classes for row in rng.sample(members, size)])


# --- one training loop for both --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierRecipe:
    """How a judge is fine-tuned."""

    num_epochs: int
    tokens_per_batch: int
    schedule: Schedule
    seed: int = 0


def _epoch(rows: Sequence[Labelled], recipe: ClassifierRecipe, epoch: int) -> list[list[Labelled]]:
    """Batches of similar length in random order; the same epoch is always the same."""
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


def position_logits(model: PreTrainedModel, batch: Sequence[Labelled], pad_id: int) -> Tensor:
    """Read the head at all labelled positions of a batch, row after row; shape [positions, 2]."""
    width = max(len(row.ids) for row in batch)
    ids = torch.tensor([row.ids + [pad_id] * (width - len(row.ids)) for row in batch], device=model.device)
    states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    where = [(i, position) for i, row in enumerate(batch) for position in row.positions]
    index = torch.tensor(where, device=model.device)
    logits: Tensor = model.score(states[index[:, 0], index[:, 1]]).float()
    return logits


def labels_of(batch: Sequence[Labelled]) -> list[int]:
    """All labels of a batch, in the order of :func:`position_logits`."""
    return [int(label) for row in batch for label in row.labels]


def train_classifier(
    model: PreTrainedModel, rows: Sequence[Labelled], recipe: ClassifierRecipe, folder: Path
) -> PreTrainedModel:
    """Fine-tune a classifier, or continue from the last checkpoint in ``folder``."""
    model.train().set_attn_implementation("eager")
    pad_id = int(model.config.pad_token_id or 0)
    num_steps = sum(len(_epoch(rows, recipe, epoch)) for epoch in range(recipe.num_epochs))
    state = TrainState(model, build_optimizers(model, recipe.schedule), folder)
    done = state.restore()
    started, losses = time.monotonic(), []
    for step, batch in enumerate(_all_batches(rows, recipe)):
        if step < done:
            continue
        with torch.autocast(model.device.type, torch.bfloat16):
            logits = position_logits(model, batch, pad_id)
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels_of(batch), device=model.device))
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
