"""Train a router on rows with transformers' Trainer: any classifier or base checkpoint, full or LoRA."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from arbitrage.core.errors import CheckpointError, MissingExtra, first_line
from arbitrage.runtime.store import RunFolder, write_json
from arbitrage.scorers.format import InputFormat
from arbitrage.training.labels import (
    Labelling,
    Ordinal,
    Regression,
    check_classes,
    class_weights,
    downsample,
    labelling,
    split_by_problem,
)
from arbitrage.training.recipe import REPORT, RouterRecipe, read_report
from arbitrage.training.rows import Row
from arbitrage.training.sequences import Labelled, encode, pack

try:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import Sampler
    from transformers import (
        AutoConfig,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        Trainer,
        TrainingArguments,
    )
    from transformers.trainer_pt_utils import get_length_grouped_indices
except ImportError as error:
    raise MissingExtra("train") from error

IGNORED: Final = -100.0
"""Label of a position that bears no loss."""
WORK: Final = "work"
"""Folder of Trainer's checkpoints, removed at the end."""


class EpochOrder(Sampler[int]):
    """Sequences of like lengths together, shuffled by seed and epoch alone.

    Trainer's own sampler draws from the global generator, whose state at an epoch's beginning no checkpoint holds: a
    run that is resumed inside an epoch would see some sequences twice and others never.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        """Order sequences.

        Args:
            lengths: Of each sequence, in tokens.
            batch_size: So many are computed together.
            seed: Of the whole training.
        """
        self._lengths, self._batch_size, self._seed, self._epoch = list(lengths), batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Trainer calls it before each."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(1_000_003 * self._seed + self._epoch)
        return iter(get_length_grouped_indices(self._lengths, self._batch_size, generator=generator))


class _Trainer(Trainer):  # type: ignore[misc]
    """Trainer with an order that a resumed run can repeat."""

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochOrder:
        lengths = [len(item["input_ids"]) for item in train_dataset or self.train_dataset]
        return EpochOrder(lengths, self.args.train_batch_size * self.args.gradient_accumulation_steps, self.args.seed)


class StepHead(nn.Module):
    """A classifier whose head is read at labelled positions; its forward returns the loss, as Trainer wants it."""

    accepts_loss_kwargs = True
    """Trainer then tells how many labels an accumulated batch has: each counts the same, whatever it is packed with."""

    def __init__(self, model: PreTrainedModel, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Wrap a model.

        Args:
            model: With a backbone ``base_model`` and a head ``score``.
            loss: From logits [items, labels] and labels [items] to losses [items].
        """
        super().__init__()
        self.model, self._loss = model, loss

    def forward(
        self, input_ids: Tensor, labels: Tensor, weights: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> dict[str, Tensor]:
        """Mean loss over labelled positions.

        Args:
            input_ids: Padded on the right, where a causal model's positions never look; [batch, tokens].
            labels: IGNORED where there is none; [batch, tokens].
            weights: Of each position in the loss; [batch, tokens].
            num_items_in_batch: Labelled positions of the whole accumulated batch.
        """
        states = self.model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
        kept = labels != IGNORED
        losses = self._loss(self.model.score(states[kept]).float(), labels[kept]) * weights[kept]
        return {"loss": losses.sum() / (kept.sum() if num_items_in_batch is None else num_items_in_batch)}


def loss_of(label: Labelling) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss that a labelling is trained with, per item."""

    def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, labels.long(), reduction="none")

    def above_each_edge(logits: Tensor, labels: Tensor) -> Tensor:
        edges = torch.arange(logits.shape[1], device=logits.device)
        above = (labels[:, None] > edges).to(logits.dtype)
        return nn.functional.binary_cross_entropy_with_logits(logits, above, reduction="none").mean(dim=1)

    def squared(logits: Tensor, labels: Tensor) -> Tensor:
        return (logits[:, 0].sigmoid() - labels).square()

    if isinstance(label, Regression):
        return squared
    return above_each_edge if isinstance(label, Ordinal) else cross_entropy


def collate(sequences: Sequence[Mapping[str, list[float]]], pad_id: int) -> dict[str, Tensor]:
    """Pad on the right; labels and weights spread over their positions."""
    width = max(len(sequence["input_ids"]) for sequence in sequences)
    ids = torch.full((len(sequences), width), pad_id)
    labels = torch.full((len(sequences), width), IGNORED)
    weights = torch.zeros(len(sequences), width)
    for i, sequence in enumerate(sequences):
        ids[i, : len(sequence["input_ids"])] = torch.tensor(sequence["input_ids"])
        positions = torch.tensor(sequence["positions"])
        labels[i, positions] = torch.tensor(sequence["labels"], dtype=torch.float32)
        weights[i, positions] = torch.tensor(sequence["weights"] or 1.0)
    return {"input_ids": ids, "labels": labels, "weights": weights}


def train_router(
    rows: Sequence[Row],
    start: str | Path,
    out: Path,
    recipe: RouterRecipe,
    input_format: InputFormat,
    *,
    settings: Mapping[str, Any],
    device: str = "cpu",
    from_scratch: bool = False,
) -> dict[str, Any]:
    """Train a router, or continue from the last whole checkpoint in ``out``; skipped when it is done.

    Args:
        rows: What :func:`arbitrage.training.rows.read_rows` gives.
        start: A classifier (a PRM) or base checkpoint, folder or hub name.
        out: Becomes a checkpoint folder with the input format and a report inside; checkpoints in ``out/work``.
        recipe: Labels, balance, optimisation.
        input_format: How the router reads a solution; kind, readout and pair are set here.
        settings: What identifies rows and start checkpoint; a folder of another run is refused.
        device: ``cpu``, or a GPU's name.
        from_scratch: Take only the configuration of ``start``, not its weights.

    Returns:
        The report.

    Raises:
        RowError: If the rows have one class only.
        StoreError: If ``out`` belongs to another run.
        CheckpointError: If ``start`` cannot be loaded.
    """
    label = labelling(recipe.labelling, recipe.margin)
    settings = {**settings, "recipe": asdict(recipe), "from_scratch": from_scratch}
    with RunFolder(out, settings):
        if done := read_report(out):
            return done
        train_rows, held_out = split_by_problem(rows, recipe.validation_share, seed=recipe.seed)
        model, tokenizer = _load(start, label.num_labels, recipe.seed, from_scratch)
        input_format = replace(input_format, kind="router", readout=label.readout)
        chosen, weights = _balanced(train_rows, recipe)
        train_set = pack(encode(chosen, tokenizer, input_format, label.label, recipe.advantage, weights))
        test_set = pack(encode(held_out, tokenizer, input_format, label.label, recipe.advantage))
        trainer, merged = _trainer(model, train_set, test_set, recipe, label, out / WORK, device)
        trainer.train(resume_from_checkpoint=_last_whole_checkpoint(out / WORK))
        model = merged()
        model.save_pretrained(str(out))
        tokenizer.save_pretrained(str(out))
        input_format.save(out)
        report = {
            "settings": settings,
            "num_rows": len(rows),
            "num_rows_trained_on": len(chosen),
            "num_sequences": len(train_set),
            "num_updates": trainer.state.global_step,
            "losses": [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry],
            "held_out_problems": sorted({row.problem.id for row in held_out}),
        }
        write_json(out / REPORT, report)
        shutil.rmtree(out / WORK)
        return report


def _balanced(rows: Sequence[Row], recipe: RouterRecipe) -> tuple[list[Row], list[float]]:
    """The rows to train on, and each one's weight in the loss."""
    gains = [int(recipe.advantage(row) > recipe.margin) for row in rows]
    if recipe.balance == "downsample":
        chosen = downsample(rows, gains, seed=recipe.seed)
        return chosen, [1.0] * len(chosen)
    if recipe.balance == "weights" or recipe.labelling != "regression":
        check_classes(gains)
    by_class = class_weights(gains, 2) if recipe.balance == "weights" else [1.0, 1.0]
    return list(rows), [by_class[gain] for gain in gains]


def _load(
    start: str | Path, num_labels: int, seed: int, from_scratch: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A sequence classifier with the body of another checkpoint; its head is new unless shapes agree. Its tokenizer.

    Raises:
        CheckpointError: If there is no such checkpoint, or its architecture has no head called ``score``.
    """
    torch.manual_seed(seed)
    model: PreTrainedModel
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(start), trust_remote_code=False)
        if from_scratch:
            config = AutoConfig.from_pretrained(str(start), num_labels=num_labels, trust_remote_code=False)
            model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        else:
            model = AutoModelForSequenceClassification.from_pretrained(
                str(start),
                num_labels=num_labels,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
            )
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot start from {str(start)!r}: {first_line(error)}") from error
    if not hasattr(model, "score"):
        raise CheckpointError(f"{type(model).__name__} has no head called score", hint="start from a causal model")
    if model.config.pad_token_id is None:  # Servers that batch need to know where a sequence ends.
        pad_id = tokenizer.pad_token_id
        model.config.pad_token_id = tokenizer.eos_token_id if pad_id is None else pad_id
    return model, tokenizer


def _trainer(
    model: PreTrainedModel,
    train_set: Sequence[Labelled],
    test_set: Sequence[Labelled],
    recipe: RouterRecipe,
    label: Labelling,
    work: Path,
    device: str,
) -> tuple[Trainer, Callable[[], PreTrainedModel]]:
    """The trainer, and what gives the plain model once it has run."""
    merged: Callable[[], PreTrainedModel] = lambda: model  # noqa: E731
    inner = model
    if recipe.lora_rank:
        adapted = _with_lora(model, recipe.lora_rank)
        merged, inner = adapted.merge_and_unload, adapted.get_base_model()
    arguments = TrainingArguments(
        output_dir=str(work),
        num_train_epochs=recipe.num_epochs,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup_share,
        lr_scheduler_type="linear",
        per_device_train_batch_size=recipe.device_batch_size,
        per_device_eval_batch_size=recipe.device_batch_size,
        gradient_accumulation_steps=recipe.batch_size // recipe.device_batch_size,
        bf16=recipe.bf16,
        use_cpu=device == "cpu",
        seed=recipe.seed,
        save_steps=recipe.save_steps,
        save_total_limit=2,
        eval_strategy="epoch",
        logging_steps=10,
        report_to=[],
        remove_unused_columns=False,
        dataloader_pin_memory=device != "cpu",
        label_names=["labels"],
        prediction_loss_only=True,
    )
    pad_id = model.config.pad_token_id or 0
    trainer = _Trainer(
        model=StepHead(inner, loss_of(label)),
        args=arguments,
        train_dataset=[_item(sequence) for sequence in train_set],
        eval_dataset=[_item(sequence) for sequence in test_set],
        data_collator=lambda items: collate(items, pad_id),
    )
    return trainer, merged


def _item(sequence: Labelled) -> dict[str, Any]:
    record = asdict(sequence)
    return {"input_ids": record.pop("ids"), **record}


def _with_lora(model: PreTrainedModel, rank: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtra("lora") from error
    config = LoraConfig(
        task_type="SEQ_CLS", r=rank, lora_alpha=2 * rank, target_modules="all-linear", modules_to_save=["score"]
    )
    return get_peft_model(model, config)


def _last_whole_checkpoint(work: Path) -> str | None:
    """The last checkpoint that was written to its end: Trainer writes its state file last. Others are removed."""
    whole: list[tuple[int, Path]] = []
    for folder in work.glob("checkpoint-*"):
        try:
            whole.append((int(json.loads((folder / "trainer_state.json").read_text())["global_step"]), folder))
        except (OSError, ValueError, LookupError):
            shutil.rmtree(folder)
    return str(max(whole)[1]) if whole else None
