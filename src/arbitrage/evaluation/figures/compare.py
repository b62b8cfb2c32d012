"""Comparisons of several runs on the same problems."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from arbitrage.core.errors import ConfigError
from arbitrage.evaluation.figures.intervals import Estimate
from arbitrage.evaluation.figures.paired import Paired
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.folder import Run, check_same_problems
from arbitrage.evaluation.running.solutions import Solution


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One entry in two runs."""

    entry: Entry
    first: str
    """Name of the first run."""
    second: str
    """Name of the second run."""
    accuracy: tuple[float, float]
    gap: Estimate
    """Accuracy in the second run minus accuracy in the first."""
    p_value: float
    """Of "equally accurate", two-sided."""
    seconds: tuple[float | None, float | None]
    speedup: Estimate | None
    """Seconds in the first run over seconds in the second."""


def named(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by a unique name: their folder's, preceded by as much of the path as distinguishes them.

    Raises:
        ConfigError: If a run is given twice.
    """
    paths = [run.path.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        repeated = next(path for path in paths if paths.count(path) > 1)
        raise ConfigError(f"{str(repeated)!r} is given twice", hint="name different runs")
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join((*path.parts[-depth:-1], run.name)) for path, run in zip(paths, runs, strict=True)]
        if len(set(names)) == len(names):
            return dict(zip(names, runs, strict=True))
    return {str(path): run for path, run in zip(paths, runs, strict=True)}


def merged(runs: Mapping[str, Run]) -> dict[Entry, list[Solution]]:
    """The solutions of all runs, by entries that name their run."""
    return {
        tagged(entry, name): [replace(solution, entry=tagged(entry, name)) for solution in solutions]
        for name, run in runs.items()
        for entry, solutions in run.solutions.items()
    }


def tagged(entry: Entry, run: str) -> Entry:
    """The entry with the name of its run."""
    return replace(entry, run=run)


def differences(runs: Mapping[str, Run], *, seed: int = 0) -> list[Difference]:
    """Compare each run with the first one, for every entry that both have.

    Args:
        runs: By name.
        seed: Seed of the bootstrap.

    Raises:
        TraceError: If the runs are not on the same problems.
    """
    check_same_problems(list(runs.values()))
    paired = Paired(merged(runs), seed=seed)
    first, *others = runs
    if not paired.problems:
        return []
    return [
        _difference(paired, entry, first, other)
        for other in others
        for entry in runs[first].solutions
        if entry in runs[other].solutions
    ]


def _difference(paired: Paired, entry: Entry, first: str, second: str) -> Difference:
    before, after = tagged(entry, first), tagged(entry, second)
    return Difference(
        entry=entry,
        first=first,
        second=second,
        accuracy=(paired.accuracy(before), paired.accuracy(after)),
        gap=paired.gap(after, before),
        p_value=paired.p_value(after, before),
        seconds=(paired.seconds(before), paired.seconds(after)),
        speedup=paired.speedup(after, before),
    )
