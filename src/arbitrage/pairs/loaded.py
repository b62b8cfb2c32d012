"""A pair with its models loaded: it solves problems by any method."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from arbitrage.core.errors import ConfigError
from arbitrage.core.files import fingerprint
from arbitrage.core.policy import Policy, Solver
from arbitrage.core.ports import Scorer
from arbitrage.core.trace import Trace
from arbitrage.core.turn import Pair, Setting
from arbitrage.core.types import Problem, Source
from arbitrage.engines.language_model import LanguageModel
from arbitrage.engines.speculative import SpeculativeEngine
from arbitrage.grading import is_same
from arbitrage.pairs.blocking import run
from arbitrage.pairs.catalogue import pair_config
from arbitrage.pairs.config import PairConfig
from arbitrage.pairs.loading import load_engine, load_prm, load_router_model, reads
from arbitrage.pairs.needs import check_needs
from arbitrage.pairs.roles import Role
from arbitrage.policies.solvers import RuleSolver
from arbitrage.policies.spec import MethodSpec, build, build_rule, resolved
from arbitrage.policies.table import METHODS, GuessingTarget, Models

MAX_METHODS: Final = 256
"""So many built methods are kept."""


@dataclass(frozen=True, kw_only=True)
class LoadedPair:
    """A draft and a target ready to solve, with the scorers that some methods need."""

    config: PairConfig
    models: Models
    auditor: Scorer | None = None
    """The PRM under another name, to measure the gain of a method's escalations: the method may use the PRM too."""
    _methods: dict[MethodSpec, Solver] = field(default_factory=dict, init=False, repr=False)
    """Methods by spec, the oldest first: each is built once."""
    _targets: dict[str, SpeculativeEngine] = field(default_factory=dict, init=False, repr=False)
    """Targets that guess tokens, by solver and number: each compares vocabularies once."""

    @property
    def name(self) -> str:
        """The pair's name."""
        return self.config.name

    @property
    def pair(self) -> Pair:
        """The engines."""
        return self.models.pair

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Thresholds of the router's checkpoint by name of their budget; ``default`` is used where none is given."""
        router = self.models.routers.get("router")
        return router.input_format.thresholds if router else {}

    @property
    def policies(self) -> list[str]:
        """Names of all methods, the further routers' included."""
        return [*METHODS, *(role for role in self.models.routers if role not in METHODS)]

    @property
    def paths(self) -> dict[str, str]:
        """How forward passes of draft and target run, by role, such as ``graphs``; servers are left out."""
        engines = {source.value: self.pair.engine(source) for source in Source}
        return {role: engine.path for role, engine in engines.items() if isinstance(engine, LanguageModel)}

    def resolved(self, method: str | MethodSpec, threshold: float | None = None) -> MethodSpec:
        """The spec of a method with the threshold in force.

        Args:
            method: A name that :meth:`MethodSpec.parse` reads, or a spec.
            threshold: Its threshold in [0, 1]; None for its own or the default. A method without one ignores it.

        Raises:
            ConfigError: If the name is unknown, the threshold out of range, or its router is not loaded.
        """
        spec = MethodSpec.parse(method) if isinstance(method, str) else method
        if threshold is not None and spec.has_threshold:
            spec = spec.at(threshold)
        return resolved(spec, self.models)

    def method(self, method: str | MethodSpec, threshold: float | None = None) -> Solver:
        """Build a method on this pair, or return it where it was built before.

        Args:
            method: As for :meth:`resolved`.
            threshold: As for :meth:`resolved`.

        Raises:
            ConfigError: As for :meth:`resolved`; also if the pair lacks what the method needs.
        """
        spec = self.resolved(method, threshold)
        if spec not in self._methods:
            check_needs(spec, self.config, self.models)
            while len(self._methods) >= MAX_METHODS:  # Requests name thresholds without end.
                del self._methods[next(iter(self._methods))]
            self._methods[spec] = build(spec, self.models, lambda: self._guessing_target(spec))
        return self._methods[spec]

    def policy(self, method: str | MethodSpec, threshold: float | None = None) -> Policy:
        """Build a rule for single steps on this pair.

        Args:
            method: As for :meth:`resolved`.
            threshold: As for :meth:`resolved`.

        Raises:
            ConfigError: As for :meth:`method`; also if the method is no rule.
        """
        spec = self.resolved(method, threshold)
        check_needs(spec, self.config, self.models)
        return build_rule(spec, self.models)

    async def solve_async(
        self,
        question: str | Problem,
        *,
        policy: str | MethodSpec | Policy | Solver | None = None,
        threshold: float | None = None,
        setting: Setting | None = None,
        watch: Callable[[Trace], None] = lambda trace: None,
    ) -> Trace:
        """Solve one problem.

        Args:
            question: The question, or a whole problem.
            policy: A method's name or spec, a rule for single steps, or a solver; None for the pair's default method.
            threshold: See :meth:`resolved`; not used with an object.
            setting: Limits, sampling and seed; greedy by default.
            watch: Called with the trace so far after every step.

        Raises:
            ProblemError: If the question is empty.
            ConfigError: See :meth:`method`.
        """
        problem = Problem(id="question", question=question) if isinstance(question, str) else question
        return await self._solver(policy, threshold).solve(problem, setting or Setting(), watch=watch)

    def solve(
        self,
        question: str | Problem,
        *,
        policy: str | MethodSpec | Policy | Solver | None = None,
        threshold: float | None = None,
        setting: Setting | None = None,
        watch: Callable[[Trace], None] = lambda trace: None,
    ) -> Trace:
        """Solve one problem; blocks until it is solved. See :meth:`solve_async`."""
        work = self.solve_async(question, policy=policy, threshold=threshold, setting=setting, watch=watch)
        return run(work)

    def identity(self, roles: Sequence[str]) -> dict[str, Any]:
        """Identifies these models in a run's key; reads a part of each weights file."""
        models = {role: model for role in roles if (model := self.config.model(role))}
        return {
            role: {**model.identity, "weights": fingerprint(Path(model.local_path))} for role, model in models.items()
        }

    def threshold_for(self, budget: str) -> float:
        """The threshold that ``arbitrage calibrate`` chose for a budget.

        Args:
            budget: Its name, such as ``target-tokens<=0.3``.

        Raises:
            ConfigError: If the pair has no router, or its checkpoint no such budget.
        """
        self.models.required_router()
        name = budget.replace(" ", "")
        if name not in self.thresholds:
            calibrated = ", ".join(self.thresholds) or "none"
            raise ConfigError(
                f"the router of {self.name!r} is not calibrated for {name!r}; its budgets: {calibrated}",
                hint="run `arbitrage calibrate` for this budget",
            )
        return self.thresholds[name]

    def _solver(self, policy: str | MethodSpec | Policy | Solver | None, threshold: float | None) -> Solver:
        if policy is None or isinstance(policy, str | MethodSpec):
            return self.method(policy or self.config.default_method, threshold)
        return RuleSolver(policy=policy, pair=self.pair) if isinstance(policy, Policy) else policy

    def _guessing_target(self, spec: MethodSpec) -> SpeculativeEngine:
        if spec.solver_name not in self._targets:
            row = METHODS[spec.solver]
            assert isinstance(row, GuessingTarget)
            self._targets[spec.solver_name] = row.target(self.models, spec.solver_name, spec.count)
        return self._targets[spec.solver_name]


