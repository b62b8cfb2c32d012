"""Traces and summaries as flat records: ``pandas.DataFrame(arbitrage.trace_records("run"))``."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from arbitrage.core.types import Source
from arbitrage.evaluation.figures.metrics import Row, flat
from arbitrage.evaluation.figures.rates import Rates
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.folder import read_run, read_traces
from arbitrage.evaluation.running.solutions import Solution, StepFacts, condense
from arbitrage.evaluation.running.sweep import table_of


def trace_records(path: str | Path) -> Iterator[dict[str, Any]]:
    """One flat record a solution, in the order in which they were made.

    Args:
        path: A run folder of ``arbitrage eval --out``, or a file of ``--traces``.

    Raises:
        StoreError: If there are no traces.
        TraceError: If a record is no trace, or of a newer schema.
    """
    for place, trace in read_traces(Path(path)):
        yield _solution_record(condense(trace, place))


def step_records(path: str | Path) -> Iterator[dict[str, Any]]:
    """One flat record a step: its author, its text and what it replaced, scores, tokens, seconds.

    Args:
        path: A run folder, or a file of traces.

    Raises:
        StoreError: If there are no traces.
        TraceError: If a record is no trace, or of a newer schema.
    """
    for place, trace in read_traces(Path(path)):
        for index, step in enumerate(trace.steps):
            facts = StepFacts.of(step)
            texts = {candidate.source: candidate.text for candidate in step.candidates}
            yield {
                "policy": place.entry.policy,
                "threshold": place.entry.threshold,
                "problem": trace.problem.id,
                "attempt": place.attempt,
                "step": index,
                "source": str(step.source),
                "text": step.text,
                "draft_text": texts.get(Source.DRAFT),
                "target_text": texts.get(Source.TARGET),
                "num_tokens": facts.num_tokens,
                "decided_on": facts.decided_on,
                "draft_score": facts.draft_score,
                "target_score": facts.target_score,
                "advantage": facts.advantage,
                "is_wasted": facts.is_wasted,
                "finish": str(step.finish),
                "seconds": sum(c.cost.seconds for c in step.candidates if c.source not in step.decision.measured)
                + sum(s.cost.seconds for s in step.scores if s.scorer not in step.decision.measured),
            }


def summary_records(path: str | Path, rates: Rates | None = None) -> list[dict[str, Any]]:
    """One flat record a policy and threshold: all columns of ``summary.csv``.

    Args:
        path: A run folder, or a file of traces.
        rates: To estimate operations and cost with.

    Raises:
        StoreError: If there are no traces.
        TraceError: If a record is no trace, or of a newer schema.
    """
    return [flat(row) for row in table_of(read_run(Path(path)).solutions, rates)]


def _solution_record(solution: Solution) -> dict[str, Any]:
    escalations = [step for step in solution.steps if step.source is Source.TARGET]
    audited = [step.is_wasted for step in escalations if step.is_wasted is not None]
    return {
        "policy": solution.entry.policy,
        "threshold": solution.entry.threshold,
        "problem": solution.problem,
        "level": solution.level,
        "attempt": solution.attempt,
        "answer": solution.answer,
        "is_correct": solution.is_correct,
        "finish": None if solution.finish is None else str(solution.finish),
        "error": solution.error,
        "num_steps": len(solution.steps),
        "num_escalations": len(escalations),
        "num_audited": len(audited),
        "num_wasted": sum(audited),
        "num_tokens": solution.num_tokens,
        **flat(solution.fates, "tokens."),
        "seconds": solution.seconds,
        **{f"role_s.{model}": cost.seconds for model, cost in solution.usage.items()},
        "role_s.outside": solution.outside_s,
        "measured_s": solution.measured_s,
        "energy_j": solution.energy_j,
    }


def plain(record: Any) -> Any:
    """A record as JSON can hold it: dataclasses are objects, what is infinite or no number is null.

    An entry is its policy and threshold; in the figures of one they stand beside the others.
    """
    if isinstance(record, Entry):
        return {"policy": record.policy, "threshold": record.threshold}
    if isinstance(record, Row):
        columns = {f.name: getattr(record, f.name) for f in fields(record) if f.name != "entry"}
        return plain(record.entry) | plain(columns)
    if is_dataclass(record):
        return {f.name: plain(getattr(record, f.name)) for f in fields(record)}
    if isinstance(record, frozenset):
        return sorted(record)
    if isinstance(record, Mapping):
        return {key: plain(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [plain(value) for value in record]
    return None if isinstance(record, float) and not math.isfinite(record) else record


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write rows with a column for every figure that any of them has."""
    records = [flat(row) for row in rows]
    columns = dict.fromkeys(column for record in records for column in record)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns), restval="")
        writer.writeheader()
        writer.writerows(records)


def write_json(record: Mapping[str, Any], path: Path) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(plain(record), indent=2) + "\n")
