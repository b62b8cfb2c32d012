"""Rebuild all tiny models from nothing: ``python -m arbitrage.tiny.train OUT``.

Stages run in order and each is skipped when its result exists, so a killed run continues where it stopped:
tokenizer, draft, target, prm, router. Training checkpoints are safetensors.
"""

import argparse
import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from arbitrage.core.types import Source
from arbitrage.scorers.format import InputFormat
from arbitrage.tiny import MARKS
from arbitrage.tiny.judges import (
    ClassifierRecipe,
    RouterRow,
    balance,
    collect_prm,
    collect_router,
    train_classifier,
)
from arbitrage.tiny.lm import LanguageModelRecipe, Shape, train_language_model
from arbitrage.tiny.optim import Schedule
from arbitrage.tiny.sampling import StepJudge, StepSampler
from arbitrage.tiny.tokenizer import save_tokenizer
from arbitrage.tiny.world import DRAFT_HABIT, TARGET_HABIT
from arbitrage.training.sequences import Labelled

PAIR_NAMES: Final[dict[str, str]] = {Source.DRAFT: "tiny-draft", Source.TARGET: "tiny-target"}
M = TypeVar("M", bound=PreTrainedModel)
R = TypeVar("R", Labelled, RouterRow)
COLLECT_SEED: Final = 7
"""Problems of the judges' data: none that a language model was trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Everything that determines the four models."""

    tokenizer_problems: int
    draft: LanguageModelRecipe
    target: tuple[LanguageModelRecipe, ...]
    """One after another, each from the weights of the one before."""
    prm_problems: int
    prm: ClassifierRecipe
    router_problems: int
    router: ClassifierRecipe
    router_margin: float
    """Advantage above which the target counts as better."""
    router_threshold: float = 0.1
    """Shipped default; chosen on the validation split."""


def _judge_schedule(warmup_steps: int = 50) -> Schedule:
    return Schedule(matrix_lr=4e-4, other_lr=8e-4, warmup_steps=warmup_steps, decay_share=0.8)


_TARGET: Final = LanguageModelRecipe(
    shape=Shape(hidden=256, layers=8, feed_forward=512),
    habit=TARGET_HABIT,
    num_steps=2600,
    tokens_per_batch=3072,
    recall_steps=320,
    drill_steps=900,
    schedule=Schedule(matrix_lr=2e-3, other_lr=3e-3),
    seed=1,
)


def _recall_facts(num_steps: int, seed: int) -> LanguageModelRecipe:
    """Nothing but recall of facts, at full rate to the end."""
    schedule = Schedule(matrix_lr=2e-3, other_lr=3e-3, warmup_steps=20, decay_share=0.01)
    return replace(
        _TARGET,
        recalls=("facts",),
        num_steps=num_steps,
        recall_steps=num_steps,
        drill_steps=0,
        schedule=schedule,
        seed=seed,
    )


