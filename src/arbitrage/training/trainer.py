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
    check_classes,
    class_weights,
    downsample,
    labelling,
    split_by_problem,
)
from arbitrage.training.recipe import REPORT, RouterRecipe, read_report
from arbitrage.training.rows import Row
from arbitrage.training.sequences import Labelled, encode, pack
from arbitrage.training.step_head import StepHead, collate, loss_of

try:
    import torch
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

WORK: Final = "work"
"""The folder of Trainer's checkpoints; removed at the end of the training."""


class EpochOrder(Sampler[int]):
    """An order of sequences in which similar lengths are together; it depends on seed and epoch alone.

    Trainer's own sampler draws from the global generator. No checkpoint holds the generator's state at the beginning of
    an epoch, so a run that resumes inside an epoch would repeat some sequences and skip others.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        """Describe an order.

        Args:
            lengths: The length of each sequence, in tokens.
            batch_size: The number of sequences of an update.
            seed: The seed of the training.
        """
        self._lengths, self._batch_size, self._seed, self._epoch = list(lengths), batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch; Trainer calls this before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(1_000_003 * self._seed + self._epoch)
        return iter(get_length_grouped_indices(self._lengths, self._batch_size, generator=generator))


class _Trainer(Trainer):  # type: ignore[misc]
    """Trainer with an order of sequences that a resumed run repeats."""

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochOrder:
        lengths = [len(item["input_ids"]) for item in train_dataset or self.train_dataset]
        return EpochOrder(lengths, self.args.train_batch_size * self.args.gradient_accumulation_steps, self.args.seed)


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
    """Train a router; continue from the last complete checkpoint in ``out``, or return the report of a finished run.

    Args:
        rows: Rows from :func:`arbitrage.training.rows.read_rows`.
        start: The checkpoint to start from, a folder or hub name: a classifier such as a PRM, or a language model.
        out: Becomes a checkpoint folder with the input format and the report. ``out/work`` holds checkpoints until the
            training ends.
        recipe: Labels, balance, optimisation.
        input_format: How the router reads a solution; kind and readout are set here.
        settings: Identifies rows and start checkpoint; a folder of another run is refused.
        device: ``cpu``, or a GPU's name.
        from_scratch: Start from random weights in the shape of ``start``.

    Returns:
        The report.

    Raises:
        RowError: If the rows have only one class.
        StoreError: If ``out`` belongs to another run.
        CheckpointError: If ``start`` cannot be loaded.
    """
    label = labelling(recipe.labelling, recipe.margin)
    settings = {**settings, "recipe": asdict(recipe), "from_scratch": from_scratch}
    with RunFolder(out, settings):
        if finished_report := read_report(out):
            return finished_report
        report = {"settings": settings, **_train(rows, start, out, recipe, label, input_format, device, from_scratch)}
        write_json(out / REPORT, report)
        shutil.rmtree(out / WORK)
        return report


def _train(
    rows: Sequence[Row],
    start: str | Path,
    out: Path,
    recipe: RouterRecipe,
    label: Labelling,
    input_format: InputFormat,
    device: str,
    from_scratch: bool,
) -> dict[str, Any]:
    """Train, and write the checkpoint into ``out``; returns the report's figures."""
    train_rows, held_out = split_by_problem(rows, recipe.validation_share, seed=recipe.seed)
    model, tokenizer = _load(start, label.num_labels, recipe.seed, from_scratch)
    input_format = replace(input_format, kind="router", readout=label.readout)
    balanced_rows, weights = _balanced(train_rows, recipe)
    train_set = pack(encode(balanced_rows, tokenizer, input_format, label.label, recipe.advantage, weights))
    test_set = pack(encode(held_out, tokenizer, input_format, label.label, recipe.advantage))
    trainer, merged = _trainer(model, train_set, test_set, recipe, label, out / WORK, device)
    trainer.train(resume_from_checkpoint=_last_complete_checkpoint(out / WORK))
    merged().save_pretrained(str(out))
    tokenizer.save_pretrained(str(out))
    input_format.save(out)
    return {
        "num_rows": len(rows),
        "num_rows_trained_on": len(balanced_rows),
        "num_sequences": len(train_set),
        "num_updates": trainer.state.global_step,
        "losses": [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry],
        "held_out_problems": sorted({row.problem.id for row in held_out}),
    }


def _balanced(rows: Sequence[Row], recipe: RouterRecipe) -> tuple[list[Row], list[float]]:
    """The rows to train on, and the weight of each row in the loss."""
    has_gain = [int(recipe.advantage(row) > recipe.margin) for row in rows]
    if recipe.balance == "downsample":
        balanced_rows = downsample(rows, has_gain, seed=recipe.seed)
        return balanced_rows, [1.0] * len(balanced_rows)
    if recipe.balance == "weights" or recipe.labelling != "regression":
        check_classes(has_gain)
    by_class = class_weights(has_gain, 2) if recipe.balance == "weights" else [1.0, 1.0]
    return list(rows), [by_class[its_class] for its_class in has_gain]


def _load(
    start: str | Path, num_labels: int, seed: int, from_scratch: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a sequence classifier with the backbone of another checkpoint, and the tokenizer.

    The head has new weights unless the checkpoint has a head of the same shape.

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
        raise CheckpointError(
            f"cannot start from {str(start)!r}: {first_line(error)}", hint="--start names a checkpoint with safetensors"
        ) from error
    if not hasattr(model, "score"):
        raise CheckpointError(
            f"cannot start from {str(start)!r}: {type(model).__name__} has no head called score",
            hint="start from a causal language model or a classifier on one",
        )
    if model.config.pad_token_id is None:  # A server that pads batches needs it to find the end of a sequence.
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
    """The trainer, and a function that returns the plain model after the training: LoRA adapters are then merged."""
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


def _last_complete_checkpoint(work: Path) -> str | None:
    """Find the last complete checkpoint, and remove incomplete ones: Trainer writes the state file last."""
    complete: list[tuple[int, Path]] = []
    for folder in work.glob("checkpoint-*"):
        try:
            complete.append((int(json.loads((folder / "trainer_state.json").read_text())["global_step"]), folder))
        except (OSError, ValueError, LookupError):
            shutil.rmtree(folder)
    return str(max(complete)[1]) if complete else None
