"""An evaluation's run folder: every trace as it is made, and a run read back from its traces alone."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from arbitrage.core.errors import TraceError
from arbitrage.core.trace import Trace
from arbitrage.core.types import Problem
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.solutions import Place, Solution, condense
from arbitrage.evaluation.running.sweep import Finished
from arbitrage.runtime.store import MANIFEST, SESSIONS, GroupLog, read_manifest, read_records, run_key, write_json

TRACES: Final = "traces.jsonl"


class EvalFolder:
    """A run folder that is being written; see :class:`arbitrage.runtime.store.GroupLog` for what a kill leaves."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        """Describe a folder; nothing is read or written before it is entered.

        Args:
            folder: Made if it is missing.
            settings: Everything that changes the results; compared with those of an earlier start.
            environment: What this session runs on.
        """
        self._folder, self._environment = folder, dict(environment)
        self._log = GroupLog(folder, settings, id_field="id", name=TRACES)
        self._session = 0

    def __enter__(self) -> Self:
        """Open the folder, find what is done, and note this session.

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
        """Solutions that are there."""
        return len(self._log.done)

    def is_done(self, entry: Entry, problem: Problem, attempt: int) -> bool:
        """Whether a solution is there."""
        return _id(entry, problem, attempt) in self._log.done

    def append(self, done: Finished) -> None:
        """Write a solution.

        Raises:
            StoreError: If the disk refuses it.
        """
        place = {
            "id": _id(done.entry, done.trace.problem, done.attempt),
            "is_last": True,
            "session": self._session,
            "began_s": done.began_s,
            "energy_j": done.energy_j,
        }
        self._log.append([place | trace_record(done.entry, done.trace, done.attempt)])


def trace_record(entry: Entry, trace: Trace, attempt: int = 0) -> dict[str, Any]:
    """A trace's JSON form with the entry and the attempt that it belongs to."""
    return {"entry": entry.policy, "threshold": entry.threshold, "attempt": attempt, **trace.to_json()}


def _id(entry: Entry, problem: Problem, attempt: int) -> str:
    return json.dumps([entry.policy, entry.threshold, problem.id, attempt])


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """The environments of a run's sessions; none where they were not noted.

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
            f"{path}: no list of sessions: {error}", hint="remove the file; only the notes are lost"
        ) from error
    return sessions


def read_traces(path: Path) -> Iterator[tuple[Place, Trace]]:
    """Read traces with their places from a run folder, or from a file of ``arbitrage eval --traces``.

    Raises:
        StoreError: If there are none, or a line is no record.
        TraceError: If a line is no trace, or of a newer schema.
    """
    file = path / TRACES if path.is_dir() else path
    for place, record in read_records(file):
        try:
            trace = Trace.from_json(record)
        except TraceError as error:
            raise TraceError(f"{place}: {error}") from error
        yield (
            Place(
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
    """An evaluation as its traces tell it."""

    name: str
    path: Path
    solutions: Mapping[Entry, Sequence[Solution]]
    problems: Mapping[str, Problem]
    """By id; for unfinished runs those that every entry has solved: what only some have solved is left out."""
    settings: Mapping[str, Any]
    """The manifest's; empty for a file of traces."""
    sessions: Sequence[Mapping[str, Any]]

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
        """How it was timed, in words."""
        if not self.settings:
            return "how it was timed is not recorded in a file of traces"
        if self.jobs > 1:
            return f"throughput protocol: {self.jobs} solutions of one policy in flight, policies taking turns"
        return "latency protocol: one solution at a time, warmed up, policies in random order for each problem"


def read_run(path: Path) -> Run:
    """Read a run, solution by solution: its traces need not fit in memory.

    Args:
        path: A run folder, or a file of traces.

    Raises:
        StoreError: If there are no traces.
        TraceError: If a record is no trace or of a newer schema, or two problems share an id.
    """
    problems: dict[str, Problem] = {}
    found: dict[Entry, list[Solution]] = {}
    for place, trace in read_traces(path):
        known = problems.setdefault(trace.problem.id, trace.problem)
        if (known.messages, known.answer) != (trace.problem.messages, trace.problem.answer):
            raise TraceError(
                f"{path}: two problems have the id {known.id!r}: {known.question[:60]!r} and "
                f"{trace.problem.question[:60]!r}"
            )
        found.setdefault(place.entry, []).append(condense(trace, place))
    if not found:
        raise TraceError(f"{str(path)!r} holds no traces", hint="name a folder of `arbitrage eval --out`")
    return _whole(path, found, problems)


def _whole(path: Path, found: Mapping[Entry, list[Solution]], problems: Mapping[str, Problem]) -> Run:
    """A run without what only some entries have solved, in an order that does not depend on kills."""
    solved = [{(solution.problem, solution.attempt) for solution in solutions} for solutions in found.values()]
    common = set.intersection(*solved)
    whole = {problem for problem, _ in common}
    if not whole:
        raise TraceError(f"{str(path)!r}: no problem is solved by all {len(found)} policies", hint="let the run go on")
    order = {problem: number for number, problem in enumerate(problems)}
    settings = read_manifest(path) if path.is_dir() and (path / MANIFEST).exists() else {}
    return Run(
        name=path.name if path.is_dir() else path.stem,
        path=path,
        solutions={
            entry: sorted(
                (solution for solution in found[entry] if (solution.problem, solution.attempt) in common),
                key=lambda solution: (solution.attempt, order[solution.problem]),
            )
            for entry in _ordered(found, settings)
        },
        problems={name: problem for name, problem in problems.items() if name in whole},
        settings=settings,
        sessions=read_sessions(path) if path.is_dir() else [],
    )


def told_entries(settings: Mapping[str, Any]) -> list[Entry]:
    """The policies and thresholds that a run's manifest names."""
    return [Entry.recorded(policy, threshold) for policy, threshold, *_ in settings.get("policies", ())]


def _ordered(entries: Iterable[Entry], settings: Mapping[str, Any]) -> list[Entry]:
    """Entries as the run was told them; those of a mere file with the ends and chance first, by threshold."""
    told = told_entries(settings)
    first = ("draft", "target", "random")

    def place(entry: Entry) -> tuple[int, int, str, float]:
        rank = first.index(entry.policy) if entry.policy in first else len(first)
        place = told.index(entry) if entry in told else len(told)
        return place, rank, entry.policy, -1.0 if entry.threshold is None else entry.threshold

    return sorted(entries, key=place)


def check_same_problems(runs: Sequence[Run]) -> None:
    """Refuse to compare runs on different problems.

    Raises:
        TraceError: If they differ; the message says which problems only one run has, and which are other problems under
            the same id.
    """
    first = runs[0]
    for other in runs[1:]:
        if told := _differences(first, other):
            raise TraceError(
                f"{first.name!r} and {other.name!r} are not on the same problems: {'; '.join(told)}",
                hint="evaluate with the same --dataset and --limit",
            )


def _differences(first: Run, second: Run) -> list[str]:
    told = []
    for one, other in ((first, second), (second, first)):
        if only := [problem for problem in one.problems if problem not in other.problems]:
            told.append(f"{_some(only)} only in {one.name!r}")
    shared = [(first.problems[p], second.problems[p]) for p in first.problems if p in second.problems]
    for field, name in (("messages", "question"), ("answer", "answer")):
        if changed := [a.id for a, b in shared if getattr(a, field) != getattr(b, field)]:
            told.append(f"{_some(changed)} with another {name}")
    return told


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(map(repr, ids[:3])) + (", …" if len(ids) > 3 else "")
    return f"{len(ids)} ({shown})"
