"""Carrying out a plan, in memory or in a run folder, with progress reported to the caller."""

import asyncio
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from arbitrage.core.errors import ConfigError
from arbitrage.core.policy import Solver
from arbitrage.core.ports import Scorer
from arbitrage.evaluation.running.entry import TARGET, Entry
from arbitrage.evaluation.running.folder import TRACES, EvalFolder, Run, read_run, trace_record
from arbitrage.evaluation.running.plan import Plan
from arbitrage.evaluation.running.sweep import Finished, Results, sweep
from arbitrage.grading import is_correct
from arbitrage.runtime.environment import EnergyMeter, environment
from arbitrage.runtime.store import writing

Progress = Callable[[int, int], AbstractContextManager[Callable[[str], None]]]
"""From the number of solutions, and of those that an earlier session finished, to a context. It yields a function to
call after each solution, with a text that describes the state, or an empty one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """A plan with the models that carry it out."""

    plan: Plan
    methods: Mapping[Entry, Solver]
    """The plan's entries, built."""
    progress: Progress
    auditor: Scorer | None = None
    """Scores every candidate of a finished solution; None for no audit."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """How forward passes of models in this process run, by role; recorded with the session."""

    def in_memory(self, traces: Path | None = None) -> Results:
        """Run the plan and keep its traces in memory.

        Args:
            traces: A file to write them to as well.

        Raises:
            ConfigError: If the file cannot be written.
        """
        results: Results = {entry: [] for entry in self.plan.entries}
        with TraceFile(traces) as file:

            def keep(done: Finished) -> None:
                results[done.entry].append(done.trace)
                file.write(done)

            self._sweep(keep)
        return results

    def in_folder(
        self, out: Path, settings: Mapping[str, Any], *, arguments: Sequence[str] = (), traces: Path | None = None
    ) -> Run:
        """Run the plan, or the part of it that is not finished yet, and write its traces into a run folder.

        Args:
            out: The folder.
            settings: Everything that changes the results.
            arguments: The command line, recorded to repeat the run.
            traces: A file for a copy of all traces, those of earlier sessions included.

        Returns:
            The run, read from the folder.

        Raises:
            StoreError: If the folder cannot be written, is in use, or belongs to another run.
            ConfigError: If the file cannot be written.
        """
        with TraceFile(traces, mode="a"):
            pass  # Fails now, before hours of work, if the file cannot be written.
        session = environment(arguments) | {"jobs": self.plan.jobs, "seed": self.plan.setting.seed}
        if self.paths:
            session["forward_passes"] = dict(self.paths)
        with EvalFolder(out, settings, session) as folder:
            if folder.num_done < self.plan.num_solutions:
                self._sweep(folder.append, folder)
        if traces and not traces.samefile(out / TRACES):
            shutil.copyfile(out / TRACES, traces)
        return read_run(out)

    def _sweep(self, keep: Callable[[Finished], None], folder: EvalFolder | None = None) -> None:
        live, meter = LiveAccuracy(), EnergyMeter()
        with self.progress(self.plan.num_solutions, folder.num_done if folder else 0) as advance:

            def on_finished(done: Finished) -> None:
                keep(done)
                # Grading competes with solutions in flight for the processor: under load it is done at the end.
                advance(live.count(done) if self.plan.jobs == 1 else "")

            work = sweep(
                self.plan,
                self.methods,
                on_finished,
                auditor=self.auditor,
                is_done=folder.is_done if folder else lambda entry, problem, attempt: False,
                energy=meter.read,
            )
            asyncio.run(work)


class LiveAccuracy:
    """Accuracy of the solutions finished in this session, of target-only and of all other entries."""

    def __init__(self) -> None:
        """Begin to count."""
        self._verdicts: dict[str, list[bool]] = {"target": [], "others": []}

    def count(self, done: Finished) -> str:
        """Count a solution.

        Returns:
            The state of the run in words, with both accuracies as soon as a solution of theirs is graded.
        """
        if (verdict := is_correct(done.trace)) is not None:
            self._verdicts["target" if done.entry == TARGET else "others"].append(verdict)
        shares = [
            f"{name} {sum(verdicts) / len(verdicts):.0%}" for name, verdicts in self._verdicts.items() if verdicts
        ]
        return f"solving · right: {', '.join(shares)}" if shares else "solving"


class TraceFile:
    """Writes traces one by one; without a path it writes nothing."""

    def __init__(self, path: Path | None, mode: str = "w") -> None:
        """Open the file.

        Raises:
            ConfigError: If it cannot be written.
        """
        self._file = None if path is None else self._open(path, mode)

    @staticmethod
    def _open(path: Path, mode: str) -> IO[str]:
        try:
            return path.open(mode)
        except OSError as error:
            raise ConfigError(f"cannot write traces to {str(path)!r}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file:
            self._file.close()

    def write(self, done: Finished) -> None:
        """Write one trace as a line.

        Raises:
            StoreError: If the disk refuses it.
        """
        if self._file:
            with writing(Path(self._file.name)):
                self._file.write(json.dumps(trace_record(done.entry, done.trace, done.attempt)) + "\n")
                self._file.flush()
