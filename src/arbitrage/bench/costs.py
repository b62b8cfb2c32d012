"""The measured costs of a pair as values, and their form in files: see "What a pair costs" in docs/evaluating.md."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from arbitrage.core.errors import ConfigError
from arbitrage.core.interpolation import interpolated
from arbitrage.core.types import Source

SCHEMA: Final = 1
"""Version of the JSON form."""
WIDTHS: Final = (1, 2, 4, 8, 16, 32)
"""Tokens of the forward passes that are measured behind a context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is measured.

    Raises:
        ConfigError: If a number is too small.
    """

    repeats: int = 3
    """Timed rounds; one more, untimed, comes before them."""
    prompt_tokens: int = 200
    """Length of the longer prompt, and of the context behind which tokens are written, verified and scored."""
    tokens: int = 32
    """Length of the longer step that is written and scored."""

    def __post_init__(self) -> None:
        for name, least in (("repeats", 1), ("prompt_tokens", 8), ("tokens", 4)):
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"{name.replace('_', '-')} must be at least {least}, got {value}")

    @property
    def short_prompt(self) -> int:
        """Length of the shorter prompt, in tokens."""
        return self.prompt_tokens // 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number that was measured several times."""

    value: float
    """The median."""
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The median of some numbers, with the smallest and the largest."""
        return cls(value=statistics.median(values), low=min(values), high=max(values))

    @classmethod
    def exactly(cls, value: float) -> Self:
        """A number without a spread."""
        return cls.of([value])


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A call on so many tokens."""

    tokens: int
    ms: Figure

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        """Read its JSON form; further fields are ignored."""
        return cls(tokens=record["tokens"], ms=Figure(**record["ms"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What runs a model."""

    engine: str
    """As configuration files call it."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Library, device, data type, threads; only of draft and target in this process."""
    forward_path: str | None = None
    """How forward passes run, such as ``graphs``, ``eager`` or ``llamacpp``; None for a probe, and behind a server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The least time in which a device can read all weights of a model once."""

    weights_bytes: int
    copy_bytes_per_s: float
    """Bytes read and written by a copy on the same device."""

    @property
    def ms_per_token(self) -> float:
        """Milliseconds; a token needs all weights of a dense model."""
        return 1000.0 * self.weights_bytes / self.copy_bytes_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCosts:
    """What a language model costs."""

    name: str
    runtime: Runtime
    context_tokens: int
    """Length of the context behind which it wrote and verified."""
    generated_ms: Figure
    """Milliseconds per generated token: the slope between two steps of different length."""
    call_ms: Figure
    """Milliseconds that a step takes beside those for its tokens, whatever its length."""
    prompt_ms: Figure
    """Milliseconds per prompt token: the slope between two new prompts of different length."""
    verified: tuple[Timed, ...] = ()
    """Reading of given tokens behind the context, by increasing number; empty where the engine cannot."""
    why_not_verified: str = ""
    """Why ``verified`` is empty."""
    reads_whole_context: bool = False
    """Whether each reading also computes the whole context, past the cache."""
    limit: Limit | None = None
    """None where weights or device cannot be reached."""

    def reading_ms(self, tokens: float) -> float | None:
        """Milliseconds that reading a step takes behind the context, between two measured lengths by a straight line.

        Returns:
            None if nothing was measured; beyond the longest length, the line of the last two goes on.
        """
        if not self.verified:
            return None
        return interpolated([(one.tokens, one.ms.value) for one in self.verified], tokens, slope=None)

    def pass_ms(self, tokens: float) -> float:
        """Milliseconds of one forward pass over so many tokens.

        One token costs what a generated one does; between two measured numbers of tokens a straight line runs; beyond
        the longest, or where readings were not measured behind a cached context, each further token costs what a
        prompt token does. 0 for no tokens.
        """
        if tokens <= 0.0:
            return 0.0
        wide = () if self.reads_whole_context else self.verified
        points = [(1, self.generated_ms.value), *((one.tokens, one.ms.value) for one in wide if one.tokens > 1)]
        return interpolated(points, tokens, slope=self.prompt_ms.value)

    def ratio(self, one: Timed) -> float:
        """Time of a reading over the time of a generated token."""
        return one.ms.value / self.generated_ms.value

    def to_json(self) -> dict[str, Any]:
        """All fields, with ``limit.ms_per_token`` and a ``ratio`` for each reading."""
        record = asdict(self)
        record["verified"] = [{**asdict(one), "ratio": self.ratio(one)} for one in self.verified]
        if self.limit:
            record["limit"]["ms_per_token"] = self.limit.ms_per_token
        return record

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        """Read its JSON form."""
        limit = record["limit"]
        return cls(
            name=record["name"],
            runtime=Runtime(**record["runtime"]),
            context_tokens=record["context_tokens"],
            **{name: Figure(**record[name]) for name in ("generated_ms", "call_ms", "prompt_ms")},
            verified=tuple(Timed.read(row) for row in record["verified"]),
            why_not_verified=record["why_not_verified"],
            reads_whole_context=record["reads_whole_context"],
            limit=limit and Limit(weights_bytes=limit["weights_bytes"], copy_bytes_per_s=limit["copy_bytes_per_s"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerCosts:
    """What a PRM or a router costs."""

    name: str
    runtime: Runtime
    asks_target: bool
    """Whether it has the target read each step: its time is then the target's."""
    scored: tuple[Timed, ...]
    """A short and a long step, their tokens counted by the draft."""
    token_ms: Figure
    """Milliseconds per token of a step: the slope between the two; near 0 for a scorer that reads no text."""

    @property
    def step_ms(self) -> float:
        """Milliseconds to score the longer step."""
        return self.scored[-1].ms.value

    def ms(self, tokens: float) -> float:
        """Milliseconds to score a step of so many tokens: the line through the two measured ones."""
        first = self.scored[0]
        return max(0.0, first.ms.value + (tokens - first.tokens) * self.token_ms.value)

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self) | {"scored": [asdict(one) for one in self.scored]}

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        """Read its JSON form."""
        return cls(
            name=record["name"],
            runtime=Runtime(**record["runtime"]),
            asks_target=record["asks_target"],
            scored=tuple(Timed.read(row) for row in record["scored"]),
            token_ms=Figure(**record["token_ms"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PairCosts:
    """What the models of a pair cost on one machine."""

    pair: str
    settings: Settings
    environment: Mapping[str, Any]
    """Machine and versions."""
    draft: ModelCosts
    target: ModelCosts
    scorers: Mapping[str, ScorerCosts] = field(default_factory=dict)
    """PRM and routers by role."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Scorers that could not be measured, by role, each with the reason."""

    def model(self, source: Source) -> ModelCosts:
        """The costs of the model that plays ``source``."""
        return self.draft if source is Source.DRAFT else self.target

    def to_json(self) -> dict[str, Any]:
        """One object that JSON can hold; :meth:`read` makes the same value of it."""
        return {
            "schema": SCHEMA,
            "pair": self.pair,
            "settings": asdict(self.settings),
            "environment": dict(self.environment),
            "draft": self.draft.to_json(),
            "target": self.target.to_json(),
            "scorers": {role: costs.to_json() for role, costs in self.scorers.items()},
            "skipped": dict(self.skipped),
        }

    @classmethod
    def read(cls, record: Any) -> Self:
        """Read the JSON form; further fields, such as ``advice``, are ignored.

        Raises:
            ConfigError: If it is of another schema, or a field is missing.
        """
        schema = record.get("schema") if isinstance(record, Mapping) else None
        if schema != SCHEMA:
            raise ConfigError(
                f"costs must be of schema {SCHEMA}, got {schema!r}", hint="write them with `arbitrage bench --json`"
            )
        try:
            return cls(
                pair=record["pair"],
                settings=Settings(**record["settings"]),
                environment=record["environment"],
                draft=ModelCosts.read(record["draft"]),
                target=ModelCosts.read(record["target"]),
                scorers={role: ScorerCosts.read(row) for role, row in record["scorers"].items()},
                skipped=record["skipped"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"costs cannot be read, {type(error).__name__}: {error}",
                hint="write them with `arbitrage bench --json`",
            ) from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the output of ``arbitrage bench --json``.

        Raises:
            ConfigError: If the file is missing or no JSON, or holds something else.
        """
        try:
            record = json.loads(path.read_text())
        except OSError as error:
            raise ConfigError(f"cannot read the costs in {str(path)!r}: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"{path}: not JSON: {error}", hint="write it with `arbitrage bench --json`") from error
        return cls.read(record)
