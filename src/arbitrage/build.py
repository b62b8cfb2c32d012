"""From names to objects: the one place that knows every class."""

import asyncio
import warnings
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from arbitrage.config import ModelConfig, PairConfig, read_pair
from arbitrage.core.errors import ConfigError
from arbitrage.core.ports import Policy, Scorer
from arbitrage.core.solve import solve
from arbitrage.core.trace import Trace
from arbitrage.core.turn import Pair, Setting
from arbitrage.core.types import Problem, Source
from arbitrage.evaluation.datasets import read_jsonl
from arbitrage.evaluation.run import Entry
from arbitrage.policies import RSD, Audited, DraftOnly, Oracle, RandomEscalation, RouterPolicy, TargetOnly
from arbitrage.tiny import WEIGHTS
from arbitrage.tiny import dataset as tiny_dataset

TINY: Final = "tiny"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPair:
    """A draft and a target ready to solve, with the scorers that some policies need."""

    name: str
    pair: Pair
    prm: Scorer | None = None
    router: Scorer | None = None
    auditor: Scorer | None = None
    """The PRM under another name, to measure what a policy's escalations gain."""
    router_threshold: float = 0.5
    """Used where none is given; from the router's checkpoint."""

    def policy(self, name: str, threshold: float | None = None) -> Policy:
        """Build a policy on this pair.

        Args:
            name: A key of :data:`POLICIES`.
            threshold: Its threshold in [0, 1]; None for the default. Ignored by ``draft`` and ``target``.

        Raises:
            ConfigError: If the name is unknown, the threshold out of range, or the pair lacks the scorer.
        """
        if name not in POLICIES:
            raise ConfigError(f"unknown policy {name!r}", hint=f"choose from {', '.join(POLICIES)}")
        return POLICIES[name](self, threshold)

    def audited(self, policy: Policy) -> Policy:
        """The policy with every candidate scored by the auditor, where there is one; its latency is the same."""
        return Audited(policy, self.auditor) if self.auditor else policy

    def solve(
        self,
        question: str,
        *,
        policy: str | Policy = "router",
        threshold: float | None = None,
        setting: Setting | None = None,
        watch: Callable[[Trace], None] = lambda trace: None,
    ) -> Trace:
        """Solve one question; blocks until it is done.

        Args:
            question: The problem in words.
            policy: A key of :data:`POLICIES`, or a policy object.
            threshold: See :meth:`policy`; not used with an object.
            setting: Limits, sampling and seed; greedy by default.
            watch: Called with the trace so far after every step.

        Raises:
            ProblemError: If the question is empty.
            ConfigError: See :meth:`policy`.
        """
        problem = Problem(id="question", question=question)
        rule = self.policy(policy, threshold) if isinstance(policy, str) else policy
        return _run(solve(problem, self.pair, rule, setting, watch=watch))

    def needs(self, scorer: Scorer | None, role: str) -> Scorer:
        """The scorer of a role.

        Raises:
            ConfigError: If the pair has none.
        """
        if scorer is None:
            raise ConfigError(
                f"the pair {self.name!r} has no {role}", hint=f"add a table [{role}] to its configuration"
            )
        return scorer


POLICIES: Final[dict[str, Callable[[LoadedPair, float | None], Policy]]] = {
    "draft": lambda pair, threshold: DraftOnly(),
    "target": lambda pair, threshold: TargetOnly(),
    "random": lambda pair, threshold: RandomEscalation(_or(threshold, 0.5)),
    "rsd": lambda pair, threshold: RSD(pair.needs(pair.prm, "prm"), _or(threshold, 0.7)),
    "oracle": lambda pair, threshold: Oracle(pair.needs(pair.prm, "prm"), _or(threshold, 0.0)),
    "router": lambda pair, threshold: RouterPolicy(
        pair.needs(pair.router, "router"), _or(threshold, pair.router_threshold)
    ),
}
FIXED: Final = ("draft", "target")
"""Policies without a threshold."""


def _or(threshold: float | None, default: float) -> float:
    return default if threshold is None else threshold


def _run(work: Coroutine[Any, Any, Trace]) -> Trace:
    """Run to completion, also inside a notebook, whose thread has a running loop already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(asyncio.run, work).result()


def load(name: str | Path) -> LoadedPair:
    """Load a pair: ``tiny`` for the shipped one, or a TOML file for models of your own.

    Raises:
        ConfigError: If the file cannot be used.
        CheckpointError: If a model is missing or broken.
        MissingExtra: If torch and transformers are not installed.
    """
    return _assemble(_tiny_config() if str(name) == TINY else read_pair(Path(name)))


def _tiny_config() -> PairConfig:
    models = {
        role: ModelConfig(path=str(WEIGHTS / role), name=f"tiny-{role}")
        for role in ("draft", "target", "prm", "router")
    }
    return PairConfig(name=TINY, **models)


def _assemble(config: PairConfig) -> LoadedPair:
    from arbitrage.engines.hf import HFEngine  # First: it says which extra is missing.
    from arbitrage.engines.prompt import ChatPrompt, PlainPrompt
    from arbitrage.scorers.hf import HFScorer

    def engine(model: ModelConfig) -> HFEngine:
        prompt = PlainPrompt(model.prompt) if model.prompt else ChatPrompt(model.system)
        return HFEngine.load(model.path, name=model.name, device=model.device, dtype=model.dtype, prompt=prompt)

    def scorer(model: ModelConfig | None, kind: str) -> HFScorer | None:
        if model is None:
            return None
        prompt = PlainPrompt(model.prompt) if model.prompt else ChatPrompt(model.system)
        return HFScorer.load(model.path, name=kind, kind=kind, device=model.device, dtype=model.dtype, prompt=prompt)

    pair = Pair(draft=engine(config.draft), target=engine(config.target))
    prm, router = scorer(config.prm, "prm"), scorer(config.router, "router")
    if router:
        _warn_of_another_pair(router.input_format.trained_for, pair)
    threshold = router.input_format.thresholds.get("default", 0.5) if router else 0.5
    return LoadedPair(
        name=config.name,
        pair=pair,
        prm=prm,
        router=router,
        auditor=prm.renamed("audit") if prm else None,
        router_threshold=threshold,
    )


def _warn_of_another_pair(trained_for: Mapping[str, str], pair: Pair) -> None:
    for source, name in trained_for.items():
        if name != (actual := pair.engine(Source(source)).name):
            warnings.warn(f"the router was trained for the {source} {name!r}, not {actual!r}", stacklevel=3)


def entries(policies: Sequence[str], thresholds: Sequence[float]) -> list[Entry]:
    """All rows of a comparison: each policy at each threshold, the fixed ones once."""
    return [
        Entry(policy, threshold)
        for policy in policies
        for threshold in ([None] if policy in FIXED or not thresholds else thresholds)
    ]


def problems(dataset: str, limit: int | None = None) -> list[Problem]:
    """Problems by name: ``tiny:SPLIT`` for the tiny world, else a JSONL file.

    Raises:
        ConfigError: If there is no such split or file, or it holds no problems.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, got {limit}")
    kind, _, split = dataset.partition(":")
    if kind == TINY:
        return tiny_dataset.problems(split or "test", limit or tiny_dataset.DEFAULT_COUNT)
    return read_jsonl(Path(dataset), limit)
