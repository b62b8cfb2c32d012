"""Several runs on the same problems: what differs between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from arbitrage.core.errors import ConfigError
from arbitrage.evaluation.figures.intervals import Interval, percentiles, randomization_p
from arbitrage.evaluation.figures.paired import Paired
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.folder import Run, check_same_problems
from arbitrage.evaluation.running.solutions import Solution


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One policy and threshold in two runs."""

    entry: Entry
    first: str
    second: str
    accuracy: tuple[float, float]
    gap_interval: Interval
    """Of the second run's accuracy minus the first's."""
    p_value: float
    """Of "equally accurate", two-sided."""
    seconds: tuple[float | None, float | None]
    speedup: float | None
    """Seconds of the first over seconds of the second."""
    speedup_interval: Interval | None


def named(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by a name of their own: their folder's, with as much of the path before it as tells them apart.

    Raises:
        ConfigError: If a run is named twice.
    """
    paths = [run.path.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise ConfigError(f"{str(twice)!r} is given twice", hint="name different runs")
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join((*path.parts[-depth:-1], run.name)) for path, run in zip(paths, runs, strict=True)]
        if len(set(names)) == len(names):
            return dict(zip(names, runs, strict=True))
    return {str(path): run for path, run in zip(paths, runs, strict=True)}


def merged(runs: Mapping[str, Run]) -> dict[Entry, list[Solution]]:
    """The solutions of all runs, each policy with its run's name."""
    return {
        tagged(entry, name): [replace(solution, entry=tagged(entry, name)) for solution in solutions]
        for name, run in runs.items()
        for entry, solutions in run.solutions.items()
    }


def tagged(entry: Entry, run: str) -> Entry:
    """An entry that says of which run it is."""
    return replace(entry, run=run)


def differences(runs: Mapping[str, Run], *, seed: int = 0) -> list[Difference]:
    """Compare each run with the first one, wherever both have a policy at the same threshold.

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
    gaps = zip(paired.accuracies(after), paired.accuracies(before), strict=True)
    seconds = (paired.seconds(before), paired.seconds(after))
    ratios = [a / b for a, b in zip(paired.times(before), paired.times(after), strict=True) if a and b]
    return Difference(
        entry=entry,
        first=first,
        second=second,
        accuracy=(paired.accuracy(before), paired.accuracy(after)),
        gap_interval=percentiles([a - b for a, b in gaps if a is not None and b is not None]),
        p_value=randomization_p(paired.differences(after, before)),
        seconds=seconds,
        speedup=seconds[0] / seconds[1] if seconds[0] and seconds[1] else None,
        speedup_interval=percentiles(ratios) if ratios else None,
    )
