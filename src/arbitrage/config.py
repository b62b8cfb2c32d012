"""A pair's configuration file: TOML, checked, with suggestions for misspelt keys."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from arbitrage.core.errors import ConfigError
from arbitrage.engines.prompt import Example, Prompt, prompt_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One model of a pair.

    Raises:
        ConfigError: If the data type or the prompt is unknown.
    """

    path: str
    """A checkpoint folder, relative to the configuration file, or a hub name."""
    name: str = ""
    device: str = "cpu"
    dtype: str = "float32"
    prompt: str = ""
    """A key of :data:`arbitrage.engines.prompt.PROMPTS`, or a plain template with ``{question}``; empty for the model's
    chat template."""
    system: str = ""
    """The system message of the chat template."""
    examples: tuple[Example, ...] = ()
    """Solved problems to show before the question."""

    @property
    def called(self) -> str:
        """The name, or the last part of the path."""
        return self.name or Path(self.path).name

    def __post_init__(self) -> None:
        known = ("float32", "bfloat16", "float16")
        if self.dtype not in known:
            raise ConfigError(f"dtype must be one of {', '.join(known)}, got {self.dtype!r}")
        _ = self.question_prompt

    @property
    def question_prompt(self) -> Prompt:
        """How a question is put to the model."""
        return prompt_of(self.prompt, system=self.system, examples=self.examples)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairConfig:
    """A draft and a target, with the scorers that some policies need."""

    name: str
    draft: ModelConfig
    target: ModelConfig
    prm: ModelConfig | None = None
    router: ModelConfig | None = None
    routers: Mapping[str, ModelConfig] = field(default_factory=dict)
    """Further routers to compare with it, by name."""

    def model(self, role: str) -> ModelConfig | None:
        """The model of a role: a table's name, or ``router:NAME`` for a further router."""
        kind, _, name = role.partition(":")
        found: ModelConfig | None = self.routers.get(name) if name else getattr(self, kind)
        return found


def read_pair(path: Path) -> PairConfig:
    """Read a pair from a TOML file with the tables draft, target, prm, router and routers.NAME.

    Raises:
        ConfigError: If the file is missing or not TOML, or a key is unknown, missing or of the wrong type.
    """
    if not path.is_file():
        raise ConfigError(f"no configuration file at {str(path)!r}", hint="name a TOML file, or use the pair 'tiny'")
    try:
        record = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    place = str(path)
    models = {key: value for key, value in record.items() if isinstance(value, dict)}
    routers = _models(models.pop("routers", {}), path, "routers.")
    return _parse(PairConfig, {"name": path.stem, **record, **_models(models, path), "routers": routers}, place)


def _models(tables: Mapping[str, Any], path: Path, prefix: str = "") -> dict[str, ModelConfig]:
    for key, value in tables.items():
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: {prefix}{key} must be a table, got {value!r}", hint=f"write [{prefix}{key}]")
    return {key: _model(value, path.parent, f"{path} [{prefix}{key}]") for key, value in tables.items()}


def _model(record: Mapping[str, Any], folder: Path, place: str) -> ModelConfig:
    shown = record.get("examples", [])
    if not isinstance(shown, list) or not all(isinstance(example, dict) for example in shown):
        raise ConfigError(f"{place}: examples must be tables with a question and a solution, got {shown!r}")
    examples = tuple(_parse(Example, example, f"{place}, an example") for example in shown)
    return _parse(ModelConfig, {**_located(record, folder), "examples": examples}, place)


def _located(record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    local = folder / str(record.get("path", ""))
    return {**record, "path": str(local)} if "path" in record and local.exists() else dict(record)


def _parse(kind: type[T], record: Mapping[str, Any], place: str) -> T:
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in record:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise ConfigError(f"{place}: unknown key {key!r}", hint=f"did you mean {near[0]!r}?" if near else "")
    try:
        return kind(**record)
    except TypeError as error:
        required = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}  # type: ignore[arg-type]
        raise ConfigError(f"{place}: missing {', '.join(sorted(required - set(record)))}") from error
