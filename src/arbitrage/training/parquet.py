"""Rows as a Parquet file, for data frames."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from arbitrage.core.errors import MissingExtra
from arbitrage.training.rows import Row


def write_parquet(rows: Iterable[Row], path: Path, *, batch_size: int = 1000) -> int:
    """Write rows as Parquet, in batches; nested fields become structs and lists.

    Returns:
        The number of rows written.

    Raises:
        MissingExtra: If pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("train") from error
    partial, count = path.with_suffix(".partial"), 0
    schema = _parquet_schema(pa)
    with pq.ParquetWriter(partial, schema) as writer:
        for batch in _batches(rows, batch_size):
            records = [{**row.to_json(), "metadata": json.dumps(dict(row.problem.metadata))} for row in batch]
            writer.write_table(pa.Table.from_pylist(records, schema=schema))
            count += len(records)
    partial.replace(path)
    return count


def _batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _parquet_schema(pa: Any) -> Any:
    # The schema is explicit: inferred from a batch without optional fields, it would lack their columns.
    sample = pa.struct(
        [
            ("text", pa.string()),
            ("score", pa.float64()),
            ("finish", pa.string()),
            ("num_tokens", pa.int64()),
            ("seconds", pa.float64()),
            ("logprobs", pa.list_(pa.float64())),
            ("first_entropy", pa.float64()),
            ("hidden_state", pa.string()),
        ]
    )
    past = pa.struct([("source", pa.string()), ("text", pa.string()), ("num_taken_chars", pa.int64())])
    return pa.schema(
        [
            ("schema", pa.int64()),
            ("problem_id", pa.string()),
            ("question", pa.string()),
            ("answer", pa.string()),
            ("metadata", pa.string()),
            ("step", pa.int64()),
            ("is_last", pa.bool_()),
            ("history", pa.list_(past)),
            ("draft", sample),
            ("targets", pa.list_(sample)),
            ("advantage", pa.float64()),
            ("advantage_se", pa.float64()),
            ("kept", pa.string()),
            ("models", pa.struct([(name, pa.string()) for name in ("draft", "target", "prm")])),
        ]
    )
