"""A pair's configuration file: TOML, checked, with suggestions for misspelt keys."""

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Final

from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Source
from arbitrage.engines.prompt import Example
from arbitrage.pairs.addresses import FILE
from arbitrage.pairs.engines import ENGINES, default_engine, servers
from arbitrage.pairs.model import ModelConfig, check_at_least, check_choice
from arbitrage.pairs.parsing import check_keys, parse, strings, table
from arbitrage.pairs.roles import KINDS, Role
from arbitrage.policies.spec import MethodSpec

MARKS: Final[Mapping[str, str]] = {"draft": "Model 0: ", "target": "Model 1: "}
"""The paper's history annotation."""
RENAMED: Final[Mapping[str, str]] = {"serve": "server_args", "env": "server_env"}
"""Options of models that earlier versions called otherwise, with their names of today."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayOptions:
    """The actors of a pair on a Ray cluster.

    Raises:
        ConfigError: If a number is out of range.
    """

    actors: int | None = None
    """Their number; None for as many as fit into the cluster."""
    num_cpus: float = 1.0
    """CPUs that Ray reserves for each."""
    num_gpus: float = 0.0

    def __post_init__(self) -> None:
        check_at_least(1, actors=self.actors)
        for name, number in self.resources.items():
            if number < 0.0:
                raise ConfigError(f"num_{name.lower()}s must be at least 0, got {number:g}")

    @property
    def resources(self) -> dict[str, float]:
        """What an actor needs, by Ray's names."""
        return {"CPU": self.num_cpus, "GPU": self.num_gpus}


