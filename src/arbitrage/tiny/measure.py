"""Measure the tiny models on held-out problems: ``python -m arbitrage.tiny.measure``; needs the extra ``dev``.

The script prints one JSON line for each figure of the language models and of the PRM in the model card. It writes steps
in batches, so it measures no times: those come from ``arbitrage eval``. The router's figures come from
``arbitrage eval-router``.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from scipy.stats import mannwhitneyu
from transformers import (
    LlamaForCausalLM,
    LlamaForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from arbitrage.core.types import Source
from arbitrage.tiny import WEIGHTS
from arbitrage.tiny.prm import (
    Rollout,
    at_ends,
    collect_prm,
    labels_of,
    position_logits,
    start_rollouts,
)
from arbitrage.tiny.sampling import StepSampler

Samplers = dict[Source, StepSampler]


def solve_alone(sampler: StepSampler, tokenizer: PreTrainedTokenizerFast, split: str, count: int) -> list[Rollout]:
    """Write greedy solutions with one model."""
    rollouts = start_rollouts(tokenizer, split, count, seed=0)
    generator = torch.Generator()
    while running := [r for r in rollouts if r.is_open]:
        steps = sampler.write([r.ids for r in running], temperature=0.0, generator=generator)
        for rollout, step in zip(running, steps, strict=True):
            rollout.steps.append(step)
    return rollouts


def accuracy(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """The share of right final answers: over all problems, by family, and by level."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for rollout in rollouts:
        problem = rollout.problem
        is_right = bool(rollout.steps) and rollout.steps[-1].text.strip() == problem.closing
        for group in ("all", problem.family, f"level {problem.level}"):
            groups[group].append(is_right)
    return {group: round(sum(right) / len(right), 4) for group, right in groups.items()}


def step_kinds(samplers: Samplers, tokenizer: PreTrainedTokenizerFast, split: str, count: int) -> dict[str, float]:
    """The shares of prefixes where both greedy steps are right, only one of them, or neither, by the world's checker.

    Each solution continues with the draft's step, so prefixes with a mistake are counted too.
    """
    rollouts, counts = start_rollouts(tokenizer, split, count, seed=0), Counter[str]()
    generator = torch.Generator()
    while running := [r for r in rollouts if r.is_open]:
        written = [
            samplers[source].write([r.ids for r in running], temperature=0.0, generator=generator) for source in Source
        ]
        for rollout, draft, target in zip(running, *written, strict=True):
            texts = [step.text for step in rollout.steps]
            right = [rollout.problem.is_correct(step.text, texts) for step in (draft, target)]
            is_clean = all(rollout.problem.is_correct(text, texts[:i]) for i, text in enumerate(texts))
            history = "clean" if is_clean else "spoilt"
            counts[
                f"{history}: draft {'right' if right[0] else 'wrong'}, target {'right' if right[1] else 'wrong'}"
            ] += 1
            counts["same text"] += draft.text == target.text
            rollout.steps.append(draft)
    total = sum(n for name, n in counts.items() if name != "same text")
    return {name: round(n / total, 4) for name, n in sorted(counts.items())} | {"steps": total}


def prm_auc(
    prm: PreTrainedModel, draft: StepSampler, tokenizer: PreTrainedTokenizerFast, count: int
) -> dict[str, float]:
    """The area under the ROC curve for the correctness of held-out draft steps, of which half are sampled."""
    rows = [
        at_ends(row) for row in collect_prm(dict.fromkeys(Source, draft), tokenizer, split="test", count=count, seed=11)
    ]
    with torch.inference_mode():
        chunks = [position_logits(prm, rows[i : i + 64], 0) for i in range(0, len(rows), 64)]
    scores = torch.cat(chunks).softmax(dim=-1)[:, 1].tolist()
    labels = labels_of(rows)
    return {"auc": round(auc(scores, labels), 4), "steps": len(labels), "right": round(sum(labels) / len(labels), 4)}


def auc(scores: Sequence[float], labels: Sequence[int]) -> float:
    """The probability that a positive item scores above a negative item (Mann-Whitney U)."""
    positive = [s for s, y in zip(scores, labels, strict=True) if y]
    negative = [s for s, y in zip(scores, labels, strict=True) if not y]
    return float(mannwhitneyu(positive, negative).statistic) / (len(positive) * len(negative))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--limit", type=int, default=600, help="problems for each figure")
    arguments = parser.parse_args()
    folder, count = arguments.weights, arguments.limit
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder / "draft"))
    models = {source: LlamaForCausalLM.from_pretrained(str(folder / source), dtype=torch.float32) for source in Source}
    samplers = {source: StepSampler(model, tokenizer) for source, model in models.items()}
    for source in Source:
        for split in ("test", "ood"):
            figures = accuracy(solve_alone(samplers[source], tokenizer, split, count))
            print(json.dumps({"accuracy": source, "split": split, "problems": count, **figures}), flush=True)
    print(json.dumps({"step_kinds": step_kinds(samplers, tokenizer, "test", count)}), flush=True)
    prm = LlamaForTokenClassification.from_pretrained(str(folder / "prm"), dtype=torch.float32).eval()
    print(json.dumps({"prm": prm_auc(prm, samplers[Source.DRAFT], tokenizer, count)}), flush=True)


if __name__ == "__main__":
    main()
