"""Measure all models of a pair, in turns, so that a change of the machine's speed affects them alike."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from arbitrage.bench.advice import NO_SCORER, Advice
from arbitrage.bench.costs import PairCosts, Settings
from arbitrage.bench.hardware import limit_of, runtime_of
from arbitrage.bench.scoring import ScorerRun
from arbitrage.bench.writers import Clock, WriterRun
from arbitrage.core.errors import ArbitrageError
from arbitrage.core.ports import Engine, Scorer
from arbitrage.core.turn import Pair
from arbitrage.core.types import Source
from arbitrage.pairs.config import PairConfig
from arbitrage.pairs.loading import load_engine, load_prm, load_router_model, reads
from arbitrage.pairs.roles import Role
from arbitrage.policies.spec import MethodSpec
from arbitrage.runtime.environment import machine

Progress = Callable[[int], AbstractContextManager[Callable[[str], None]]]
"""Shows the progress: it gets the number of items, and yields a function to call with each one's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModels:
    """The models of a pair without methods."""

    config: PairConfig
    pair: Pair
    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    """PRM and routers by role."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Scorers that could not be loaded, by role, each with the reason."""


def load_models(config: PairConfig) -> LoadedModels:
    """Load every model of a pair. A scorer that is missing is skipped: it may still have to be trained.

    Raises:
        ConfigError: If an option of draft or target cannot be used.
        CheckpointError: If draft or target is missing or broken.
        EngineError: If a server of theirs does not answer.
    """
    scorers: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for role, model in config.models.items():
        if not (kind := Role.parse(role)).is_scorer:
            continue
        try:
            scorers[role] = load_prm(model, role) if kind.kind == "prm" else load_router_model(model, role)
        except ArbitrageError as error:
            skipped[role] = str(error)
    keeps_hidden_state = any(reads(scorer, "state") for scorer in scorers.values())
    draft = load_engine(config.draft, keeps_hidden_state=keeps_hidden_state)
    pair = Pair(draft=draft, target=load_engine(config.target))
    return LoadedModels(config=config, pair=pair, scorers=scorers, skipped=skipped)


async def measure(
    loaded: LoadedModels,
    settings: Settings,
    *,
    progress: Progress,
    clock: Clock = time.perf_counter,
    rng: random.Random | None = None,
) -> PairCosts:
    """Measure what each model costs.

    Args:
        loaded: The models.
        settings: How much is measured.
        progress: Shows the progress.
        clock: Returns seconds; tests replace it.
        rng: Draws tokens; None for different ones at each call, which no server can have cached.

    Raises:
        ContextOverflow: If context and step do not fit draft or target.
        EngineError: If draft or target fails.
    """
    rng = rng or random.Random()
    pair, config = loaded.pair, loaded.config
    engines: dict[Source, Engine] = {source: pair.engine(source) for source in Source}
    writers = {
        source: WriterRun(
            engine, source, settings, clock=clock, rng=rng, runtime=runtime_of(config.models[source], engine)
        )
        for source, engine in engines.items()
    }
    scorers = {
        role: ScorerRun(
            role, scorer, pair, settings, clock=clock, rng=rng, runtime=runtime_of(config.models[role], scorer)
        )
        for role, scorer in loaded.scorers.items()
    }
    failures = await _run_all([*writers.values(), *scorers.values()], settings.repeats, progress)
    scorers = {role: run for role, run in scorers.items() if role not in failures}
    figures = {source: writers[source].costs(limit_of(config.models[source], engines[source])) for source in Source}
    return PairCosts(
        pair=config.name,
        settings=settings,
        environment=machine(),
        draft=figures[Source.DRAFT],
        target=figures[Source.TARGET],
        scorers={role: run.costs() for role, run in scorers.items()},
        skipped={**loaded.skipped, **failures},
    )


async def _run_all(runs: Sequence[WriterRun | ScorerRun], num_rounds: int, progress: Progress) -> dict[str, str]:
    """One untimed round of all models, then the timed ones; returns the errors of scorers that could not start."""
    failures: dict[str, str] = {}
    try:
        with progress(len(runs) * (num_rounds + 2)) as advance:
            for run in runs:
                advance(f"starting {run.name}")
                try:
                    await run.start()
                except ArbitrageError as error:
                    if isinstance(run, WriterRun):
                        raise
                    failures[run.name] = str(error)
            for number in range(num_rounds + 1):
                for run in runs:
                    if run.name not in failures:
                        advance(f"measuring {run.name}")
                        await run.round(is_timed=number > 0)
    finally:
        for run in runs:
            await run.close()
    return failures


def default_rule(config: PairConfig, advice: Advice) -> str:
    """The rule of the pair's default method where its costs were measured, else the rule that costs nothing."""
    spec = MethodSpec.parse(config.default_method)
    name = spec.router_role or spec.rule_name
    return name if name in advice.scoring else NO_SCORER
