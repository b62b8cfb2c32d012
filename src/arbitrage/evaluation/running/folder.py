"""An evaluation's run folder: every trace is written as soon as it exists, and a run is read from its traces alone."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from arbitrage.core.errors import TraceError
from arbitrage.core.trace import Trace
from arbitrage.core.types import Problem
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.solutions import Solution, TracePosition, condense
from arbitrage.evaluation.running.sweep import Finished
from arbitrage.policies.table import METHODS
from arbitrage.runtime.store import MANIFEST, SESSIONS, GroupLog, read_manifest, read_records, run_key, write_json

TRACES: Final = "traces.jsonl"


class EvalFolder:
    """A run folder open for writing; :class:`arbitrage.runtime.store.GroupLog` describes its state after a kill."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        """Describe a folder; entering it reads and writes.

        Args:
            folder: Created if it is missing.
            settings: Everything that changes the results; compared with those of earlier sessions.
            environment: The machine and the software of this session.
        """
        self._folder, self._environment = folder, dict(environment)
        self._log = GroupLog(folder, settings, id_field="id", name=TRACES)
        self._session = 0

    def __enter__(self) -> Self:
        """Open the folder, find the finished solutions, and record this session.

        Raises:
            StoreError: If the folder cannot be written, belongs to another run, or is in use.
        """
        with ExitStack() as stack:
            stack.enter_context(self._log)
            sessions = read_sessions(self._folder)
            self._session = len(sessions)
            write_json(self._folder / SESSIONS, {"sessions": [*sessions, self._environment]})
            stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._log.__exit__(*exception)

    @property
    def num_done(self) -> int:
        """Finished solutions."""
        return len(self._log.done)

    def is_done(self, entry: Entry, problem: Problem, attempt: int) -> bool:
        """Whether a solution is finished."""
        return _id(entry, problem, attempt) in self._log.done

    def append(self, done: Finished) -> None:
        """Write a solution.

        Raises:
            StoreError: If the disk refuses it.
        """
        position = {
            "id": _id(done.entry, done.trace.problem, done.attempt),
            "is_last": True,
            "session": self._session,
            "began_s": done.began_s,
            "energy_j": done.energy_j,
        }
        self._log.append([position | trace_record(done.entry, done.trace, done.attempt)])


def trace_record(entry: Entry, trace: Trace, attempt: int = 0) -> dict[str, Any]:
    """A trace's JSON form with the entry and the attempt that it belongs to."""
    return {"entry": entry.policy, "threshold": entry.threshold, "attempt": attempt, **trace.to_json()}


