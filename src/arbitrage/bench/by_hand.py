"""Costs that a person writes down, as a short TOML file: see "Seconds on another machine" in docs/evaluating.md."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from arbitrage.bench.costs import Figure, ModelCosts, PairCosts, Runtime, ScorerCosts, Settings, Timed
from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Source
from arbitrage.pairs.parsing import check_keys, parse, table

RUNTIME: Final = Runtime(engine="by hand")
STEP_TOKENS: Final = Settings().tokens
"""Length of the step whose score is given."""
FILE_KEYS: Final = ("source", "draft", "target", "models", "scorers")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTable:
    """A table of a language model; all times in milliseconds.

    Raises:
        ConfigError: If a number is out of range.
    """

    generated_ms: float
    """Of a generated token."""
    prompt_ms: float
    """Of a prompt token."""
    call_ms: float = 0.0
    """Of a call beside its tokens."""
    verified_ms: Mapping[str, Any] = field(default_factory=dict)
    """Of one forward pass, by its number of tokens; without it, a token more takes what a prompt token does."""

    def __post_init__(self) -> None:
        _check("generated_ms", self.generated_ms, is_positive=True)
        _check("prompt_ms", self.prompt_ms)
        _check("call_ms", self.call_ms)
        for width, ms in table(self.verified_ms, "verified_ms").items():
            if not (width.isascii() and width.isdecimal()) or int(width) < 1:
                raise ConfigError(f"verified_ms must name whole numbers of tokens of at least 1, got {width!r}")
            _check(f"verified_ms.{width}", ms, is_positive=True)

    def costs(self, name: str) -> ModelCosts:
        """The same as costs."""
        by_prompt = self.generated_ms + (STEP_TOKENS - 1) * self.prompt_ms
        passes = sorted((int(width), ms) for width, ms in self.verified_ms.items()) or [(STEP_TOKENS, by_prompt)]
        return ModelCosts(
            name=name,
            runtime=RUNTIME,
            context_tokens=0,
            generated_ms=Figure.exactly(self.generated_ms),
            prompt_ms=Figure.exactly(self.prompt_ms),
            call_ms=Figure.exactly(self.call_ms),
            verified=tuple(Timed(tokens=tokens, ms=Figure.exactly(ms)) for tokens, ms in passes),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerTable:
    """A table of a PRM or a router.

    Raises:
        ConfigError: If a number is out of range, or one is needed and missing.
    """

    step_ms: float | None = None
    """Milliseconds to score a step of :data:`STEP_TOKENS` tokens."""
    token_ms: float = 0.0
    """Further milliseconds for each further token."""
    asks_target: bool = False
    """Whether the target reads each step: the time is then the target's."""

    def __post_init__(self) -> None:
        _check("token_ms", self.token_ms)
        if self.step_ms is not None:
            _check("step_ms", self.step_ms)
        elif not self.asks_target:
            raise ConfigError("missing step_ms", hint="or set asks_target = true")

    def costs(self, role: str, target: ModelCosts) -> ScorerCosts:
        """The same as costs."""
        step_ms = target.pass_ms(STEP_TOKENS) if self.step_ms is None else self.step_ms
        return ScorerCosts(
            name=role,
            runtime=RUNTIME,
            asks_target=self.asks_target,
            scored=(Timed(tokens=STEP_TOKENS, ms=Figure.exactly(step_ms)),),
            token_ms=Figure.exactly(self.token_ms),
        )


def read_costs(path: Path, draft: str = "", target: str = "") -> PairCosts:
    """Read the costs of a pair: the output of ``arbitrage bench --json``, or a TOML file.

    Args:
        path: A name that ends with ``.toml`` is a file by hand.
        draft: The model of the TOML file that plays the draft; empty for the file's own choice.
        target: The same for the target.

    Raises:
        ConfigError: If the file cannot be read, a field is unknown, missing or out of range, or a model is not in it.
    """
    if path.suffix.lower() != ".toml":
        if draft or target:
            raise ConfigError(
                f"{path} holds the costs of one pair, got {'--draft' if draft else '--target'}",
                hint="a model is chosen by name in a TOML file with tables [models.NAME]",
            )
        return PairCosts.load(path)
    try:
        record = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read the costs in {str(path)!r}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    check_keys(record, FILE_KEYS, str(path))
    names = {Source.DRAFT: draft, Source.TARGET: target}
    models = {source: _model(record, source, name, path) for source, name in names.items()}
    scorers = {
        role: parse(ScorerTable, table(row, f"{path}: scorers.{role}"), f"{path}: scorers.{role}")
        for role, row in table(record.get("scorers", {}), f"{path}: scorers").items()
    }
    return PairCosts(
        pair=f"{models[Source.DRAFT].name} for {models[Source.TARGET].name}",
        settings=Settings(repeats=1),
        environment={"source": record.get("source") or path.name},
        draft=models[Source.DRAFT],
        target=models[Source.TARGET],
        scorers={role: scorer.costs(role, models[Source.TARGET]) for role, scorer in scorers.items()},
    )


def _model(record: Mapping[str, Any], role: Source, name: str, path: Path) -> ModelCosts:
    """The model that plays a role: the role's own table, or one of ``models``, which the role or the user names."""
    own = record.get(role)
    if not name and isinstance(own, Mapping):
        return parse(ModelTable, own, f"{path}: {role}").costs(role)
    models = table(record.get("models", {}), f"{path}: models")
    if not (name := name or str(own or "")):
        raise ConfigError(f"{path}: missing {role}", hint=f"add a table [{role}], or give --{role} NAME")
    if name not in models:
        hint = f"choose from {', '.join(models)}" if models else f"add a table [models.{name}]"
        raise ConfigError(f"{path}: no model {name!r} for the {role}", hint=hint)
    where = f"{path}: models.{name}"
    return parse(ModelTable, table(models[name], where), where).costs(name)


def _check(name: str, value: Any, *, is_positive: bool = False) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value < 0 or (is_positive and not value):
        least = "above 0" if is_positive else "of at least 0"
        raise ConfigError(f"{name} must be a number of milliseconds {least}, got {value!r}")
