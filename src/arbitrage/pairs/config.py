"""A pair's configuration file: TOML, checked, with suggestions for misspelt keys."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, TypeVar, get_type_hints

from arbitrage.core.errors import ConfigError
from arbitrage.engines.prompt import Example, Prompt, prompt_of
from arbitrage.pairs.roles import KINDS, Role
from arbitrage.scorers.families import FAMILIES

T = TypeVar("T")
DTYPES: Final = ("float32", "bfloat16", "float16")
SERVERS: Final = ("vllm", "sglang", "llama-server")
ENGINES: Final = ("hf", "llamacpp", *SERVERS)
_REACHED: Final = ("url", "served_name", "timeout_s", "api_key_env", "serve", "env")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One model of a pair.

    Raises:
        ConfigError: If data type, engine, format or prompt is unknown, the url does not fit the engine, or a format
            comes with a prompt of its own.
    """

    path: str
    """A checkpoint folder, relative to the configuration file, a hub name, or a GGUF file."""
    name: str = ""
    engine: str = ""
    """Who runs it, from :data:`ENGINES`: transformers or llama.cpp in process, or the kind of server that listens at
    ``url``; llamacpp for a GGUF file and hf for others, where it is not said."""
    device: str = "cpu"
    dtype: str = "float32"
    """Of weights and cache; of the cache alone in a GGUF file, which says its weights' own."""
    sequences: int = 4
    """How many solutions llamacpp keeps in its cache at once; each takes the memory of a whole context."""
    prompt: str = ""
    """A key of :data:`arbitrage.engines.prompt.PROMPTS`, or a plain template with ``{question}``; empty for the model's
    chat template."""
    system: str = ""
    """The system message of the chat template."""
    examples: tuple[Example, ...] = ()
    """Solved problems to show before the question."""
    tokenizer: str = ""
    """Folder or hub name of the tokenizer where ``path`` has none, such as a GGUF file's; of a served model only."""
    url: str = ""
    """Where the server listens, such as ``http://127.0.0.1:8101``."""
    served_name: str = ""
    """The id that the server knows the model by; empty for its only one, and for ``path`` where we start it."""
    context_length: int | None = None
    """Tokens of prompt and answer, to use less than a server offers or where it does not say; for llamacpp what the
    cache is made for, by default the model's own, at most 4,096."""
    timeout_s: float = 120.0
    api_key_env: str = ""
    """Environment variable that holds the server's API key."""
    serve: tuple[str, ...] = ()
    """Further flags for the server where ``arbitrage up`` starts it."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables for that server, such as ``CUDA_VISIBLE_DEVICES``."""
    format: str = ""
    """Of a PRM: the family whose layout it reads, a key of :data:`FAMILIES`; empty where the checkpoint says it."""

    @property
    def called(self) -> str:
        """The name, or the last part of the path, a GGUF file's without its ending."""
        return self.name or Path(self.path).name.removesuffix(".gguf")

    def __post_init__(self) -> None:
        if not self.engine:
            object.__setattr__(self, "engine", "llamacpp" if self.path.endswith(".gguf") else "hf")
        for name, known in (("dtype", DTYPES), ("engine", ENGINES), ("format", ("", *FAMILIES))):
            if (value := getattr(self, name)) not in known:
                near = difflib.get_close_matches(str(value), known, n=1)
                raise ConfigError(
                    f"{name} must be one of {', '.join(filter(None, known))}, got {value!r}",
                    hint=f"did you mean {near[0]!r}?" if near else "",
                )
        if bool(self.url) is not self.is_served:
            raise ConfigError(
                f"engine {self.engine!r} {'needs' if self.is_served else 'takes no'} url, got {self.url!r}",
                hint=f"engines that are servers: {', '.join(SERVERS)}",
            )
        _ = self.question_prompt
        if self.format and (self.prompt or self.system or self.examples):
            raise ConfigError(
                f"the format {self.format!r} puts the question in its own way, got a prompt or a system message too",
                hint="leave one out",
            )

    @property
    def is_served(self) -> bool:
        """Whether a server runs the model."""
        return self.engine in SERVERS

    @property
    def identity(self) -> dict[str, Any]:
        """What of this changes what the model writes; where it is reached does not."""
        defaults = {f.name: f.default for f in fields(self)}
        return {name: v for name, v in asdict(self).items() if name not in _REACHED and v != defaults[name]}

    @property
    def question_prompt(self) -> Prompt:
        """How a question is put to the model."""
        return prompt_of(self.prompt, system=self.system, examples=self.examples)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairConfig:
    """A draft and a target, with the scorers that some policies need.

    Raises:
        ConfigError: If another model than the PRM has a format, a further router has no name, or ``launch`` names an
            unknown kind of server.
    """

    name: str
    draft: ModelConfig
    target: ModelConfig
    prm: ModelConfig | None = None
    router: ModelConfig | None = None
    routers: Mapping[str, ModelConfig] = field(default_factory=dict)
    """Further routers to compare with it, by name."""
    launch: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What ``arbitrage up`` starts a kind of server with, where it is not the kind's usual command."""

    def __post_init__(self) -> None:
        for name in self.launch:
            if name not in SERVERS:
                raise ConfigError(f"[launch] unknown server {name!r}", hint=f"choose from {', '.join(SERVERS)}")
        if "" in self.routers:
            raise ConfigError("a further router needs a name, got ''", hint="write [routers.NAME]")
        for role, model in self.models.items():
            if model.format and role != "prm":
                raise ConfigError(
                    f"a format is for the table [prm], got {model.format!r} in [{Role.parse(role).table}]"
                )

    @property
    def models(self) -> dict[str, ModelConfig]:
        """Every model by the name of its role, see :class:`Role`."""
        roles = [*map(Role, KINDS), *(Role("router", name) for name in self.routers)]
        return {str(role): model for role in roles if (model := self._of(role))}

    def model(self, role: str) -> ModelConfig | None:
        """The model of a role; None where the pair has none.

        Args:
            role: ``draft``, ``target``, ``prm``, ``router``, or ``router:NAME`` for a further router.

        Raises:
            ConfigError: If this is no role.
        """
        return self._of(Role.parse(role))

    def _of(self, role: Role) -> ModelConfig | None:
        model: ModelConfig | None = self.routers.get(role.name) if role.name else getattr(self, role.kind)
        return model


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
    for key in ("routers", "launch"):
        if not isinstance(record.get(key, {}), dict):
            raise ConfigError(f"{path}: {key} must be a table, got {record[key]!r}")
    models = {key: value for key, value in record.items() if isinstance(value, dict)}
    routers = _models(models.pop("routers", {}), path, "routers.")
    launch = {key: _words(value, f"{path} [launch] {key}") for key, value in models.pop("launch", {}).items()}
    tables = {**_models(models, path), "routers": routers, "launch": launch}
    return _parse(PairConfig, {"name": path.stem, **record, **tables}, place)


