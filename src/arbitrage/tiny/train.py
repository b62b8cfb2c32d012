"""Train all tiny models from random weights: ``python -m arbitrage.tiny.train OUT``.

The stages are tokenizer, draft, target, prm, router and probe. A stage is skipped if its result exists, so a killed run
continues where it stopped. Training checkpoints are safetensors.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaForCausalLM,
    LlamaForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from arbitrage.core.types import Source
from arbitrage.scorers.format import InputFormat
from arbitrage.tiny import MARKS
from arbitrage.tiny.commands import arbitrage, write_pair
from arbitrage.tiny.lm import LanguageModelRecipe, Shape, train_language_model
from arbitrage.tiny.optim import Schedule
from arbitrage.tiny.prm import ClassifierRecipe, collect_prm, prm_drills, train_classifier
from arbitrage.tiny.sampling import StepSampler
from arbitrage.tiny.tokenizer import save_tokenizer
from arbitrage.tiny.world_problem import DRAFT_HABIT, TARGET_HABIT
from arbitrage.training.sequences import Labelled

M = TypeVar("M", bound=PreTrainedModel)
COLLECT_SEED: Final = 7
"""The seed of the problems for the PRM and the routers; the language models were trained on other seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """All settings that determine the four models and the probe."""

    tokenizer_problems: int
    draft: LanguageModelRecipe
    target: LanguageModelRecipe
    prm_problems: int
    prm_drills: int
    """The number of lists of single statements that the PRM learns beside the solutions."""
    prm: ClassifierRecipe
    rows: tuple[str, ...]
    """Options of ``arbitrage collect``."""
    router: tuple[str, ...]
    """Options of ``arbitrage train-router``."""
    rollouts: tuple[str, ...]
    """Options of ``arbitrage label``, for the rows of the probe."""
    probe: tuple[str, ...]
    """Options of ``arbitrage train-probe``."""
    thresholds: Mapping[str, float] = field(default_factory=lambda: {"router": 0.1, "probe": 0.02})
    """The shipped routers with their default thresholds: the model's was chosen on the validation split, the probe's is
    shown to lose less than 1.5 points on 2,400 test problems."""


_SMALL_ROUTER: Final = ("--learning-rate", "4e-4", "--batch-size", "32", "--device-batch-size", "16", "--bf16")
"""Training options for a router of this size; the defaults are for 1.5 billion weights."""

