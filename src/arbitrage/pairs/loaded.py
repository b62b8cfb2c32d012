"""A pair with its models loaded, and every policy and solver by name."""

import asyncio
import warnings
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from arbitrage.core.errors import ConfigError
from arbitrage.core.files import fingerprint
from arbitrage.core.policy import Policy, Solver
from arbitrage.core.ports import Engine, Scorer
from arbitrage.core.solve import solve_by
from arbitrage.core.trace import Trace
from arbitrage.core.turn import Pair, Setting
from arbitrage.core.types import Problem, Source
from arbitrage.evaluation.running.sweep import Entry
from arbitrage.grading import is_same
from arbitrage.pairs.catalogue import pair_config
from arbitrage.pairs.config import PairConfig
from arbitrage.pairs.loading import load_engine, load_prm, load_router_model, reads
from arbitrage.policies import (
    RSD,
    Confidence,
    DraftOnly,
    FirstEntropy,
    Judge,
    Majority,
    OnPair,
    Oracle,
    RandomEscalation,
    RouterPolicy,
    TargetOnly,
)
from arbitrage.scorers.judge import RATING, JudgeScorer
from arbitrage.scorers.likelihood import LikelihoodScorer

if TYPE_CHECKING:
    from arbitrage.engines.hf import HFEngine
    from arbitrage.pairs.loading import Router

