"""A method's name as a value: ``rule``, ``solver`` or ``rule+solver``, each with its threshold; and how it is built."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from arbitrage.core.errors import ConfigError
from arbitrage.core.policy import Policy, Solver
from arbitrage.core.types import Source
from arbitrage.engines.speculative import SpeculativeEngine
from arbitrage.policies.basic import TargetOnly, check_threshold
from arbitrage.policies.solvers import RuleSolver
from arbitrage.policies.table import METHODS, GuessingTarget, Models, Need, Rule, RuleValues, Standing, WholeSolver

SEPARATOR: Final = "+"
VARIANTS: Final = ("router",)
"""Rules of which a pair may have several, distinguished as ``RULE:NAME``."""


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """A method, as users write it: ``RULE[:NAME][+SOLVER[:NUMBER]][@THRESHOLD]``, or ``SOLVER[:NUMBER]``.

    A rule with a parameter takes it in place of the name: ``repair:0.15``.

    The only place that takes such a text apart is :meth:`parse`; ``str`` writes it again.
    """

    rule: str = ""
    """A rule of :data:`METHODS`; empty for a solver alone."""
    router: str = ""
    """Which further router of the pair, in ``router:NAME``."""
    solver: str = ""
    """A solver of :data:`METHODS`; empty for a rule alone."""
    count: int | None = None
    """The solver's number: tokens guessed at a time, or drafts that vote. None for its default."""
    threshold: float | None = None
    """In [0, 1]; None for the default."""
    parameter: float | None = None
    """The rule's own number in [0, 1], as in ``repair:0.15``; None for the default."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a method's name.

        Raises:
            ConfigError: If the name is unknown, a number or a threshold cannot be read, or a rule and a solver do not
                go together.
        """
        name, has_threshold, threshold = text.partition("@")
        first, has_both, last = name.rpartition(SEPARATOR)
        is_known = _is_rule(first) and _is_solver(last) if has_both else _is_rule(last) or _is_solver(last)
        if not is_known:
            raise ConfigError(f"unknown policy {name!r}", hint=f"choose from {', '.join(METHODS)}")
        rule, solver = (first, last) if _is_solver(last) else (last, "")
        rule_name, _, detail = rule.partition(":")
        router, parameter = (detail, None) if rule_name in VARIANTS else ("", _parameter(rule_name, detail))
        solver_name, has_count, count = solver.partition(":")
        if has_count and not (count.isascii() and count.isdecimal()):
            raise ConfigError(f"the number in {name!r} must be a whole number, got {count!r}")
        if rule and solver and not isinstance(METHODS[solver_name], GuessingTarget):
            guessing = " or ".join(other for other, row in METHODS.items() if isinstance(row, GuessingTarget))
            raise ConfigError(
                f"{name!r}: a rule cannot be combined with {solver_name!r}",
                hint=f"combine it with {guessing}, as in router+speculative",
            )
        spec = cls(rule_name, router, solver_name, int(count) if has_count else None, parameter=parameter)
        return spec.at(_threshold(threshold)) if has_threshold else spec

    @classmethod
    def recorded(cls, name: str, threshold: float | None = None) -> Self:
        """The method of a trace that was written earlier; an unknown name becomes the name of a rule.

        Args:
            name: As :attr:`name` wrote it, or the name of a user's own rule.
            threshold: Its threshold.
        """
        try:
            spec = cls.parse(name)
        except ConfigError:
            spec = cls(rule=name)
        return replace(spec, threshold=threshold)

    def at(self, threshold: float | None) -> Self:
        """The same method at a threshold; None for its default.

        Raises:
            ConfigError: If the threshold is outside [0, 1], or the method has none.
        """
        if threshold is None:
            return replace(self, threshold=None)
        if not self.has_threshold:
            raise ConfigError(f"{self.name!r} has no threshold, got {threshold:g}", hint="leave the threshold out")
        if not 0.0 <= threshold <= 1.0:
            raise ConfigError(f"threshold must be in [0, 1], got {threshold:g} for {self.name!r}")
        return replace(self, threshold=threshold)

    def __str__(self) -> str:
        """The name that :meth:`parse` reads, threshold included."""
        if self.threshold is None:
            return self.name
        return f"{self.name}@{short(self.threshold)}"

    @property
    def rule_name(self) -> str:
        """The rule with its router's name or its parameter, such as ``router:model`` or ``repair:0.15``."""
        detail = self.router or ("" if self.parameter is None else short(self.parameter))
        return f"{self.rule}:{detail}" if detail else self.rule

    @property
    def router_role(self) -> str:
        """The role of the router that decides, such as ``router:model``; empty where none does."""
        if not self.is_router:
            return ""
        return f"router:{self.router}" if self.router else "router"

    @property
    def scorer_roles(self) -> tuple[str, ...]:
        """The roles of the models beside draft and target whose scores change what the method does."""
        return (*(("prm",) if Need.PRM in self.needs else ()), *filter(None, (self.router_role,)))

    @property
    def solver_name(self) -> str:
        """The solver with its number, such as ``speculative:6``."""
        return self.solver if self.count is None else f"{self.solver}:{self.count}"

    @property
    def name(self) -> str:
        """The name without the threshold."""
        return SEPARATOR.join(filter(None, (self.rule_name, self.solver_name)))

    @property
    def needs(self) -> frozenset[Need]:
        """The needs of rule and solver together."""
        return frozenset[Need]().union(*(row.needs for row in self._rows))

    @property
    def has_threshold(self) -> bool:
        """Whether a threshold changes anything."""
        return any(isinstance(row, Rule) and row.has_threshold for row in self._rows)

    @property
    def is_router(self) -> bool:
        """Whether a trained router decides."""
        return Need.ROUTER in self.needs

    @property
    def standing(self) -> Standing:
        """The method's standing in a comparison: its rule's, else its solver's."""
        return self._rows[0].standing if self._rows else Standing.PRODUCT

    @property
    def writers(self) -> tuple[Source, ...]:
        """The models that may write steps, the one first whose prompt counts as the solution's."""
        return self._rows[0].writers if self._rows else (Source.TARGET,)

    @property
    def guesser(self) -> str:
        """The role whose model guesses tokens for the target; empty where none does."""
        return next((row.guesser for row in self._rows if isinstance(row, GuessingTarget)), "")

    @property
    def _rows(self) -> list[Rule | WholeSolver | GuessingTarget]:
        return [METHODS[name] for name in (self.rule, self.solver) if name in METHODS]