@dataclass(frozen=True, slots=True, kw_only=True)
class PairConfig:
    """A draft and a target, with the scorers that some policies need.

    Raises:
        ConfigError: If a model has an option of another role, a further router has no name, ``launch`` names an
            unknown kind of server, or ``marks`` lack an author.
    """

    name: str
    draft: ModelConfig
    target: ModelConfig
    prm: ModelConfig | None = None
    router: ModelConfig | None = None
    routers: Mapping[str, ModelConfig] = field(default_factory=dict)
    """Further routers to compare with it, by name."""
    marks: Mapping[str, str] = field(default_factory=lambda: MARKS)
    """History annotation: the words before each step that a new router of this pair reads, by the step's author; empty
    for none."""
    launch: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The command by which ``arbitrage up`` starts a kind of server, where it is not the usual one."""
    ray: RayOptions = field(default_factory=RayOptions)
    """Used with ``--ray``."""
    default_method: str = ""
    """The method that is used if none is named, such as ``router+speculative``. If it is left out, it is ``router`` for
    a pair with a router, and ``confidence`` for others, since that needs no trained model."""

    def __post_init__(self) -> None:
        if not self.default_method:
            object.__setattr__(self, "default_method", "router" if self.router else "confidence")
        default = _parsed(self.default_method)
        if default.is_router and default.router_role not in self.models:
            raise ConfigError(
                f"default_method {self.default_method!r} needs a router that the pair does not have",
                hint=f"add a table [{Role.parse(default.router_role).table}]",
            )
        for name in self.launch:
            if name not in servers():
                raise ConfigError(f"[launch] unknown server {name!r}", hint=f"choose from {', '.join(servers())}")
        if "" in self.routers:
            raise ConfigError("a further router needs a name, got ''", hint="write [routers.NAME]")
        for name in self.routers:
            if MethodSpec.recorded(f"router:{name}").router != name:
                raise ConfigError(f"a router's name must hold no +, @ or comma, got {name!r}", hint="rename its table")
        for role, model in self.models.items():
            _check_role(Role.parse(role), model)
        if self.marks and set(self.marks) != set(Source):
            raise ConfigError(f"marks need the keys draft and target, got {', '.join(self.marks)}")

    @property
    def models(self) -> dict[str, ModelConfig]:
        """Every model by the name of its role, see :class:`Role`."""
        roles = [*map(Role, KINDS), *(Role("router", name) for name in self.routers)]
        return {str(role): model for role in roles if (model := self._model_of(role))}

    def model(self, role: str) -> ModelConfig | None:
        """The model of a role; None where the pair has none.

        Args:
            role: ``draft``, ``target``, ``prm``, ``router``, or ``router:NAME`` for a further router.

        Raises:
            ConfigError: If this is no role.
        """
        return self._model_of(Role.parse(role))

    def _model_of(self, role: Role) -> ModelConfig | None:
        model: ModelConfig | None = self.routers.get(role.name) if role.name else getattr(self, role.kind)
        return model


def _parsed(method: str) -> MethodSpec:
    try:
        return MethodSpec.parse(method)
    except ConfigError as error:
        raise ConfigError(f"default_method: {error.args[0]}", hint=error.hint) from error


def _check_role(role: Role, model: ModelConfig) -> None:
    if model.format and role.kind != "prm":
        raise ConfigError(f"a format is for the table [prm], got {model.format!r} in [{role.table}]")
    for name, value in model.chosen(*model.writer_fields).items():
        if role.is_scorer:
            raise ConfigError(f"{name} is for draft and target, got {value!r} in [{role.table}]", hint="leave it out")


def read_pair(path: Path, *, is_shipped: bool = False) -> PairConfig:
    """Read a pair from a TOML file with the tables draft, target, prm, router and routers.NAME.

    Args:
        path: The file.
        is_shipped: Whether it ships with the package. All its paths are then relative to it, and ``..`` is resolved:
            run keys hold the paths, and must not depend on where in the package the file is.

    Raises:
        ConfigError: If the file is missing or not TOML, or a key is unknown, missing or of the wrong type.
    """
    try:
        record = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {str(path)!r}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    check_keys(record, [spec.name for spec in fields(PairConfig)], str(path))
    located = partial(_located, path.parent, is_shipped=is_shipped)
    models: dict[str, ModelConfig] = {key: _model(record[key], key, path, located) for key in KINDS if key in record}
    routers = table(record.get("routers", {}), f"{path}: routers")
    launch = table(record.get("launch", {}), f"{path}: launch")
    values: dict[str, Any] = {
        "name": path.stem,
        **record,
        **models,
        "routers": {name: _model(value, Role("router", name).table, path, located) for name, value in routers.items()},
        "ray": parse(RayOptions, table(record.get("ray", {}), f"{path}: ray"), f"{path} [ray]"),
        "launch": {name: strings(words, f"{path} [launch] {name}") for name, words in launch.items()},
    }
    return parse(PairConfig, values, str(path))


def _model(value: Any, key: str, path: Path, located: Callable[[str], str]) -> ModelConfig:
    """One model from its table.

    Args:
        value: The table.
        key: Its name in the file.
        path: The file.
        located: Makes a path that is relative to the file one that can be opened.
    """
    record, where = dict(table(value, f"{path}: {key}", hint=f"write [{key}]")), f"{path} [{key}]"
    engine = record.pop("engine", None) or default_engine(str(record.get("path", "")))
    schema = _schema(engine, record, where)
    paths = {name: record.get(name) for name in schema.path_fields}
    record |= {name: located(value) for name, value in paths.items() if value and isinstance(value, str)}
    if isinstance(url := record.get("url"), str) and url.startswith(FILE):
        record["url"] = FILE + located(url.removeprefix(FILE))
    if "examples" in record:
        record["examples"] = _examples(record["examples"], where)
    return parse(schema, record, where)


def _schema(engine: Any, record: Mapping[str, Any], where: str) -> type[ModelConfig]:
    """The schema of a model's table on this engine; an option of another engine is an error that names its engines."""
    if not isinstance(engine, str):
        raise ConfigError(f"{where}: engine must be a string, got {engine!r}")
    check_choice(f"{where}: engine", engine, list(ENGINES))
    schema = ENGINES[engine]
    for key in [key for key in record if key not in _options(schema)]:
        if key in RENAMED:
            raise ConfigError(f"{where}: {key!r} is now called {RENAMED[key]!r}", hint="rename the key")
        if key == "default_method":
            raise ConfigError(f"{where}: {key!r} belongs to the pair", hint="write it before the first table")
        if owners := [name for name, other in ENGINES.items() if key in _options(other)]:
            raise ConfigError(
                f"{where}: engine {engine!r} takes no {key}, got {record[key]!r}",
                hint=f"{key} is an option of {', '.join(owners)}",
            )
    return schema


def _options(schema: type[ModelConfig]) -> set[str]:
    return {spec.name for spec in fields(schema)}


def _examples(value: Any, where: str) -> tuple[Example, ...]:
    if not isinstance(value, list) or not all(isinstance(example, dict) for example in value):
        raise ConfigError(f"{where}: examples must be tables with a question and a solution, got {value!r}")
    return tuple(parse(Example, example, f"{where}, an example") for example in value)


def _located(folder: Path, name: str, *, is_shipped: bool) -> str:
    """A name in a file of this folder as a path; a name on the hub, or a path from here, stays as it is."""
    if is_shipped:
        return os.path.normpath(folder / name)
    return str(local) if (local := folder / name).exists() else name
