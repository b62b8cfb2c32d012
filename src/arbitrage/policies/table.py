"""The table of methods: every rule and every solver, how it is built, what it needs and where it comes from.

A *rule* decides step by step whose text to keep. A *solver* solves whole problems by other means. A solver whose target
guesses tokens can be put under a rule: ``router+speculative``. To add a method, write its class and add one row here.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from arbitrage.core.errors import ConfigError
from arbitrage.core.policy import Policy, Solver
from arbitrage.core.ports import Engine, Scorer
from arbitrage.core.turn import Pair
from arbitrage.core.types import Source
from arbitrage.engines.local import LocalEngine
from arbitrage.engines.speculative import SpeculativeEngine
from arbitrage.policies.basic import DraftOnly, RandomEscalation, TargetOnly
from arbitrage.policies.gates import Confidence, FirstEntropy, Judge
from arbitrage.policies.learned import Oracle, RouterPolicy
from arbitrage.policies.repair import Repair
from arbitrage.policies.rsd import RSD
from arbitrage.policies.solvers import Majority
from arbitrage.scorers.format import InputFormat
from arbitrage.scorers.judge import JudgeScorer
from arbitrage.scorers.likelihood import LikelihoodScorer


class Need(enum.StrEnum):
    """What a method needs beyond two engines that write."""

    PRM = "prm"
    ROUTER = "router"
    LOGPROBS = "log-probabilities of the draft"
    FIRST_ENTROPY = "entropy of the draft's first token"
    LIKELIHOOD = "log-probabilities of the target for a given step"
    HIDDEN_STATE = "hidden state of the draft"
    ONE_VOCABULARY = "one vocabulary for draft and target"
    IN_PROCESS = "a target in this process"


class Standing(enum.Enum):
    """What a method is in a comparison."""

    PRODUCT = enum.auto()
    """One would serve it."""
    BASELINE = enum.auto()
    """One compares with it: a single model, or chance."""
    BOUND = enum.auto()
    """It needs what a served method does not have: an upper bound."""


class Router(Scorer, Protocol):
    """A trained router: a scorer whose checkpoint holds thresholds by budget."""

    @property
    def input_format(self) -> InputFormat:
        """How it reads a solution, and its calibrated thresholds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """The loaded models that methods are built from."""

    pair_name: str
    """The pair's name, for error messages."""
    pair: Pair
    is_same_answer: Callable[[str, str], bool]
    """Whether two answers are equal, for votes."""
    prm: Scorer | None = None
    routers: Mapping[str, Router] = field(default_factory=dict)
    """By role: ``router``, and ``router:NAME`` for further ones."""
    configured: frozenset[str] = frozenset()
    """Roles that the pair's configuration names, loaded or not."""

    def required_prm(self) -> Scorer:
        """The PRM.

        Raises:
            ConfigError: If it is not loaded.
        """
        if self.prm is None:
            raise self._missing("prm")
        return self.prm

    def required_router(self, role: str = "router") -> Router:
        """The router of a role.

        Raises:
            ConfigError: If it is not loaded.
        """
        if role not in self.routers:
            raise self._missing(role)
        return self.routers[role]

    def _missing(self, role: str) -> ConfigError:
        if role in self.configured:
            return ConfigError(
                f"the pair {self.pair_name!r} was loaded without its {role}", hint="name the policy to load()"
            )
        table = role.replace(":", "s.")
        return ConfigError(
            f"the pair {self.pair_name!r} has no {table}", hint=f"add a table [{table}] to its configuration"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleValues:
    """The values of a rule that a method's name gives, defaults included."""

    name: str
    """The rule's name, with its router's where it names one."""
    threshold: float
    """0 where the rule has none."""
    parameter: float
    """0 where the rule has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of the table: a rule for single steps."""

    build: Callable[[Models, RuleValues], Policy]
    """Makes the rule from models and its values."""
    source: str
    """Where the rule comes from."""
    default_threshold: float | Callable[[Models, str], float] | None = None
    """In [0, 1]; a function where it is read from a checkpoint; None for a rule without a threshold."""
    default_parameter: float | None = None
    """In [0, 1]: the number in ``RULE:NUMBER``; None for a rule without one."""
    needs: frozenset[Need] = frozenset()
    writers: tuple[Source, ...] = (Source.TARGET, Source.DRAFT)
    """The models that may write steps, the one first whose prompt counts as the solution's."""
    standing: Standing = Standing.PRODUCT

    @property
    def has_threshold(self) -> bool:
        """Whether the rule compares a number with a threshold."""
        return self.default_threshold is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeSolver:
    """One row of the table: a solver that brings no target which a rule could use."""

    build: Callable[[Models, str, int], Solver]
    """Makes the solver from models, its name, and its number."""
    source: str
    default_count: int
    """The number in ``NAME:NUMBER``."""
    needs: frozenset[Need] = frozenset()
    writers: tuple[Source, ...] = (Source.TARGET, Source.DRAFT)
    """See :attr:`Rule.writers`."""
    standing: Standing = Standing.PRODUCT


@dataclass(frozen=True, slots=True, kw_only=True)
class GuessingTarget:
    """One row of the table: target-only, or any rule, on a target that verifies guessed tokens."""

    target: Callable[[Models, str, int | None], SpeculativeEngine]
    """Makes the target from models, the method's name, and the number of guessed tokens (None to choose it)."""
    source: str
    recorded_count: int
    """The number that run keys hold where none is named: it was the default when the first runs were made, and these
    must go on."""
    guesser: str
    """The role whose model guesses; empty where no model does."""
    needs: frozenset[Need] = frozenset()
    writers: tuple[Source, ...] = (Source.TARGET,)
    """See :attr:`Rule.writers`; without a rule."""
    standing: Standing = Standing.PRODUCT


def _speculative(models: Models, name: str, count: int | None) -> SpeculativeEngine:
    target, draft = (_in_process(engine, name) for engine in (models.pair.target, models.pair.draft))
    return SpeculativeEngine.by_draft(target, draft, count)


def _ngram(models: Models, name: str, count: int | None) -> SpeculativeEngine:
    return SpeculativeEngine.by_lookup(_in_process(models.pair.target, name), count)


def _in_process(engine: Engine, name: str) -> LocalEngine:
    if not isinstance(engine, LocalEngine):
        raise ConfigError(
            f"{name!r} needs models in this process (engine hf or llamacpp), got {engine.name!r}",
            hint="run them in this process, or leave it out of the policies",
        )
    return engine


def _calibrated(models: Models, role: str) -> float:
    """The default threshold in a router's checkpoint; 0.5 where it holds none."""
    return models.required_router(role).input_format.thresholds.get("default", 0.5)


METHODS: Final[dict[str, Rule | WholeSolver | GuessingTarget]] = {
    "draft": Rule(
        build=lambda models, values: DraftOnly(),
        source="one model alone",
        writers=(Source.DRAFT,),
        standing=Standing.BASELINE,
    ),
    "target": Rule(
        build=lambda models, values: TargetOnly(),
        source="one model alone",
        writers=(Source.TARGET,),
        standing=Standing.BASELINE,
    ),
    "random": Rule(
        build=lambda models, values: RandomEscalation(values.threshold),
        source="chance",
        default_threshold=0.5,
        standing=Standing.BASELINE,
    ),
    "rsd": Rule(
        build=lambda models, values: RSD(models.required_prm(), values.threshold),
        source="arXiv 2501.19324",
        default_threshold=0.7,
        needs=frozenset({Need.PRM}),
    ),
    "oracle": Rule(
        build=lambda models, values: Oracle(models.required_prm(), values.threshold),
        source="arXiv 2512.05033",
        default_threshold=0.0,
        needs=frozenset({Need.PRM}),
        standing=Standing.BOUND,
    ),
    "likelihood": Rule(
        build=lambda models, values: RouterPolicy(LikelihoodScorer(), values.threshold, "likelihood"),
        source="after arXiv 2302.07863",
        default_threshold=0.25,
        needs=frozenset({Need.LIKELIHOOD}),
    ),
    "confidence": Rule(
        build=lambda models, values: Confidence(values.threshold),
        source="arXiv 2602.18447, without its cascade",
        default_threshold=0.97,
        needs=frozenset({Need.LOGPROBS}),
    ),
    "entropy": Rule(
        build=lambda models, values: FirstEntropy(values.threshold),
        source="arXiv 2601.05110",
        default_threshold=0.2,
        needs=frozenset({Need.FIRST_ENTROPY}),
    ),
    "judge": Rule(
        build=lambda models, values: Judge(JudgeScorer.of(models.pair.target), values.threshold),
        source="arXiv 2504.07891",
        default_threshold=7 / 9,
        needs=frozenset({Need.LIKELIHOOD}),
    ),
    "router": Rule(
        build=lambda models, values: RouterPolicy(models.required_router(values.name), values.threshold, values.name),
        source="arXiv 2512.05033",
        default_threshold=_calibrated,
        needs=frozenset({Need.ROUTER}),
    ),
    "repair": Rule(
        build=lambda models, values: Repair(models.required_router(), values.threshold, values.parameter),
        source="after arXiv 2302.07863",
        default_threshold=0.02,
        default_parameter=0.15,
        needs=frozenset({Need.ROUTER, Need.LIKELIHOOD, Need.ONE_VOCABULARY}),
    ),
    "speculative": GuessingTarget(
        target=_speculative,
        source="arXiv 2211.17192",
        recorded_count=6,
        guesser="draft",
        needs=frozenset({Need.ONE_VOCABULARY, Need.IN_PROCESS}),
    ),
    "ngram": GuessingTarget(
        target=_ngram,
        source="prompt lookup, arXiv 2304.04487",
        recorded_count=4,
        guesser="",
        needs=frozenset({Need.IN_PROCESS}),
    ),
    "majority": WholeSolver(
        build=lambda models, name, count: Majority(
            pair=models.pair, is_same=models.is_same_answer, num=count, name=name
        ),
        source="arXiv 2203.11171",
        default_count=5,
        writers=(Source.DRAFT,),
    ),
}
"""Every method by name, in the order in which help texts show them."""