def methods(names: Sequence[str], thresholds: Sequence[float] = ()) -> list[MethodSpec]:
    """All methods of a comparison: each at each threshold, those without a threshold once.

    Args:
        names: Methods' names; ``NAME@0.2`` is that one at that threshold only.
        thresholds: Of all others that have one; empty for the defaults.

    Raises:
        ConfigError: If no name is given, a name is unknown, or a threshold is out of range.
    """
    if not names:
        raise ConfigError("no policies to compare", hint=f"choose from {', '.join(METHODS)}")
    specs: list[MethodSpec] = []
    for name in names:
        spec = MethodSpec.parse(name)
        sweeps = spec.has_threshold and spec.threshold is None and thresholds
        specs += [spec.at(threshold) for threshold in thresholds] if sweeps else [spec]
    return specs


def rules() -> list[str]:
    """Names of all rules for single steps."""
    return [name for name, row in METHODS.items() if isinstance(row, Rule)]


def resolved(spec: MethodSpec, models: Models) -> MethodSpec:
    """The same method with its default threshold and parameter named, so that a run's key holds them.

    Raises:
        ConfigError: If the threshold is read from a router that is not loaded.
    """
    rule = METHODS.get(spec.rule)
    if not isinstance(rule, Rule):
        return spec
    if spec.parameter is None:
        spec = replace(spec, parameter=rule.default_parameter)
    if spec.threshold is not None or not spec.has_threshold:
        return spec
    default = rule.default_threshold
    return spec.at(default(models, spec.router_role) if callable(default) else default)


def build_rule(spec: MethodSpec, models: Models) -> Policy:
    """Build the rule of a method.

    Raises:
        ConfigError: If it has no rule, or the pair lacks a scorer that the rule needs.
    """
    rule = METHODS.get(spec.rule)
    if not isinstance(rule, Rule):
        raise ConfigError(
            f"policy must be a rule for single steps, got {spec.name!r}", hint=f"choose from {', '.join(rules())}"
        )
    spec = resolved(spec, models)
    values = RuleValues(name=spec.rule_name, threshold=spec.threshold or 0.0, parameter=spec.parameter or 0.0)
    return rule.build(models, values)


def build(spec: MethodSpec, models: Models, guessing_target: Callable[[], SpeculativeEngine] | None = None) -> Solver:
    """Build a method.

    Args:
        spec: The method.
        models: The loaded models.
        guessing_target: Returns the target that guesses, where one was built before; None builds it.

    Raises:
        ConfigError: If the pair lacks what the method needs.
    """
    row = METHODS.get(spec.solver)
    if isinstance(row, WholeSolver):
        return row.build(models, spec.name, row.default_count if spec.count is None else spec.count)
    policy = build_rule(spec, models) if spec.rule else TargetOnly()
    threshold = resolved(spec, models).threshold
    if row is None:
        return RuleSolver(policy=policy, pair=models.pair, name=spec.name, threshold=threshold)
    assert isinstance(row, GuessingTarget)
    target = guessing_target() if guessing_target else row.target(models, spec.name, spec.count)
    return RuleSolver(
        policy=policy,
        pair=replace(models.pair, target=target),
        name=spec.name,
        threshold=threshold,
        own_target=target.name if spec.count is not None else f"{target.name}:{row.recorded_count}",
        prepare=target.prepare,
    )


def parse_threshold(text: str) -> float:
    """Read a threshold.

    Raises:
        ConfigError: If it is no number, or outside [0, 1].
    """
    value = _threshold(text)
    check_threshold(value)
    return value


def _threshold(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"threshold must be a number in [0, 1], got {text!r}") from error


def short(number: float) -> str:
    """A number in as few digits as can be read back."""
    text = f"{number:g}"
    return text if float(text) == number else repr(number)


def _parameter(rule: str, text: str) -> float | None:
    """The parameter behind a rule's name; None without one."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise ConfigError(f"the number in '{rule}:{text}' must be a number in [0, 1], got {text!r}") from error
    check_threshold(value, f"the number in '{rule}:{text}'")
    return value


def _is_solver(part: str) -> bool:
    return isinstance(METHODS.get(part.partition(":")[0]), WholeSolver | GuessingTarget)


def _is_rule(part: str) -> bool:
    name, has_detail, detail = part.partition(":")
    rule = METHODS.get(name)
    if not isinstance(rule, Rule):
        return False
    # Commas join lists of methods.
    takes_detail = name in VARIANTS or rule.default_parameter is not None
    return not has_detail or (takes_detail and detail != "" and "," not in detail)