def load(
    name: str | Path | PairConfig,
    *,
    policies: Sequence[str | MethodSpec] | None = None,
    with_prm: bool = False,
    keeps_hidden_state: bool = False,
) -> LoadedPair:
    """Load a pair.

    Args:
        name: ``tiny`` for the shipped pair, a TOML file that names your models, or a configuration.
        policies: Methods that will be used; a PRM or router that none of them needs is not loaded, and need not exist.
            None loads every model of the pair.
        with_prm: Load the PRM in any case: to audit, or to score rows.
        keeps_hidden_state: Whether the draft's steps carry its last hidden state, as a probe router needs.

    Raises:
        ConfigError: If the file cannot be used, or a method is unknown.
        CheckpointError: If a model is missing or broken.
        MissingExtra: If the packages of an engine are not installed.
    """
    config = name if isinstance(name, PairConfig) else pair_config(name)
    specs = None if policies is None else [MethodSpec.parse(p) if isinstance(p, str) else p for p in policies]
    used_roles = set(config.models) if specs is None else {role for spec in specs for role in spec.scorer_roles}
    routers = {
        role: load_router_model(model, role)
        for role, model in config.models.items()
        if Role.parse(role).kind == "router" and role in used_roles
    }
    keeps_hidden_state = keeps_hidden_state or any(reads(router, "state") for router in routers.values())
    pair = Pair(
        draft=load_engine(config.draft, keeps_hidden_state=keeps_hidden_state), target=load_engine(config.target)
    )
    prm = load_prm(config.prm) if config.prm and (with_prm or "prm" in used_roles) else None
    for router in routers.values():
        _warn_of_another_pair(router.input_format.trained_for, pair)
    models = Models(
        pair_name=config.name,
        pair=pair,
        is_same_answer=is_same,
        prm=prm,
        routers=routers,
        configured=frozenset(config.models),
    )
    return LoadedPair(config=config, models=models, auditor=prm.renamed("audit") if prm else None)


def _warn_of_another_pair(trained_for: Mapping[str, str], pair: Pair) -> None:
    for source, name in trained_for.items():
        if name != (actual := pair.engine(Source(source)).name):
            warnings.warn(f"the router was trained for the {source} {name!r}, not {actual!r}", stacklevel=3)
