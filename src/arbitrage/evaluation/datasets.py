"""Problems from a JSONL file."""

import json
from pathlib import Path

from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Problem


def read_jsonl(path: Path, limit: int | None = None) -> list[Problem]:
    """Read one problem a line: ``question``, and where known ``answer`` and ``id``.

    Raises:
        ConfigError: If the file is missing, empty, or a line is no problem; the line's number is named.
    """
    if not path.is_file():
        raise ConfigError(f"no dataset file at {str(path)!r}", hint="give a JSONL file, or tiny:test")
    problems: list[Problem] = []
    seen: set[str] = set()
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if limit is not None and len(problems) >= limit:
            break
        if not line.strip():
            continue
        problem = _read_line(line, f"{path}:{number}", number)
        if problem.id in seen:
            raise ConfigError(f"{path}:{number}: the id {problem.id!r} appears twice")
        seen.add(problem.id)
        problems.append(problem)
    if not problems:
        raise ConfigError(f"the dataset {str(path)!r} is empty")
    return problems


def _read_line(line: str, place: str, number: int) -> Problem:
    try:
        record = json.loads(line)
        answer = record.get("answer")
        return Problem(
            id=str(record.get("id", number)),
            question=record["question"],
            answer=None if answer is None else str(answer),
        )
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(f"{place}: not a problem: {error!r}", hint="each line needs a field question") from error
