"""Optimisers, schedule and pickle-free checkpoints of the tiny recipe."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

REFINE_FACTOR: Final = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Learning rates with linear warm-up, a plateau, and a linear decay to zero."""

    matrix_lr: float
    """For hidden matrices: Muon, with updates scaled to the root mean square of AdamW's."""
    other_lr: float
    """For embeddings, norms and heads (AdamW)."""
    warmup_steps: int = 100
    decay_share: float = 0.5
    refine_steps: int = 0
    """The number of last steps that are a second decay, from ``REFINE_FACTOR`` to zero."""

    def factor(self, step: int, num_steps: int) -> float:
        """The multiplier of both learning rates at ``step`` of ``num_steps``."""
        num_steps -= self.refine_steps
        if step >= num_steps:
            return REFINE_FACTOR * (1.0 - (step - num_steps) / self.refine_steps)
        decay = max(1, round(self.decay_share * num_steps))
        return min(1.0, (step + 1) / self.warmup_steps, (num_steps - step) / decay)


def build_optimizers(model: nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Build Muon for the hidden matrices and AdamW for all other parameters.

    For this task and this size, Muon needs fewer tokens than AdamW alone; ``dev/LOG.md`` has the comparison.
    """
    matrices: list[nn.Parameter] = []
    other_parameters: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_hidden_matrix = parameter.ndim == 2 and ".layers." in name
        (matrices if is_hidden_matrix else other_parameters).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=schedule.matrix_lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(other_parameters, lr=schedule.other_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


class TrainState:
    """A model with its optimisers; checkpoints are safetensors, and restoring is exact."""

    def __init__(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], folder: Path) -> None:
        self.model, self.optimizers, self.folder = model, optimizers, folder
        self.rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]

    def update(self, loss: Tensor, factor: float, max_norm: float = 1.0) -> None:
        """Make one optimiser step with both learning rates scaled by ``factor``."""
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), max_norm)
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def save(self, step: int) -> None:
        """Write weights, optimiser state and step; a kill at any moment leaves the last complete checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"model.{k}": v.contiguous().clone() for k, v in self.model.state_dict().items()}
        for i, optimizer in enumerate(self.optimizers):
            for index, slots in optimizer.state_dict()["state"].items():
                for key, value in slots.items():
                    tensors[f"optimizer.{i}.{index}.{key}"] = torch.as_tensor(value).contiguous().clone()
        partial = self.folder / "checkpoint.partial"
        save_file(tensors, partial, metadata={"step": json.dumps(step)})
        partial.replace(self.folder / "checkpoint.safetensors")

    def restore(self) -> int:
        """Load the last checkpoint, if any; returns the step to continue from."""
        path = self.folder / "checkpoint.safetensors"
        if not path.exists():
            return 0
        tensors = load_file(path)
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        for i, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            prefix = f"optimizer.{i}."
            for name, value in tensors.items():
                if name.startswith(prefix):
                    index, _, key = name.removeprefix(prefix).partition(".")
                    state.setdefault(int(index), {})[key] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        return int(json.loads(_metadata(path)["step"]))


def _metadata(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    metadata: dict[str, str] = header["__metadata__"]
    return metadata
