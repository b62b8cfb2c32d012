"""Problems from a JSONL file, and balanced samples of them."""

import json
import random
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path

from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Problem

_OWN = ("id", "question", "answer")


def stratified(problems: Sequence[Problem], field: str, *, seed: int) -> list[Problem]:
    """Order problems so that every beginning of the list holds the values of a metadata field in equal shares.

    Args:
        problems: What to order.
        field: A metadata field, such as ``source`` or ``level``.
        seed: Shuffles each value's problems and the order of the values.

    Raises:
        ConfigError: If a problem lacks the field.
    """
    rng = random.Random(seed)
    groups: dict[str, list[Problem]] = {}
    for problem in problems:
        if field not in problem.metadata:
            known = ", ".join(problem.metadata) or "none"
            raise ConfigError(f"problem {problem.id!r} has no field {field!r}", hint=f"its fields: {known}")
        groups.setdefault(problem.metadata[field], []).append(problem)
    shuffled = [rng.sample(groups[value], len(groups[value])) for value in rng.sample(sorted(groups), len(groups))]
    return [problem for problem in chain.from_iterable(zip_longest(*shuffled)) if problem is not None]


def read_jsonl(path: Path, limit: int | None = None) -> list[Problem]:
    """Read one problem a line: ``question``, and where known ``answer`` and ``id``; other plain fields are metadata.

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
            metadata={k: str(v) for k, v in record.items() if k not in _OWN and isinstance(v, str | int | float)},
        )
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(f"{place}: not a problem: {error!r}", hint="each line needs a field question") from error
