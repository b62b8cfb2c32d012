"""A pair's configuration file: TOML, checked, with suggestions for misspelt keys."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, TypeVar

from arbitrage.core.errors import ConfigError

T = TypeVar("T")
ENGINES: Final = ("hf", "llamacpp")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One model of a pair.

    Raises:
        ConfigError: If the engine or the data type is unknown.
    """

    path: str
    """A checkpoint folder, relative to the configuration file, a hub name, or a GGUF file."""
    name: str = ""
    engine: str = ""
    """Who runs it, from :data:`ENGINES`; llamacpp for a GGUF file, hf for others."""
    device: str = "cpu"
    dtype: str = "float32"
    """Of weights and cache; of the cache alone in a GGUF file, which says its weights' own."""
    context: int = 0
    """Tokens that a sequence may have, for llamacpp; 0 for the model's own, at most 4,096."""
    sequences: int = 4
    """How many solutions llamacpp keeps in its cache at once; each takes the memory of a whole context."""
    prompt: str = ""
    """A plain template with ``{question}``; empty for the model's chat template."""
    system: str = ""
    """The system message of the chat template."""

    @property
    def called(self) -> str:
        """The name, or the last part of the path."""
        return self.name or Path(self.path).name

    def __post_init__(self) -> None:
        known = ("float32", "bfloat16", "float16")
        if self.dtype not in known:
            raise ConfigError(f"dtype must be one of {', '.join(known)}, got {self.dtype!r}")
        if not self.engine:
            object.__setattr__(self, "engine", "llamacpp" if self.path.endswith(".gguf") else "hf")
        if self.engine not in ENGINES:
            raise ConfigError(f"engine must be one of {', '.join(ENGINES)}, got {self.engine!r}")


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
    return {
        key: _parse(ModelConfig, _located(value, path.parent), f"{path} [{prefix}{key}]")
        for key, value in tables.items()
    }


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
        required = ", ".join(sorted(set(known[: 3 if kind is PairConfig else 1]) - set(record)))
        raise ConfigError(f"{place}: missing {required}") from error
