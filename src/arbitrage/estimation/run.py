"""A run with seconds estimated from the costs of another machine: its tokens and answers stay."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from arbitrage.bench.costs import PairCosts
from arbitrage.core.errors import ConfigError
from arbitrage.core.trace import Trace
from arbitrage.core.types import Source
from arbitrage.estimation.calls import Calls
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.folder import Run, read_run
from arbitrage.evaluation.running.solutions import Solution


@dataclass(frozen=True, slots=True, kw_only=True)
class EntrySeconds:
    """Seconds of one entry: estimated, and as the run measured them on its own machine."""

    entry: Entry
    estimated_s: float | None
    measured_s: float | None

    @property
    def ratio(self) -> float | None:
        """Estimated over measured seconds."""
        return self.estimated_s / self.measured_s if self.estimated_s is not None and self.measured_s else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimated:
    """A run of which the seconds are estimated."""

    run: Run
    """Its solutions have the estimated seconds."""
    costs: PairCosts
    beside: Sequence[EntrySeconds]
    """For each entry."""
    outside_ms: float | None
    """Milliseconds outside models for each step; None for those that the run measured."""

    @property
    def assumption(self) -> str:
        """How the seconds were computed, in one line."""
        outside = (
            "as this run measured it"
            if self.outside_ms is None
            else f"taken to be {self.outside_ms:g} ms for each step"
        )
        source = self.costs.environment.get("source") or self.costs.environment.get("processor") or "bench"
        return (
            f"an estimate from token counts and the costs of {self.costs.pair} ({source}): batch 1, no overlap, time "
            f"outside models {outside}; accuracy and token counts are those of the run"
        )


def estimated(path: Path, costs: PairCosts, *, outside_ms: float | None = None) -> Estimated:
    """Estimate the seconds of a run on the machine that the costs are of.

    Args:
        path: A run folder, or a file of traces.
        costs: Of each model that the run used.
        outside_ms: Milliseconds outside models for each step; None for those that the run measured.

    Raises:
        StoreError: If there are no traces.
        TraceError: If a record is not a trace or has a newer schema.
        ConfigError: If the costs lack a model, or the run had several solutions in flight and ``outside_ms`` is None.
    """
    if outside_ms is not None and not 0.0 <= outside_ms < float("inf"):
        raise ConfigError(f"outside-ms must be at least 0, got {outside_ms:g}")
    proposals = _Proposals()
    measured = read_run(path, proposals.seen_in)
    if measured.jobs > 1 and outside_ms is None:
        raise ConfigError(
            f"{str(path)!r} had {measured.jobs} solutions in flight: its time outside models includes waiting",
            hint="give --outside-ms, the milliseconds for each step",
        )
    calls = Calls(costs=costs, verifies_proposals=proposals.are_verified, outside_ms=outside_ms)
    run = read_run(path, calls.timed)
    beside = [
        EntrySeconds(entry=entry, estimated_s=_seconds(of_entry), measured_s=_seconds(measured.solutions[entry]))
        for entry, of_entry in run.solutions.items()
    ]
    return Estimated(run=run, costs=costs, beside=beside, outside_ms=outside_ms)


class _Proposals:
    """Whether the target of a run verified rejected draft steps: one that does takes a token of some of them."""

    def __init__(self) -> None:
        self.are_verified = False

    def seen_in(self, trace: Trace) -> Trace:
        """Look at a trace, and leave it as it is."""
        candidates = (candidate for step in trace.steps for candidate in step.candidates)
        self.are_verified |= any(one.cost.num_reused > 0 for one in candidates if one.source is Source.TARGET)
        return trace


def _seconds(solutions: Sequence[Solution]) -> float | None:
    done = [solution.seconds for solution in solutions if not solution.is_failed]
    return fmean(done) if done else None
