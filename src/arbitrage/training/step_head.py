"""A classification head that is trained at labelled positions: model wrapper, losses, and batches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from arbitrage.core.errors import MissingExtra
from arbitrage.training.labels import Labelling, Ordinal, Regression

try:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel
except ImportError as error:
    raise MissingExtra("train") from error

IGNORED: Final = -100.0
"""Label of a position that has no part in the loss."""


class StepHead(nn.Module):
    """A classifier whose head is read at labelled positions; ``forward`` returns the loss, as Trainer expects."""

    accepts_loss_kwargs = True
    """Makes Trainer pass the number of labels of an accumulated batch. With it, each label has the same weight, however
    the sequences are packed into device batches."""

    def __init__(self, model: PreTrainedModel, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Wrap a model.

        Args:
            model: A model with a backbone ``base_model`` and a head ``score``.
            loss: Maps logits of shape [items, labels] and labels of shape [items] to losses of shape [items].
        """
        super().__init__()
        self.model, self._loss = model, loss

    def forward(
        self, input_ids: Tensor, labels: Tensor, weights: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> dict[str, Tensor]:
        """Compute the mean loss over labelled positions.

        Args:
            input_ids: Token ids, shape [batch, tokens]; padded on the right, which earlier positions of a causal model
                do not read.
            labels: Labels, shape [batch, tokens]; IGNORED at positions without a label.
            weights: The weight of each position in the loss, shape [batch, tokens].
            num_items_in_batch: The number of labelled positions in the whole accumulated batch.
        """
        states = self.model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
        is_labelled = labels != IGNORED
        losses = self._loss(self.model.score(states[is_labelled]).float(), labels[is_labelled]) * weights[is_labelled]
        return {"loss": losses.sum() / (is_labelled.sum() if num_items_in_batch is None else num_items_in_batch)}


def loss_of(label: Labelling) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss for a labelling: from logits [items, labels] and labels [items] to losses [items]."""

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
    """Make a batch: pad ids on the right, and write labels and weights at their positions.

    Args:
        sequences: Sequences with the keys ``input_ids``, ``positions``, ``labels`` and ``weights``.
        pad_id: The id for padding.

    Returns:
        ``input_ids``, ``labels`` and ``weights``, each of shape [batch, tokens].
    """
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