T = TypeVar("T", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPair:
    """A draft and a target ready to solve, with the scorers that some policies need."""

    name: str
    pair: Pair
    prm: Scorer | None = None
    routers: "Mapping[str, Router]" = field(default_factory=dict)
    """By the policy that uses it: ``router``, and ``router:NAME`` for further ones."""
    auditor: Scorer | None = None
    """The PRM under another name, to measure what a policy's escalations gain: the policy may ask the PRM itself."""
    config: PairConfig

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Of the router, by name of their budget; from its checkpoint. ``default`` is used where none is given."""
        return self.routers["router"].input_format.thresholds if "router" in self.routers else {}

    def policy(self, name: str, threshold: float | None = None) -> Policy:
        """Build a policy on this pair.

        Args:
            name: A key of :data:`POLICIES`, or ``router:NAME`` for a further router of the pair.
            threshold: Its threshold in [0, 1]; None for the default. Ignored by ``draft`` and ``target``.

        Raises:
            ConfigError: If the name is unknown, the threshold out of range, or the pair lacks the scorer.
        """
        if name.startswith("router:"):
            return self._router_policy(name, threshold)
        if name.partition(":")[0] in SOLVERS:
            raise ConfigError(f"{name!r} solves whole problems, here a rule for single steps is needed")
        check_name(name)
        return POLICIES[name](self, threshold)

    def method(self, name: str, threshold: float | None = None) -> Policy | Solver:
        """Build a policy or a solver on this pair.

        Args:
            name: A key of :data:`SOLVERS`, or ``NAME:NUMBER`` for another number than its default; ``RULE+NAME`` for a
                rule whose target guesses tokens as that solver's does; else as for :meth:`policy`.
            threshold: As for :meth:`policy`; ignored by solvers.

        Raises:
            ConfigError: As for :meth:`policy`; also if the number is none, or the pair cannot be used so.
        """
        rule, _, solver = name.rpartition("+")
        kind, _, number = solver.partition(":")
        if kind not in SOLVERS:
            return self.policy(name, threshold)
        if number and not number.isdecimal():
            raise ConfigError(f"the number in {name!r} must be a whole number, got {number!r}")
        made = SOLVERS[kind](self, name, int(number) if number else None)
        if not rule:
            return made
        if not isinstance(made, OnPair):
            raise ConfigError(f"{kind!r} has no target that a rule could use, got {name!r}")
        return replace(made, policy=self.policy(rule, threshold), name=name)

    @property
    def policies(self) -> list[str]:
        """Every policy and solver by name, the further routers' included."""
        return [*POLICIES, *SOLVERS, *(name for name in self.routers if name not in POLICIES)]

    def _router_policy(self, name: str, threshold: float | None) -> Policy:
        router = self.routers.get(name)
        if router is None:
            raise self._lacks(name)
        return RouterPolicy(router, _or(threshold, router.input_format.thresholds.get("default", 0.5)), name)

    def solve(
        self,
        question: str,
        *,
        policy: str | Policy | Solver = "router",
        threshold: float | None = None,
        setting: Setting | None = None,
        watch: Callable[[Trace], None] = lambda trace: None,
    ) -> Trace:
        """Solve one question; blocks until it is done.

        Args:
            question: The problem in words.
            policy: A name as for :meth:`method`, or an object.
            threshold: See :meth:`policy`; not used with an object.
            setting: Limits, sampling and seed; greedy by default.
            watch: Called with the trace so far after every step.

        Raises:
            ProblemError: If the question is empty.
            ConfigError: See :meth:`method`.
        """
        problem = Problem(id="question", question=question)
        method = self.method(policy, threshold) if isinstance(policy, str) else policy
        return _run(solve_by(method, problem, self.pair, setting, watch=watch))

    def identity(self, roles: Sequence[str]) -> dict[str, Any]:
        """What tells these models from others, for a run's key; reads a part of each weights file."""
        models = {role: model for role in roles if (model := self.config.model(role))}
        return {role: {**model.identity, "weights": fingerprint(Path(model.path))} for role, model in models.items()}

    def threshold_for(self, budget: str) -> float:
        """The threshold that ``arbitrage calibrate`` chose for a budget.

        Args:
            budget: Its name, such as ``target-tokens<=0.3``.

        Raises:
            ConfigError: If the pair has no router, or its checkpoint no such budget.
        """
        self.needs(self.routers.get("router"), "router")
        name = budget.replace(" ", "")
        if name not in self.thresholds:
            known = ", ".join(self.thresholds) or "none"
            raise ConfigError(
                f"the router of {self.name!r} is not calibrated for {name!r}, it knows {known}",
                hint="run `arbitrage calibrate` for this budget",
            )
        return self.thresholds[name]

    def needs(self, scorer: Scorer | None, role: str) -> Scorer:
        """The scorer of a role.

        Raises:
            ConfigError: If the pair has none.
        """
        if scorer is None:
            raise self._lacks(role)
        return scorer

    def _lacks(self, role: str) -> ConfigError:
        if self.config.model(role):
            return ConfigError(
                f"the pair {self.name!r} was loaded without its {role}", hint="name the policy to load()"
            )
        table = role.replace(":", "s.")
        return ConfigError(f"the pair {self.name!r} has no {table}", hint=f"add a table [{table}] to its configuration")


POLICIES: Final[dict[str, Callable[[LoadedPair, float | None], Policy]]] = {
    "draft": lambda pair, threshold: DraftOnly(),
    "target": lambda pair, threshold: TargetOnly(),
    "random": lambda pair, threshold: RandomEscalation(_or(threshold, 0.5)),
    "rsd": lambda pair, threshold: RSD(pair.needs(pair.prm, "prm"), _or(threshold, 0.7)),
    "oracle": lambda pair, threshold: Oracle(pair.needs(pair.prm, "prm"), _or(threshold, 0.0)),
    "likelihood": lambda pair, threshold: RouterPolicy(LikelihoodScorer(), _or(threshold, 0.25), "likelihood"),
    "confidence": lambda pair, threshold: Confidence(_or(threshold, 0.97)),
    "entropy": lambda pair, threshold: FirstEntropy(_or(threshold, 0.2)),
    "judge": lambda pair, threshold: Judge(_judge(pair.pair.target), _or(threshold, 7 / 9)),
    "router": lambda pair, threshold: pair._router_policy("router", threshold),
}
"""Rules for single steps, by name."""
SOLVERS: Final[dict[str, Callable[[LoadedPair, str, int | None], Solver]]] = {
    "speculative": lambda pair, name, num: _speculative(pair.pair, name, num),
    "ngram": lambda pair, name, num: _ngram(pair.pair, name, num),
    "majority": lambda pair, name, num: Majority(pair=pair.pair, is_same=is_same, num=_or(num, 5), name=name),
}
"""Other ways to solve whole problems, by name; ``NAME:NUMBER`` sets how many tokens are guessed, or drafts vote.
``RULE+speculative`` and ``RULE+ngram`` are a rule whose target guesses."""
FIXED: Final = ("draft", "target", *SOLVERS)
"""Policies and solvers without a threshold."""


ASKS_PRM: Final = ("rsd", "oracle")
"""Policies that ask the PRM."""


def rule_of(name: str) -> str:
    """The rule for steps in a name: ``router`` of ``router+speculative``."""
    return name.partition("+")[0]


def check_name(name: str) -> None:
    """Refuse a name that no pair has a policy or solver for, before anything is loaded.

    Raises:
        ConfigError: If it is unknown.
    """
    rule, _, last = name.rpartition("+")
    if last.partition(":")[0] in SOLVERS:
        if not rule:
            return
        name = rule
    if name not in POLICIES and not name.startswith("router:"):
        plain, _, threshold = name.partition("@")
        hint = f"choose from {', '.join([*POLICIES, *SOLVERS])}"
        if threshold and plain in POLICIES:
            hint = f"give the threshold apart: {plain} and {threshold}"
        raise ConfigError(f"unknown policy {name!r}", hint=hint)


def _judge(target: Engine) -> Scorer:
    """The target as a judge, asked as its own chat asks; in plain words where it has none."""
    prompt, tokenizer = getattr(target, "prompt", None), getattr(target, "tokenizer", None)
    return JudgeScorer() if prompt is None else JudgeScorer(request=prompt.follow_up(tokenizer, RATING))


def _speculative(pair: Pair, name: str, num_tokens: int | None) -> Solver:
    """Target-only, with tokens that the draft guesses."""
    from arbitrage.engines.speculative import DRAFT_TOKENS, SpeculativeEngine

    target, draft = _in_process(pair.target, name), _in_process(pair.draft, name)
    guessing = SpeculativeEngine.by_draft(target, draft, _or(num_tokens, DRAFT_TOKENS))
    return OnPair(policy=TargetOnly(), pair=replace(pair, target=guessing), name=name)


def _ngram(pair: Pair, name: str, num_tokens: int | None) -> Solver:
    """Target-only, with tokens that are looked up in what is written already."""
    from arbitrage.engines.speculative import LOOKUP_TOKENS, SpeculativeEngine

    guessing = SpeculativeEngine.by_lookup(_in_process(pair.target, name), _or(num_tokens, LOOKUP_TOKENS))
    return OnPair(policy=TargetOnly(), pair=replace(pair, target=guessing), name=name)


def _in_process(engine: Engine, name: str) -> "HFEngine":
    from arbitrage.engines.hf import HFEngine

    if not isinstance(engine, HFEngine):
        raise ConfigError(
            f"{name!r} needs models of the hf engine, {engine.name!r} is none",
            hint="run them in process by transformers, or leave it out of the policies",
        )
    return engine


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def _run(work: Coroutine[Any, Any, Trace]) -> Trace:
    """Run to completion, also inside a notebook, whose thread has a running loop already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(asyncio.run, work).result()


def load(
    name: str | Path,
    *,
    policies: Sequence[str] | None = None,
    with_prm: bool = False,
    keeps_hidden_state: bool = False,
) -> LoadedPair:
    """Load a pair: ``tiny`` for the shipped one, or a TOML file for models of your own.

    Args:
        name: Which.
        policies: Names of those that will be used; PRM and routers that none of them asks are not loaded, and need not
            be there. None for every model of the pair.
        with_prm: Load the PRM in any case: to audit, or to score rows.
        keeps_hidden_state: Whether the draft's steps carry its last hidden state, as a probe router needs.

    Raises:
        ConfigError: If the file cannot be used.
        CheckpointError: If a model is missing or broken.
        MissingExtra: If torch and transformers are not installed.
    """
    config = pair_config(name)
    wanted = set(config.models) if policies is None else {rule_of(policy) for policy in policies}
    routers = {
        role: load_router_model(model, role)
        for role, model in config.models.items()
        if role.startswith("router") and role in wanted
    }
    keeps_hidden_state = keeps_hidden_state or any(reads(router, "state") for router in routers.values())
    pair = Pair(
        draft=load_engine(config.draft, keeps_hidden_state=keeps_hidden_state), target=load_engine(config.target)
    )
    needs_prm = with_prm or policies is None or not wanted.isdisjoint(ASKS_PRM)
    prm = load_prm(config.prm) if config.prm and needs_prm else None
    for router in routers.values():
        _warn_of_another_pair(router.input_format.trained_for, pair)
    return LoadedPair(
        name=config.name,
        pair=pair,
        prm=prm,
        routers=routers,
        auditor=prm.renamed("audit") if prm else None,
        config=config,
    )


def _warn_of_another_pair(trained_for: Mapping[str, str], pair: Pair) -> None:
    for source, name in trained_for.items():
        if name != (actual := pair.engine(Source(source)).name):
            warnings.warn(f"the router was trained for the {source} {name!r}, not {actual!r}", stacklevel=3)


def entries(policies: Sequence[str], thresholds: Sequence[float]) -> list[Entry]:
    """All rows of a comparison: each policy at each threshold, the fixed ones once.

    Args:
        policies: Names of policies and solvers; ``NAME@0.2`` is that one at that threshold only.
        thresholds: Of all others; none for the defaults.

    Raises:
        ConfigError: If what follows an @ is no number.
    """
    made: list[Entry] = []
    for policy in policies:
        name, has_own, own = policy.partition("@")
        if has_own:
            made.append(Entry(name, parse_threshold(own)))
        else:
            made += [
                Entry(name, threshold)
                for threshold in ([None] if name.partition(":")[0] in FIXED or not thresholds else thresholds)
            ]
    return made


def parse_threshold(text: str) -> float:
    """Read a threshold.

    Raises:
        ConfigError: If it is no number.
    """
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"threshold must be a number in [0, 1], got {text!r}") from error
