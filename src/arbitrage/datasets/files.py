"""Problems from JSONL and Parquet files, and balanced samples of them."""

import difflib
import json
import math
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any, Final, Self

from arbitrage.core.boxes import last_boxed
from arbitrage.core.errors import ConfigError, MissingExtra, ProblemError, first_line
from arbitrage.core.types import Problem, read_messages

_THOUSANDS: Final = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])(?=\$?$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldMap:
    """The column of each field of a problem."""

    question: str = "question"
    answer: str = "answer"
    """May hold a whole solution; the answer is then the content of its last box, or the text after ``####``."""
    id: str = "id"
    """Rows without one are numbered from 1."""
    messages: str = ""
    """A conversation, as a list of objects with ``role`` and ``content``, in place of the question. By default the
    column ``messages`` of rows without a question."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a map such as ``question=problem,answer=solution,id=uid``; what it leaves out keeps its own name.

        Raises:
            ConfigError: If a part is no ``FIELD=COLUMN``, or there is no such field.
        """
        names, columns = [field.name for field in fields(cls)], dict[str, str]()
        for part in filter(None, map(str.strip, text.split(","))):
            name, equals, column = (word.strip() for word in part.partition("="))
            if not equals or not column:
                raise ConfigError(f"not a field map: {part!r}", hint="write question=COLUMN,answer=COLUMN,id=COLUMN")
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                raise ConfigError(
                    f"unknown field {name!r} in the field map {text!r}",
                    hint=f"did you mean {near[0]!r}?" if near else f"fields are {', '.join(names)}",
                )
            if name in columns:
                raise ConfigError(f"the field map {text!r} names {name!r} twice")
            columns[name] = column
        return cls(**columns)

    def problem(self, record: Mapping[str, Any], number: int, location: str) -> Problem:
        """Make a problem of a row; other plain columns become metadata.

        Args:
            record: The row.
            number: The row's number, the id of a row without one.
            location: The row's file and line, for errors.

        Raises:
            ConfigError: If the question's column is missing, or another that does not have its usual name, or the
                question is no text or empty, or the messages are no conversation.
        """
        if not isinstance(record, Mapping):
            raise ConfigError(f"{location}: not a problem: {record!r}", hint="each row needs a question")
        conversation = self._conversation_column(record)
        for field in fields(self):
            column = getattr(self, field.name)
            is_needed = field.name == "question" and not conversation
            if column not in record and (is_needed or column != field.default):
                raise ConfigError(
                    f"{location}: not a problem: no column {column!r} for the {field.name}, only {', '.join(record)}",
                    hint=f"name the column: --fields {field.name}=COLUMN",
                )
        question = None if conversation else record[self.question]
        if not (conversation or isinstance(question, str)):
            raise ConfigError(f"{location}: not a problem: the question must be a text, got {question!r}")
        own, row_id = (self.question, self.answer, self.id), record.get(self.id)
        try:
            gold = gold_of(record.get(self.answer))
        except ValueError as error:
            raise ConfigError(
                f"{location}: the answer in column {self.answer!r} must be a number, a text or a list of these, "
                f"got {record[self.answer]!r:.100}",
                hint="name another column with --fields answer=COLUMN",
            ) from error
        try:
            return Problem(
                id=str(number if row_id is None else row_id),
                question=question,
                messages=read_messages(record[conversation]) if conversation else (),
                answer=gold,
                metadata={k: str(v) for k, v in record.items() if k not in own and isinstance(v, str | int | float)},
            )
        except ProblemError as error:
            raise ConfigError(f"{location}: {error}") from error

    def _conversation_column(self, record: Mapping[str, Any]) -> str:
        """The column that holds the row's conversation; empty where its question counts."""
        if self.messages:
            return self.messages if self.messages in record else ""
        is_usual = self.question == "question" and self.question not in record
        return "messages" if is_usual and "messages" in record else ""


def gold_of(value: Any) -> str | None:
    r"""The gold answer in a dataset's column.

    Args:
        value: A number or a text; a solution, whose answer follows ``####`` (GSM8K) or stands in its last box (MATH);
            or a list of answers (OlympiadBench).

    Returns:
        None if there is no answer: nothing, an empty text or list, or NaN.

    Raises:
        ValueError: If the value is of another kind, such as an object or a list of lists.
    """
    if isinstance(value, list | tuple):
        golds = [_scalar_gold(item) for item in value]
        if len(golds) > 1:  # Commas separate the answers of a list.
            golds = [gold and _THOUSANDS.sub(lambda match: match[0].replace(",", ""), gold) for gold in golds]
        return ", ".join(filter(None, golds)) or None
    return _scalar_gold(value)


def _scalar_gold(value: Any) -> str | None:
    if value is None or (isinstance(value, float | Decimal) and math.isnan(value)):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return r"\infty" if value > 0 else r"-\infty"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        return str(int(value))
    if not isinstance(value, str | int | float | Decimal):
        raise ValueError(f"not an answer: {value!r}")
    text = str(value)
    if "####" in text:
        text = text.rpartition("####")[2]
    elif (boxed := last_boxed(text)) is not None:
        text = boxed
    text = text.strip()
    return None if text.casefold() in ("", "nan") else text


def stratified(problems: Sequence[Problem], field: str, *, seed: int) -> list[Problem]:
    """Order problems so that the first n of them, for every n, have the values of a metadata field in equal shares.

    Args:
        problems: The problems.
        field: A metadata field, such as ``source`` or ``level``.
        seed: Shuffles each value's problems and the order of the values.

    Raises:
        ConfigError: If a problem lacks the field.
    """
    rng = random.Random(seed)
    groups: dict[str, list[Problem]] = {}
    for problem in problems:
        if field not in problem.metadata:
            fields = ", ".join(problem.metadata) or "none"
            raise ConfigError(f"problem {problem.id!r} has no field {field!r}", hint=f"its fields: {fields}")
        groups.setdefault(problem.metadata[field], []).append(problem)
    shuffled = [rng.sample(groups[value], len(groups[value])) for value in rng.sample(sorted(groups), len(groups))]
    return [problem for problem in chain.from_iterable(zip_longest(*shuffled)) if problem is not None]


def gathered(
    rows: Iterable[tuple[str, Any]], field_map: FieldMap, dataset: str, limit: int | None = None
) -> list[Problem]:
    """Make problems of rows with unique ids.

    Args:
        rows: The location of each row, and the row.
        field_map: The column of each field.
        dataset: The name of the dataset, for errors.
        limit: Read only this many rows.

    Raises:
        ConfigError: If there are no rows, a row is no problem, or an id appears twice.
    """
    seen: dict[str, str] = {}
    problems: list[Problem] = []
    for number, (location, record) in enumerate(islice(rows, limit), start=1):
        problem = field_map.problem(record, number, location)
        if problem.id in seen:
            raise ConfigError(
                f"{location}: the id {problem.id!r} appears twice, first at {seen[problem.id]}",
                hint="name a column of unique ids, as in --fields id=COLUMN",
            )
        seen[problem.id] = location
        problems.append(problem)
    if not problems:
        raise ConfigError(f"the dataset {dataset!r} is empty")
    return problems


def read_file(path: Path, limit: int | None = None, field_map: FieldMap | None = None) -> list[Problem]:
    """Read problems from a file: Parquet by its ending, else JSONL.

    Args:
        path: The file.
        limit: Read only this many rows.
        field_map: The column of each field; by default those with the fields' own names.

    Raises:
        ConfigError: If the file is missing, broken or empty, or a row is no problem; the error names the row.
        MissingExtra: If pyarrow is not installed.
    """
    if not path.is_file():
        raise ConfigError(f"no dataset file at {str(path)!r}", hint="give a JSONL or Parquet file, or a dataset's name")
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _jsonl_rows(path)
    return gathered(rows, field_map or FieldMap(), str(path), limit)


def _jsonl_rows(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    row = json.loads(line)  # Bytes: so a line that is not UTF-8 is an error that names the line.
                except ValueError as error:
                    raise ConfigError(
                        f"{path}:{number}: not a problem: {error}", hint="one JSON object a line, in UTF-8"
                    ) from error
                yield f"{path}:{number}", row


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingExtra("hub") from error
    try:
        with ParquetFile(path) as file:
            rows = chain.from_iterable(batch.to_pylist() for batch in file.iter_batches())
            for number, row in enumerate(rows, start=1):
                yield f"{path}, row {number}", row
    except ArrowException as error:
        raise ConfigError(f"{path}: not Parquet: {first_line(error)}") from error
