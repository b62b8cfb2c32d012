"""Benchmarks from the Hugging Face hub, or from a folder laid out like one of its repositories."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from arbitrage.core.errors import ConfigError, MissingExtra, first_line
from arbitrage.core.types import Problem
from arbitrage.datasets.files import FieldMap, gathered

PREFIX: Final = "hub:"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSet:
    """One split of a dataset."""

    path: str
    """``owner/name``, or a local folder in the same layout."""
    config: str | None = None
    split: str = "test"
    field_map: FieldMap = field(default_factory=FieldMap)
    keeps: tuple[str, ...] | None = None
    """Columns that become metadata; None for all plain ones."""

    @classmethod
    def parse(cls, name: str, field_map: FieldMap) -> Self:
        """Read ``OWNER/NAME``, ``OWNER/NAME:SPLIT`` or ``OWNER/NAME:CONFIG:SPLIT``.

        Raises:
            ConfigError: If the name has another form.
        """
        path, *rest = name.split(":")
        if not path or len(rest) > 2 or not all(rest):
            raise ConfigError(
                f"not a dataset of the hub: {PREFIX}{name}", hint=f"write {PREFIX}OWNER/NAME[:CONFIG][:SPLIT]"
            )
        split = rest[-1] if rest else "test"
        return cls(path=path, config=rest[0] if len(rest) == 2 else None, split=split, field_map=field_map)


NAMED: Final[dict[str, HubSet]] = {
    # Hendrycks et al. 2021, the 500 of Lightman et al. 2023.
    "math500": HubSet(
        path="HuggingFaceH4/MATH-500",
        field_map=FieldMap(question="problem", id="unique_id"),
        keeps=("subject", "level"),
    ),
    # He et al. 2024: open-ended, text only, mathematics, English, competition.
    "olympiadbench": HubSet(
        path="Hothan/OlympiadBench",
        config="OE_TO_maths_en_COMP",
        split="train",
        field_map=FieldMap(answer="final_answer"),
        keeps=("subfield", "answer_type", "is_multiple_answer", "unit"),
    ),
    # Cobbe et al. 2021.
    "gsm8k": HubSet(path="openai/gsm8k", config="main", keeps=()),
    "aime24": HubSet(
        path="HuggingFaceH4/aime_2024", split="train", field_map=FieldMap(question="problem"), keeps=("url",)
    ),
    "amc23": HubSet(path="math-ai/amc23", keeps=("url",)),
    # Lewkowycz et al. 2022.
    "minerva": HubSet(path="math-ai/minervamath", keeps=()),
    # Li et al. 2024; for collection, its golds stand in the boxes of its solutions.
    "numina": HubSet(
        path="AI-MO/NuminaMath-CoT",
        split="train",
        field_map=FieldMap(question="problem", answer="solution"),
        keeps=("source",),
    ),
}
"""Benchmarks by name."""


def read_hub(source: HubSet, limit: int | None = None) -> list[Problem]:
    """Load a dataset's problems; a dataset that was loaded before is read from the cache of ``datasets``.

    Args:
        source: The dataset.
        limit: Only this many of the first problems.

    Raises:
        ConfigError: If there is no such dataset, configuration, split or column, or it holds no problems.
        MissingExtra: If ``datasets`` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("hub") from error
    try:
        loaded = datasets.load_dataset(source.path, source.config, split=source.split)
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        raise ConfigError(
            f"cannot load the dataset {source.path!r}, configuration {source.config!r}, split {source.split!r}: "
            f"{first_line(error)}",
            hint="check the names and the connection, or give a local JSONL or Parquet file with --fields",
        ) from error
    return gathered(_rows(source, loaded), source.field_map, source.path, limit)


def _rows(source: HubSet, loaded: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    own = (source.field_map.question, source.field_map.answer, source.field_map.id)
    for number, row in enumerate(loaded, start=1):
        kept = row if source.keeps is None else {k: v for k, v in row.items() if k in own or k in source.keeps}
        yield f"{source.path}, row {number}", kept
