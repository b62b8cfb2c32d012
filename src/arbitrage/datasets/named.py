"""Problems by the name of their dataset."""

import difflib
from pathlib import Path

from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Problem
from arbitrage.datasets.files import FieldMap, read_file, stratified
from arbitrage.datasets.hub import NAMED, PREFIX, HubSet, read_hub
from arbitrage.pairs.catalogue import TINY
from arbitrage.tiny import dataset as tiny_dataset


def problems(
    dataset: str, limit: int | None = None, *, stratify: str = "", seed: int = 0, fields: str = ""
) -> list[Problem]:
    """Problems by the name of their dataset.

    Args:
        dataset: ``tiny:SPLIT`` or ``tiny:SPLIT:SEED`` for the tiny world, a benchmark such as ``math500``,
            ``hub:OWNER/NAME`` for any dataset of the hub, or a JSONL or Parquet file.
        limit: Return only this many problems.
        stratify: A metadata field; the returned problems then have its values in equal shares.
        seed: Of that choice.
        fields: The columns of a file, such as ``question=problem,answer=solution,id=uid``.

    Raises:
        ConfigError: If there is no such dataset, split, file or field, or it holds no problems.
        MissingExtra: If the library datasets is not installed.
    """
    check_limit(limit)
    name, _, split = dataset.partition(":")
    if fields and (name == TINY or dataset in NAMED):
        raise ConfigError(f"fields are for files and {PREFIX}…, {dataset!r} has fixed columns; got {fields!r}")
    if name == TINY:  # Generated without end, and balanced.
        return _tiny_problems(split, limit or tiny_dataset.DEFAULT_COUNT)
    field_map = FieldMap.parse(fields)
    read_limit = None if stratify else limit
    if dataset in NAMED or dataset.startswith(PREFIX):
        source = NAMED.get(dataset) or HubSet.parse(dataset.removeprefix(PREFIX), field_map)
        loaded = read_hub(source, read_limit)
    elif Path(dataset).suffix or Path(dataset).is_file():
        loaded = read_file(Path(dataset), read_limit, field_map)
    else:
        raise ConfigError(f"no dataset {dataset!r}", hint=_dataset_hint(dataset))
    return stratified(loaded, stratify, seed=seed)[:limit] if stratify else loaded


def _dataset_hint(dataset: str) -> str:
    near = difflib.get_close_matches(dataset, NAMED, n=1)
    return (
        f"did you mean {near[0]!r}?" if near else f"give a file, tiny:test, {PREFIX}OWNER/NAME, or {', '.join(NAMED)}"
    )


def _tiny_problems(name: str, count: int) -> list[Problem]:
    split, _, seed = name.partition(":")
    if seed and not seed.isdecimal():
        raise ConfigError(f"the seed in tiny:{name} must be a number, got {seed!r}")
    return tiny_dataset.problems(split or "test", count, seed=int(seed or 0))


def check_limit(limit: int | None) -> None:
    """Refuse a limit that is not positive.

    Raises:
        ConfigError: If it is below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, got {limit}")
