"""Model ids: the pair under its name, and each of its methods as ``NAME/METHOD``."""

from dataclasses import dataclass
from typing import Final

from arbitrage.core.errors import ArbitrageError, ConfigError
from arbitrage.core.policy import Solver
from arbitrage.pairs.loaded import LoadedPair
from arbitrage.policies.spec import MethodSpec
from arbitrage.serving.errors import bad_field, no_such_model
from arbitrage.serving.schemas import Extension

MAX_COUNT: Final = 64
"""The largest number in ``METHOD:NUMBER`` of a request: each one builds an object that stays."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method that is ready to solve."""

    spec: MethodSpec
    """With the threshold in force."""
    solver: Solver


class ModelTable:
    """The methods of a pair by model id."""

    def __init__(self, loaded: LoadedPair, default: str = "") -> None:
        """Find out which methods the pair can run.

        Args:
            loaded: The pair.
            default: The method of the pair's own name; empty for the pair's default.

        Raises:
            ConfigError: If the pair cannot run the default.
        """
        self.loaded = loaded
        self.default = loaded.resolved(default or loaded.config.default_method)
        loaded.method(self.default)
        self.methods = [spec for name in loaded.policies if (spec := self._runnable(name))]

    @property
    def ids(self) -> list[str]:
        """The pair's name, then one id for each method."""
        return [self.loaded.name, *(f"{self.loaded.name}/{spec.name}" for spec in self.methods)]

    def _runnable(self, name: str) -> MethodSpec | None:
        try:
            spec = self.loaded.resolved(name)
            self.loaded.method(spec)
        except ArbitrageError:
            return None
        return spec

    def method(self, model: str, extension: Extension) -> Method:
        """The method of a request.

        Args:
            model: ``NAME``, ``NAME/METHOD`` or ``NAME/METHOD@THRESHOLD``.
            extension: Its method, threshold or budget come before those of the model id.

        Raises:
            APIError: If there is none of this name, or it takes no such threshold.
        """
        spec = self._spec(model)
        if extension.method is not None:
            try:
                spec = self._checked(MethodSpec.parse(extension.method))
            except ConfigError as error:
                raise bad_field("arbitrage.method", str(error)) from error
        spec = self._at(spec, extension)
        solver = self.loaded.method(spec)
        return Method(self.loaded.resolved(spec), solver)

    def _spec(self, model: str) -> MethodSpec:
        name, has_method, method = model.partition("/")
        if self.loaded.name != name and model.startswith(f"{self.loaded.name}/"):  # A name with a slash of its own.
            name, has_method, method = self.loaded.name, "/", model[len(self.loaded.name) + 1 :]
        if model == self.loaded.name:
            return self.default
        if name != self.loaded.name or not has_method:
            raise no_such_model(model)
        try:
            return self._checked(MethodSpec.parse(method))
        except ConfigError as error:
            raise no_such_model(model) from error

    def _checked(self, spec: MethodSpec) -> MethodSpec:
        """The method, if the pair can run it.

        Raises:
            ConfigError: If it cannot.
        """
        if spec.count is not None and spec.count > MAX_COUNT:
            raise ConfigError(f"the number in {spec.name!r} must be at most {MAX_COUNT}")
        self.loaded.method(spec)
        return spec

    def _at(self, spec: MethodSpec, extension: Extension) -> MethodSpec:
        if extension.budget is not None:
            if extension.threshold is not None:
                raise bad_field(
                    "arbitrage.budget", "arbitrage.budget sets the threshold: leave arbitrage.threshold out"
                )
            if spec.rule_name != "router":
                raise bad_field("arbitrage.budget", f"arbitrage.budget is for the router, not for {spec.name!r}")
            try:
                return spec.at(self.loaded.threshold_for(extension.budget))
            except ConfigError as error:
                raise bad_field("arbitrage.budget", str(error)) from error
        if extension.threshold is None:
            return spec
        try:
            return spec.at(extension.threshold)
        except ConfigError as error:
            raise bad_field("arbitrage.threshold", str(error)) from error