def _id(entry: Entry, problem: Problem, attempt: int) -> str:
    return json.dumps([entry.policy, entry.threshold, problem.id, attempt])


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """The environments of a run's sessions; empty if the folder does not record them.

    Raises:
        TraceError: If the file is broken.
    """
    path = folder / SESSIONS
    if not path.exists():
        return []
    try:
        sessions: list[dict[str, Any]] = json.loads(path.read_text())["sessions"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise TraceError(
            f"{path}: no list of sessions: {error}", hint="remove the file; it holds notes on the machine only"
        ) from error
    return sessions


def read_traces(path: Path) -> Iterator[tuple[TracePosition, Trace]]:
    """Read traces with their positions from a run folder, or from a file of ``arbitrage eval --traces``.

    Raises:
        StoreError: If the file is missing, or a line is not a JSON object.
        TraceError: If a line is not a trace, or has a newer schema.
    """
    file = path / TRACES if path.is_dir() else path
    for line, record in read_records(file):
        try:
            trace = Trace.from_json(record)
        except TraceError as error:
            raise TraceError(f"{line}: {error}") from error
        yield (
            TracePosition(
                entry=Entry.recorded(record.get("entry", trace.policy), record.get("threshold")),
                attempt=record.get("attempt", 0),
                session=record.get("session", 0),
                began_s=record.get("began_s"),
                energy_j=record.get("energy_j"),
            ),
            trace,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """An evaluation, read from its traces."""

    name: str
    path: Path
    solutions: Mapping[Entry, Sequence[Solution]]
    problems: Mapping[str, Problem]
    """By id. In an unfinished run only problems that every entry has solved; other solutions are left out."""
    settings: Mapping[str, Any]
    """The manifest's settings; empty for a file of traces."""
    sessions: Sequence[Mapping[str, Any]]
    """The environment of each session."""

    @property
    def key(self) -> str | None:
        """Hash of the settings."""
        return run_key(self.settings) if self.settings else None

    @property
    def jobs(self) -> int:
        """Solutions in flight; 1 is the latency protocol."""
        return int(self.settings.get("jobs", 1))

    @property
    def protocol(self) -> str:
        """The protocol of its timings, in words."""
        if not self.settings:
            return "a file of traces does not record how it was timed"
        if self.jobs > 1:
            return f"throughput protocol: {self.jobs} solutions of one policy in flight, policies taking turns"
        return "latency protocol: one solution at a time, warmed up, policies in random order for each problem"


def read_run(path: Path, revise: Callable[[Trace], Trace] = lambda trace: trace) -> Run:
    """Read a run one trace at a time: its traces need not fit in memory.

    Args:
        path: A run folder, or a file of traces.
        revise: Applied to each trace; an estimate replaces the seconds in it.

    Raises:
        StoreError: If there are no traces.
        TraceError: If a record is not a trace or has a newer schema, or two problems share an id.
    """
    problems: dict[str, Problem] = {}
    solutions: dict[Entry, list[Solution]] = {}
    for position, trace in read_traces(path):
        first = problems.setdefault(trace.problem.id, trace.problem)
        if (first.messages, first.answer) != (trace.problem.messages, trace.problem.answer):
            raise TraceError(
                f"{path}: two problems have the id {first.id!r}: {first.question[:60]!r} and "
                f"{trace.problem.question[:60]!r}"
            )
        solutions.setdefault(position.entry, []).append(condense(revise(trace), position))
    if not solutions:
        raise TraceError(f"{str(path)!r} holds no traces", hint="name a folder of `arbitrage eval --out`")
    return _run(path, solutions, problems)


def _run(path: Path, solutions: Mapping[Entry, list[Solution]], problems: Mapping[str, Problem]) -> Run:
    """A run of the attempts that all entries have solved, in an order that kills and resumptions do not change."""
    attempts = [{(solution.problem, solution.attempt) for solution in of_entry} for of_entry in solutions.values()]
    common = set.intersection(*attempts)
    common_problems = {problem for problem, _ in common}
    if not common_problems:
        raise TraceError(
            f"{str(path)!r}: no problem is solved by all {len(solutions)} policies",
            hint="start the run again with the same options until more problems are solved",
        )
    order = {problem: number for number, problem in enumerate(problems)}
    settings = read_manifest(path) if path.is_dir() and (path / MANIFEST).exists() else {}
    return Run(
        name=path.name if path.is_dir() else path.stem,
        path=path,
        solutions={
            entry: sorted(
                (solution for solution in solutions[entry] if (solution.problem, solution.attempt) in common),
                key=lambda solution: (solution.attempt, order[solution.problem]),
            )
            for entry in _ordered(solutions, settings)
        },
        problems={name: problem for name, problem in problems.items() if name in common_problems},
        settings=settings,
        sessions=read_sessions(path) if path.is_dir() else [],
    )


def planned_entries(settings: Mapping[str, Any]) -> list[Entry]:
    """The entries that a run's manifest names."""
    return [Entry.recorded(policy, threshold) for policy, threshold, *_ in settings.get("policies", ())]


def _ordered(entries: Iterable[Entry], settings: Mapping[str, Any]) -> list[Entry]:
    """Entries in the manifest's order; without a manifest the baselines come first, then names and thresholds."""
    planned, rules = planned_entries(settings), list(METHODS)

    def position(entry: Entry) -> tuple[int, int, str, float]:
        by_plan = planned.index(entry) if entry in planned else len(planned)
        is_baseline = entry.is_baseline and not entry.method.solver
        by_rule = rules.index(entry.method.rule) if is_baseline else len(rules)
        return by_plan, by_rule, entry.policy, -1.0 if entry.threshold is None else entry.threshold

    return sorted(entries, key=position)


def check_same_problems(runs: Sequence[Run]) -> None:
    """Refuse to compare runs on different problems.

    Raises:
        TraceError: If the problems differ. The message names problems that only one run has, and problems that have
            the same id but another question or answer.
    """
    first = runs[0]
    for other in runs[1:]:
        if differences := _differences(first, other):
            raise TraceError(
                f"{first.name!r} and {other.name!r} are not on the same problems: {'; '.join(differences)}",
                hint="evaluate with the same --dataset and --limit",
            )


def _differences(first: Run, second: Run) -> list[str]:
    differences = []
    for one, other in ((first, second), (second, first)):
        if only := [problem for problem in one.problems if problem not in other.problems]:
            differences.append(f"{_some(only)} only in {one.name!r}")
    shared = [(first.problems[p], second.problems[p]) for p in first.problems if p in second.problems]
    for field, name in (("messages", "question"), ("answer", "answer")):
        if changed := [a.id for a, b in shared if getattr(a, field) != getattr(b, field)]:
            differences.append(f"{_some(changed)} with another {name}")
    return differences


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(map(repr, ids[:3])) + (", …" if len(ids) > 3 else "")
    return f"{len(ids)} ({shown})"
