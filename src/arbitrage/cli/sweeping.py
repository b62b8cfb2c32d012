"""An evaluation at work: progress with the time left and the accuracy so far, traces written as they come."""

import asyncio
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from arbitrage.cli.show import counting
from arbitrage.core.errors import ConfigError
from arbitrage.core.turn import Setting
from arbitrage.core.types import Problem
from arbitrage.evaluation.running.entry import TARGET
from arbitrage.evaluation.running.folder import TRACES, EvalFolder, trace_record
from arbitrage.evaluation.running.planning import plan_of
from arbitrage.evaluation.running.sweep import Finished, Plan, Results, sweep
from arbitrage.grading import is_correct
from arbitrage.pairs.loaded import LoadedPair
from arbitrage.policies.spec import MethodSpec
from arbitrage.runtime.environment import EnergyMeter, environment


def run_comparison(
    pair: LoadedPair,
    problems: Sequence[Problem],
    methods: Sequence[MethodSpec],
    setting: Setting,
    traces: Path | None = None,
) -> Results:
    """Run a comparison, one solution at a time, with a progress bar; see :func:`run_in_memory`.

    Raises:
        ConfigError: If a policy is unknown, or the trace file cannot be written.
    """
    return run_in_memory(plan_of(pair, problems, methods, setting), traces)


def run_in_memory(plan: Plan, traces: Path | None = None) -> Results:
    """Run a comparison and keep its traces in memory.

    Args:
        plan: What to solve.
        traces: A file to write them to as well.

    Raises:
        ConfigError: If the file cannot be written.
    """
    results: Results = {entry: [] for entry in plan.methods}
    with TraceFile(traces) as file:

        def keep(done: Finished) -> None:
            results[done.entry].append(done.trace)
            file.write(done)

        _sweep(plan, keep)
    return results


def run_in_folder(plan: Plan, out: Path, settings: dict[str, Any], traces: Path | None = None) -> None:
    """Run a comparison, or what is left of it, and write its traces into a run folder.

    Args:
        plan: What to solve.
        out: The folder.
        settings: Everything that changes the results.
        traces: A file for a copy of all traces, those of earlier starts included.

    Raises:
        StoreError: If the folder cannot be written, is in use, or belongs to another run.
        ConfigError: If the file cannot be written.
    """
    with TraceFile(traces, mode="a"):
        pass  # It can be written: to be known before hours of work.
    noted = environment(sys.argv[1:]) | {"jobs": plan.jobs, "seed": plan.setting.seed}
    with EvalFolder(out, settings, noted) as folder:
        if folder.num_done < plan.num_solutions:
            _sweep(plan, folder.append, folder)
    if traces and not traces.samefile(out / TRACES):
        shutil.copyfile(out / TRACES, traces)


def _sweep(plan: Plan, keep: Callable[[Finished], None], folder: EvalFolder | None = None) -> None:
    live, meter = LiveAccuracy(), EnergyMeter()
    with counting("solving", plan.num_solutions, folder.num_done if folder else 0) as one_more:

        def seen(done: Finished) -> None:
            keep(done)
            # Grading takes time from what is in flight: under load it waits for the end.
            one_more(live.seen(done) if plan.jobs == 1 else "")

        is_done = folder.is_done if folder else lambda entry, problem, attempt: False
        asyncio.run(sweep(plan, seen, is_done=is_done, energy=meter.read))


class LiveAccuracy:
    """How many solutions are right so far; those of a resumed run's earlier sessions are not counted."""

    def __init__(self) -> None:
        """Begin to count."""
        self._right: dict[bool, list[bool]] = {True: [], False: []}
        """By whether target-only made it."""

    def seen(self, done: Finished) -> str:
        """Count a solution, and say how it stands."""
        if (verdict := is_correct(done.trace)) is not None:
            self._right[done.entry == TARGET].append(verdict)
        shares = [
            f"{name} {sum(found) / len(found):.0%}"
            for name, found in (("target", self._right[True]), ("others", self._right[False]))
            if found
        ]
        return f"solving · right: {', '.join(shares)}" if shares else "solving"


class TraceFile:
    """Writes traces as they come, or nothing without a path."""

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

    def __enter__(self) -> "TraceFile":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file:
            self._file.close()

    def write(self, done: Finished) -> None:
        """Write one trace as a line."""
        if self._file:
            self._file.write(json.dumps(trace_record(done.entry, done.trace, done.attempt)) + "\n")
            self._file.flush()