PRESETS: Final = {
    "cpu": Preset(
        tokenizer_problems=3000,
        draft=LanguageModelRecipe(
            shape=Shape(hidden=128, layers=2, feed_forward=256),
            habit=DRAFT_HABIT,
            num_steps=4000,
            tokens_per_batch=3072,
            recalls={"names": 320, "facts": 1100},
            drill_steps=2800,
            schedule=Schedule(matrix_lr=3e-3, other_lr=5e-3, decay_share=0.4),
        ),
        target=LanguageModelRecipe(
            shape=Shape(hidden=256, layers=8, feed_forward=512),
            habit=TARGET_HABIT,
            num_steps=4000,
            tokens_per_batch=3072,
            drill_steps=1700,
            schedule=Schedule(matrix_lr=2e-3, other_lr=3e-3, refine_steps=700),
            seed=1,
        ),
        prm_problems=26_000,
        prm_drills=20_000,
        prm=ClassifierRecipe(
            num_epochs=1,
            tokens_per_batch=3072,
            schedule=Schedule(matrix_lr=8e-4, other_lr=1.6e-3, warmup_steps=50, decay_share=0.8),
        ),
        rows=("--limit", "2500", "--keep-draft", "0.3"),
        router=(*_SMALL_ROUTER, "--epochs", "3", "--margin", "0.2"),
        rollouts=("--limit", "1000", "--continuations", "1", "--temperature", "0"),
        probe=("--inputs", "likelihoods", "--ask-above", "0.02"),
    ),
    "smoke": Preset(
        tokenizer_problems=400,
        draft=LanguageModelRecipe(
            shape=Shape(hidden=64, layers=1, feed_forward=128),
            habit=DRAFT_HABIT,
            num_steps=8,
            tokens_per_batch=768,
            recalls={"names": 1, "facts": 1},
            drill_steps=4,
            schedule=Schedule(matrix_lr=3e-3, other_lr=5e-3, warmup_steps=2),
        ),
        target=LanguageModelRecipe(
            shape=Shape(hidden=256, layers=1, feed_forward=256),
            habit=TARGET_HABIT,
            num_steps=8,
            tokens_per_batch=768,
            recalls={"names": 1, "facts": 1},
            drill_steps=4,
            schedule=Schedule(matrix_lr=2e-3, other_lr=3e-3, warmup_steps=2),
            seed=1,
        ),
        prm_problems=12,
        prm_drills=4,
        prm=ClassifierRecipe(
            num_epochs=1, tokens_per_batch=768, schedule=Schedule(matrix_lr=4e-4, other_lr=8e-4, warmup_steps=2)
        ),
        rows=("--limit", "12", "--max-tokens", "24"),  # Untrained models write special tokens: as text each is long.
        router=(*_SMALL_ROUTER, "--epochs", "1", "--labels", "regression", "--balance", "none"),
        rollouts=(),
        probe=(),
        thresholds={
            "router": 0.1
        },  # No probe: every step of so weak a draft is worse than the target's, and a probe needs two classes.
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One run of the recipe in a folder."""

    preset: Preset
    folder: Path
    device: str = "cpu"

    def all(self) -> None:
        """Run every stage that has no result yet; the finished models are in ``export``."""
        for source in Source:
            self.language_model(source)
            self.ship(source)
        self.prm()
        self.ship("prm")
        self.routers()
        for name in self.preset.thresholds:
            self.ship(name)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The shared tokenizer; it is trained at the first call."""
        folder = self.folder / "tokenizer"
        if not folder.exists():
            save_tokenizer(folder, self.preset.tokenizer_problems)
        return PreTrainedTokenizerFast.from_pretrained(str(folder))

    def language_model(self, source: Source) -> LlamaForCausalLM:
        """The draft or the target."""
        return self._trained(LlamaForCausalLM, source, lambda: self._train_language_model(source))

    def _train_language_model(self, source: Source) -> LlamaForCausalLM:
        recipe = self.preset.draft if source is Source.DRAFT else self.preset.target
        return train_language_model(recipe, self.tokenizer(), self.folder / "work" / source, self.device)

    def samplers(self) -> dict[Source, StepSampler]:
        """Samplers of both language models."""
        return {source: StepSampler(self.language_model(source), self.tokenizer()) for source in Source}

    def prm(self) -> PreTrainedModel:
        """The process reward model: the target's weights, fine-tuned to score steps."""
        return self._trained(LlamaForTokenClassification, "prm", self._train_prm)

    def _train_prm(self) -> PreTrainedModel:
        count = self.preset.prm_problems
        path = self.folder / "work" / "prm.jsonl"
        if not path.exists():
            rows = collect_prm(self.samplers(), self.tokenizer(), split="train", count=count, seed=COLLECT_SEED)
            partial = path.with_suffix(".partial")
            partial.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
            partial.replace(path)
        rows = [Labelled(**json.loads(line)) for line in path.read_text().splitlines()]
        rows += prm_drills(self.tokenizer(), self.preset.prm_drills, COLLECT_SEED)
        model = _from_backbone(LlamaForTokenClassification, self.folder / "target").to(self.device)
        return train_classifier(model, rows, self.preset.prm, self.folder / "work" / "prm")

    def routers(self) -> None:
        """Train the two routers on the same draft steps, with public commands.

        The router with a language model starts from the shipped PRM and learns from PRM scores. The probe learns from
        rollout scores.
        """
        rows, models = self.folder / "work" / "rows", {role: self.shipped / role for role in (*Source, "prm")}
        pair = write_pair(self.folder / "work" / "pair.toml", models, self.device)
        arbitrage("collect", rows, "--pair", pair, "--dataset", f"tiny:train:{COLLECT_SEED + 1}", *self.preset.rows)
        options = ("--marks", *MARKS.values(), "--device", self.device, *self.preset.router)
        arbitrage("train-router", rows, self.folder / "router", "--pair", pair, *options)
        if "probe" in self.preset.thresholds:
            labelled_rows = self.folder / "work" / "rolled"
            arbitrage("label", rows, labelled_rows, "--pair", pair, *self.preset.rollouts)
            arbitrage("train-probe", labelled_rows, self.folder / "probe", "--pair", pair, *self.preset.probe)

    @property
    def shipped(self) -> Path:
        """The folder of the finished models."""
        return self.folder / "export"

    def ship(self, name: str) -> None:
        """Write a finished model into ``export``: fp16 weights, tokenizer, input format; a probe keeps its weights."""
        trained, out = self.folder / name, self.shipped / name
        out.mkdir(parents=True, exist_ok=True)
        if name == "probe":
            for file_name in ("config.json", "model.safetensors"):
                shutil.copyfile(trained / file_name, out / file_name)
        else:
            self._ship_model(trained, out)
        if name == "prm":
            InputFormat(kind="prm").save(out)
        elif name in self.preset.thresholds:
            thresholds = {"default": self.preset.thresholds[name]}
            replace(InputFormat.load(trained), thresholds=thresholds).save(out)

    def _ship_model(self, trained: Path, out: Path) -> None:
        weights = load_file(trained / "model.safetensors")
        save_file({k: v.half() for k, v in weights.items()}, out / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((trained / "config.json").read_text())
        (out / "config.json").write_text(json.dumps({**config, "dtype": "float16"}, indent=2) + "\n")
        self.tokenizer().save_pretrained(str(out))

    def _trained(self, model_class: type[M], name: str, train: Callable[[], PreTrainedModel]) -> M:
        """Load a stage's model; train it first if the stage has no result."""
        folder = self.folder / name
        if not (folder / "model.safetensors").exists():
            print(json.dumps({"stage": name}), flush=True)
            train().save_pretrained(str(folder))
        model: M = model_class.from_pretrained(str(folder)).to(self.device).eval()
        return model


def _from_backbone(model_class: type[PreTrainedModel], folder: Path) -> PreTrainedModel:
    """A classifier with two labels and another model's backbone; its head has new weights unless the shapes agree."""
    torch.manual_seed(0)
    return model_class.from_pretrained(str(folder), num_labels=2)


def main() -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for stages, checkpoints and the exported models")
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    Build(preset=PRESETS[arguments.preset], folder=arguments.out, device=arguments.device).all()


if __name__ == "__main__":
    main()
