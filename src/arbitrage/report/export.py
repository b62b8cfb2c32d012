"""Traces and figures as flat records: ``pandas.DataFrame(arbitrage.trace_records("run"))``."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from arbitrage.core.types import Source
from arbitrage.evaluation.figures.metrics import MethodFigures, all_figures
from arbitrage.evaluation.figures.rates import Rates
from arbitrage.evaluation.figures.summary import Comparison, Evidence
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.folder import read_run, read_traces
from arbitrage.evaluation.running.solutions import Solution, StepFacts, condense


def trace_records(path: str | Path) -> Iterator[dict[str, Any]]:
    """One flat record for each solution, in the order in which they were finished.

    Args:
        path: A run folder of ``arbitrage eval --out``, or a file of ``--traces``.

    Raises:
        StoreError: If there are no traces.
        TraceError: If a record is not a trace, or has a newer schema.
    """
    for position, trace in read_traces(Path(path)):
        yield _solution_record(condense(trace, position))


def step_records(path: str | Path) -> Iterator[dict[str, Any]]:
    """One flat record for each step: author, text and the rejected text, scores, tokens, seconds.

    Args:
        path: A run folder, or a file of traces.

    Raises:
        StoreError: If there are no traces.
        TraceError: If a record is not a trace, or has a newer schema.
    """
    for position, trace in read_traces(Path(path)):
        for index, step in enumerate(trace.steps):
            facts = StepFacts.of(step)
            texts = {candidate.source: candidate.text for candidate in step.candidates}
            yield {
                "policy": position.entry.policy,
                "threshold": position.entry.threshold,
                "problem": trace.problem.id,
                "attempt": position.attempt,
                "step": index,
                "source": str(step.source),
                "text": step.text,
                "draft_text": texts.get(Source.DRAFT),
                "target_text": texts.get(Source.TARGET),
                "num_tokens": facts.num_tokens,
                "num_taken": facts.num_taken,
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
    """One flat record for each policy and threshold, with all columns of ``summary.csv``.

    Args:
        path: A run folder, or a file of traces.
        rates: To estimate operations and cost with.

    Raises:
        StoreError: If there are no traces.
        TraceError: If a record is not a trace, or has a newer schema.
    """
    return [flat(one) for one in all_figures(read_run(Path(path)).solutions, rates)]


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
        "num_repaired": sum(step.num_taken > 0 for step in escalations),
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


def flat(record: Any, prefix: str = "") -> dict[str, Any]:
    """A dataclass as one level of columns, such as ``role_s.draft.p95``; an entry becomes two columns."""
    pairs = _fields(record) if is_dataclass(record) else list(record.items())
    columns: dict[str, Any] = {}
    for name, value in pairs:
        if isinstance(value, Entry):
            columns |= {f"{prefix}policy": value.policy, f"{prefix}threshold": value.threshold}
        else:
            is_nested = is_dataclass(value) or isinstance(value, Mapping)
            columns |= flat(value, f"{prefix}{name}.") if is_nested else {f"{prefix}{name}": value}
    return columns


def evidence_record(evidence: Evidence) -> dict[str, Any]:
    """All figures of a run as JSON can hold them: ``rows`` for the entries, ``summary`` for comparisons."""
    comparisons = [one for one in evidence.summary.comparisons.values() if not one.is_empty]
    return {
        "rows": [plain(one) for one in evidence.figures],
        "summary": {"margin": evidence.summary.margin, "comparisons": [plain(one) for one in comparisons]},
    }


def plain(record: Any) -> Any:
    """A record as JSON can hold it: a dataclass becomes an object; an infinite number and NaN become null.

    An entry becomes its policy and threshold; in the figures of an entry these two are columns beside the others. The
    method and the reference of a comparison, which have no threshold, become their names.
    """
    if isinstance(record, Entry):
        return {"policy": record.policy, "threshold": record.threshold}
    if isinstance(record, MethodFigures):
        return plain(record.entry) | {name: plain(value) for name, value in _fields(record) if name != "entry"}
    if isinstance(record, Comparison):
        names = {"method": record.method.policy, "reference": record.reference.policy}
        return names | {name: plain(value) for name, value in _fields(record) if name not in names}
    if is_dataclass(record):
        return {name: plain(value) for name, value in _fields(record)}
    if isinstance(record, Mapping):
        return {key: plain(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [plain(value) for value in record]
    return None if isinstance(record, float) and not math.isfinite(record) else record


def _fields(record: Any) -> list[tuple[str, Any]]:
    return [(f.name, getattr(record, f.name)) for f in fields(record)]


def write_csv(figures: Sequence[MethodFigures], path: Path) -> None:
    """Write one row for each entry, with a column for every figure that any of them has."""
    records = [flat(one) for one in figures]
    columns = dict.fromkeys(column for record in records for column in record)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns), restval="")
        writer.writeheader()
        writer.writerows(records)
