"""Runs that collect rows, as ``arbitrage collect`` starts them.

Each run has settings: a dictionary of all that changes its rows. The folder's manifest holds them, and a run continues
only in a folder with the same settings. So keys and values of the settings are part of the file format.
"""

import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from arbitrage.core.turn import Setting
from arbitrage.core.types import Limits, Problem, Sampling
from arbitrage.pairs.blocking import run
from arbitrage.pairs.loaded import LoadedPair, load
from arbitrage.policies.spec import MethodSpec
from arbitrage.runtime.store import GroupLog
from arbitrage.training.collect import Collecting, RowsReport, collect
from arbitrage.training.rows import SCHEMA

Progress: TypeAlias = Callable[[int, int], AbstractContextManager[Callable[[], None]]]
"""Shows the progress of a run. It gets the number of problems and how many of them are done; it yields a function to
call after each further problem."""
ID_FIELD: Final = "problem_id"
"""The field that all rows of a problem share."""
DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectOptions:
    """Options of a collection that change its rows.

    Raises:
        ConfigError: If the name of the behaviour is unknown.
    """

    dataset: str
    """The name of the dataset."""
    fields: str = ""
    """Columns of the dataset, if they are not the default ones."""
    stratify: str = ""
    """The field whose values have equal shares; empty for none."""
    num_target_samples: int = 4
    temperature: float = 0.7
    """The temperature of the target's samples."""
    behaviour: str = "oracle"
    """The name of the policy that decides how a solution continues."""
    scores: bool = True
    """Whether the pair's PRM scores the steps; without it rows wait for rollouts."""
    threshold: float | None = None
    """The behaviour's threshold; None for its default."""
    keep_draft: float = 0.0
    """See :class:`arbitrage.training.collect.Collecting`."""
    keeps_hidden_state: bool = False
    """Whether rows hold the draft's last hidden state."""
    limits: Limits = DEFAULT_LIMITS
    seed: int = 0

    def __post_init__(self) -> None:
        MethodSpec.parse(self.behaviour)

    @property
    def behaviour_spec(self) -> MethodSpec:
        """The behaviour as a method."""
        return MethodSpec.parse(self.behaviour)

    def policy(self, loaded: LoadedPair) -> Collecting:
        """Build the policy that writes the rows.

        Raises:
            ConfigError: If a number is out of range, or the pair lacks a PRM or what the behaviour needs.
        """
        return Collecting(
            prm=loaded.models.required_prm() if self.scores else None,
            behaviour=loaded.policy(self.behaviour_spec, self.threshold),
            num_target_samples=self.num_target_samples,
            target_sampling=Sampling(temperature=self.temperature),
            keep_draft=self.keep_draft,
        )

    def settings(self, loaded: LoadedPair) -> dict[str, Any]:
        """The settings that identify the rows."""
        spec = self.behaviour_spec
        routers = (spec.router_role,) if spec.is_router else ()
        scorers = ("prm",) if self.scores else ()
        return {
            "row_schema": SCHEMA,
            "models": loaded.identity(("draft", "target", *scorers, *routers)),
            "dataset": self.dataset,
            "stratify": self.stratify,
            "samples": self.num_target_samples,
            "temperature": self.temperature,
            "behaviour": self.behaviour,
            "threshold": loaded.resolved(spec, self.threshold).threshold,
            "keep_draft": self.keep_draft,
            "hidden_states": self.keeps_hidden_state,
            "max_tokens": self.limits.max_tokens,
            "seed": self.seed,
            # Only values other than the default have a key: rows that are older than the option can be continued.
            **({"fields": self.fields} if self.fields else {}),
            **({"max_steps": self.limits.max_steps} if self.limits.max_steps != DEFAULT_LIMITS.max_steps else {}),
        }


def run_collection(
    problems: Sequence[Problem],
    out: Path,
    options: CollectOptions,
    *,
    pair: str | Path,
    max_in_flight: int,
    progress: Progress,
) -> RowsReport:
    """Collect rows of problems, or of those that a stopped run left; blocks until it is done.

    Args:
        problems: The problems to solve.
        out: The folder for the rows.
        options: The options that change the rows.
        pair: The pair's name or file.
        max_in_flight: The number of problems in progress at a time.
        progress: Shows the progress.

    Raises:
        ConfigError: If an option is out of range, or the pair cannot be used.
        CheckpointError: If a model is missing or broken.
        StoreError: If ``out`` belongs to another run, or cannot be written.
    """
    loaded = load(
        pair,
        policies=[options.behaviour_spec],
        with_prm=options.scores,
        keeps_hidden_state=options.keeps_hidden_state,
    )
    policy, settings = options.policy(loaded), options.settings(loaded)
    setting = Setting(limits=options.limits, seed=options.seed)

    def work(log: GroupLog, advance: Callable[[], None]) -> Coroutine[Any, Any, RowsReport]:
        return collect(
            problems, loaded.pair, policy, setting, log, max_in_flight=max_in_flight, on_trace=lambda trace: advance()
        )

    return write_rows(out, settings, {problem.id for problem in problems}, work, progress)


def write_rows(
    out: Path,
    settings: Mapping[str, Any],
    problems: Collection[str],
    work: Callable[[GroupLog, Callable[[], None]], Coroutine[Any, Any, RowsReport]],
    progress: Progress,
) -> RowsReport:
    """Carry out work that writes rows into a folder, or the part of it that a stopped run left; blocks until then.

    Args:
        out: The folder for the rows.
        settings: Everything that changes the rows.
        problems: Ids of the problems whose rows are written.
        work: Writes rows into an open log; it calls the function after each problem.
        progress: Shows the progress.

    Raises:
        StoreError: If ``out`` belongs to another run, or cannot be written.
    """
    started = time.monotonic()
    with (
        GroupLog(out, settings, id_field=ID_FIELD) as log,
        progress(len(problems), len(log.done.intersection(problems))) as advance,
    ):
        report = run(work(log, advance))
        report.total_rows = log.num_records
    report.wall_s = time.monotonic() - started
    return report