def _models(tables: Mapping[str, Any], path: Path, prefix: str = "") -> dict[str, ModelConfig]:
    for key, value in tables.items():
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: {prefix}{key} must be a table, got {value!r}", hint=f"write [{prefix}{key}]")
    return {key: _model(value, path.parent, f"{path} [{prefix}{key}]") for key, value in tables.items()}


def _model(record: Mapping[str, Any], folder: Path, place: str) -> ModelConfig:
    found, shown = _located(record, folder), record.get("examples", [])
    if not isinstance(shown, list) or not all(isinstance(example, dict) for example in shown):
        raise ConfigError(f"{place}: examples must be tables with a question and a solution, got {shown!r}")
    found["examples"] = tuple(_parse(Example, example, f"{place}, an example") for example in shown)
    if "serve" in found:
        found["serve"] = _words(found["serve"], f"{place} serve")
    env = found.get("env", {})
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        raise ConfigError(f"{place}: env must be a table of strings, got {env!r}", hint="put numbers in quotes")
    return _parse(ModelConfig, found, place)


def _located(record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Paths as they are from here, where they are of this file's folder and not names on the hub."""
    paths = {key: folder / str(record[key]) for key in ("path", "tokenizer") if record.get(key)}
    return {**record, **{key: str(local) for key, local in paths.items() if local.exists()}}


def _words(value: Any, place: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ConfigError(f"{place} must be a list of strings, got {value!r}")
    return tuple(value)


_WANTED: Final[Mapping[Any, tuple[Any, str]]] = {
    str: (str, "a string"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    int | None: (int, "a whole number"),
    ModelConfig: (ModelConfig, "a table"),
    ModelConfig | None: (ModelConfig, "a table"),
}
"""What a value must be, and how that is said, by the type of its field; others are checked where they are read."""


def _parse(kind: type[T], record: Mapping[str, Any], place: str) -> T:
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    types = get_type_hints(kind)
    for key, value in record.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise ConfigError(f"{place}: unknown key {key!r}", hint=f"did you mean {near[0]!r}?" if near else "")
        wanted, words = _WANTED.get(types[key], (object, ""))
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ConfigError(f"{place}: {key} must be {words or 'of another kind'}, got {value!r}")
    required = {name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    if missing := sorted(required - set(record)):
        raise ConfigError(f"{place}: missing {', '.join(missing)}")
    try:
        return kind(**record)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error.args[0]}", hint=error.hint) from error