_SMOKE_TARGET: Final = LanguageModelRecipe(
    shape=Shape(hidden=256, layers=1, feed_forward=256),
    habit=TARGET_HABIT,
    num_steps=8,
    tokens_per_batch=768,
    drill_steps=4,
    schedule=Schedule(matrix_lr=2e-3, other_lr=3e-3, warmup_steps=2),
    seed=1,
)
PRESETS: Final = {
    "cpu": Preset(
        tokenizer_problems=3000,
        draft=LanguageModelRecipe(
            shape=Shape(hidden=128, layers=2, feed_forward=256),
            habit=DRAFT_HABIT,
            num_steps=1500,
            tokens_per_batch=3072,
            recalls=("names", "facts"),
            drill_steps=500,
            schedule=Schedule(matrix_lr=3e-3, other_lr=5e-3),
        ),
        target=(
            _TARGET,
            replace(
                _TARGET,
                recalls=("names", "facts"),
                num_steps=1100,
                recall_steps=256,
                drill_steps=500,
                schedule=Schedule(matrix_lr=2e-3, other_lr=3e-3, warmup_steps=50),
                seed=2,
            ),
            _recall_facts(200, seed=30),
            _recall_facts(200, seed=31),
            replace(
                _TARGET,
                recalls=("names", "facts"),
                num_steps=700,
                recall_steps=0,
                drill_steps=200,
                schedule=Schedule(matrix_lr=2e-3, other_lr=3e-3, warmup_steps=20, decay_share=0.7),
                seed=4,
            ),
        ),
        prm_problems=3000,
        prm=ClassifierRecipe(num_epochs=3, tokens_per_batch=3072, schedule=_judge_schedule()),
        router_problems=1300,
        router=ClassifierRecipe(num_epochs=2, tokens_per_batch=3072, schedule=_judge_schedule()),
        router_margin=0.05,
    ),
    "smoke": Preset(
        tokenizer_problems=400,
        draft=LanguageModelRecipe(
            shape=Shape(hidden=64, layers=1, feed_forward=128),
            habit=DRAFT_HABIT,
            num_steps=8,
            tokens_per_batch=768,
            drill_steps=4,
            schedule=Schedule(matrix_lr=3e-3, other_lr=5e-3, warmup_steps=2),
        ),
        target=(_SMOKE_TARGET, replace(_SMOKE_TARGET, recalls=("names", "facts"), recall_steps=2, seed=2)),
        prm_problems=12,
        prm=ClassifierRecipe(num_epochs=1, tokens_per_batch=768, schedule=_judge_schedule(2)),
        router_problems=12,
        router=ClassifierRecipe(num_epochs=1, tokens_per_batch=768, schedule=_judge_schedule(2)),
        router_margin=0.0,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One run of the recipe in a folder."""

    preset: Preset
    folder: Path
    device: str = "cpu"

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The shared tokenizer; trained at first use."""
        folder = self.folder / "tokenizer"
        if not folder.exists():
            save_tokenizer(folder, self.preset.tokenizer_problems)
        return PreTrainedTokenizerFast.from_pretrained(str(folder))

    def language_model(self, source: Source) -> LlamaForCausalLM:
        """The draft or the target."""
        return self._made(LlamaForCausalLM, source, lambda: self._train_language_model(source))

    def _train_language_model(self, source: Source) -> LlamaForCausalLM:
        recipes = (self.preset.draft,) if source is Source.DRAFT else self.preset.target
        tokenizer, model = self.tokenizer(), None
        for number, recipe in enumerate(recipes):
            work = self.folder / "work" / f"{source}-{number}"
            model = train_language_model(recipe, tokenizer, work, self.device, start=model)
        assert model is not None
        return model

    def samplers(self) -> dict[Source, StepSampler]:
        """Batched writers of both language models."""
        return {source: StepSampler(self.language_model(source), self.tokenizer()) for source in Source}

    def prm(self) -> PreTrainedModel:
        """The process reward model: the target's weights, taught to judge steps."""
        return self._made(LlamaForTokenClassification, "prm", self._train_prm)

    def _train_prm(self) -> PreTrainedModel:
        count = self.preset.prm_problems
        rows = self._collected(
            "prm",
            Labelled,
            lambda: collect_prm(self.samplers(), self.tokenizer(), split="train", count=count, seed=COLLECT_SEED),
        )
        model = _from_backbone(LlamaForTokenClassification, self.folder / "target").to(self.device)
        return train_classifier(model, rows, self.preset.prm, self.folder / "work" / "prm")

    def router(self) -> PreTrainedModel:
        """The router: the PRM's weights, taught to expect the target's advantage."""
        return self._made(LlamaForSequenceClassification, "router", self._train_router)

    def _train_router(self) -> PreTrainedModel:
        count = self.preset.router_problems
        rows = self._collected(
            "router",
            RouterRow,
            lambda: collect_router(
                self.samplers(),
                StepJudge(self.prm(), self.tokenizer()),
                self.tokenizer(),
                split="train",
                count=count,
                seed=COLLECT_SEED + 1,
            ),
        )
        balanced = balance(rows, random.Random(0), margin=self.preset.router_margin)
        model = _from_backbone(LlamaForSequenceClassification, self.folder / "prm").to(self.device)
        return train_classifier(model, balanced, self.preset.router, self.folder / "work" / "router")

    def _collected(self, name: str, kind: type[R], collect: Callable[[], list[R]]) -> list[R]:
        """Training rows of a judge, kept as JSON lines."""
        path = self.folder / "work" / f"{name}.jsonl"
        if not path.exists():
            partial = path.with_suffix(".partial")
            partial.write_text("".join(json.dumps(asdict(row)) + "\n" for row in collect()))
            partial.replace(path)
        return [kind(**json.loads(line)) for line in path.read_text().splitlines()]

    def _made(self, kind: type[M], name: str, train: Callable[[], PreTrainedModel]) -> M:
        folder = self.folder / name
        if not (folder / "model.safetensors").exists():
            print(json.dumps({"stage": name}), flush=True)
            train().save_pretrained(str(folder))
        model: M = kind.from_pretrained(str(folder)).to(self.device).eval()
        return model


def _from_backbone(kind: type[PreTrainedModel], folder: Path) -> PreTrainedModel:
    """A two-label classifier that starts from another model's body; its head is new unless shapes agree."""
    torch.manual_seed(0)
    return kind.from_pretrained(str(folder), num_labels=2)


def export(build: Build, folder: Path) -> None:
    """Write the four finished models as they ship: fp16 weights, tokenizer and input formats beside them."""
    formats = {
        "prm": InputFormat(kind="prm"),
        "router": InputFormat(
            kind="router",
            annotation=MARKS,
            trained_for=PAIR_NAMES,
            thresholds={"default": build.preset.router_threshold},
        ),
    }
    for name in (*Source, "prm", "router"):
        out = folder / name
        out.mkdir(parents=True, exist_ok=True)
        weights = load_file(build.folder / name / "model.safetensors")
        save_file({k: v.half() for k, v in weights.items()}, out / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((build.folder / name / "config.json").read_text())
        (out / "config.json").write_text(json.dumps({**config, "dtype": "float16"}, indent=2) + "\n")
        build.tokenizer().save_pretrained(str(out))
        if name in formats:
            formats[name].save(out)


def main() -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for stages, checkpoints and the exported models")
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    build = Build(preset=PRESETS[arguments.preset], folder=arguments.out, device=arguments.device)
    build.router()
    export(build, arguments.out / "export")


if __name__ == "__main__":
    main()
