"""One model of a pair: the options that every engine has, and the base class of the engines' schemas."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from arbitrage.core.errors import ConfigError
from arbitrage.core.ports import Engine
from arbitrage.engines.gguf_files import SUFFIX, is_gguf
from arbitrage.engines.prompt import Example, Prompt, prompt_of
from arbitrage.pairs.hub import HubFile, is_hub_name, local_path
from arbitrage.policies.table import Need
from arbitrage.scorers.families import FAMILIES, Family

if TYPE_CHECKING:
    from arbitrage.scorers.hf import HFScorer
    from arbitrage.scorers.hf_families import FamilyScorer
    from arbitrage.scorers.http import HTTPScorer

DTYPES: Final = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig(ABC):
    """One model of a pair, with the options that do not depend on its engine.

    The schema of an engine is a frozen dataclass that derives from this one: its fields are the engine's own options,
    its methods load models. A row in :data:`arbitrage.pairs.engines.ENGINES` makes it known to configuration files.

    Raises:
        ConfigError: If format or prompt is unknown, or both are given, or a name on the hub has a wrong form.
    """

    engine: ClassVar[str]
    """What runs the model, as configuration files call it."""
    path_fields: ClassVar[tuple[str, ...]] = ("path",)
    """Fields that may name a file or a folder, relative to the configuration file."""
    writer_fields: ClassVar[tuple[str, ...]] = ()
    """Fields for draft and target only, None where they are not set: a scorer does not use them."""
    address_fields: ClassVar[tuple[str, ...]] = ()
    """Fields with the address of a model, which do not change its output."""
    lacks: ClassVar[frozenset[Need]] = frozenset()
    """What methods may need of a draft or a target and this engine does not return."""

    path: str
    """A checkpoint folder or a GGUF file, relative to the configuration file, or a name on the hub: ``OWNER/NAME`` of a
    checkpoint, ``hub:OWNER/NAME/FILE.gguf`` of a GGUF file."""
    name: str = ""
    """The model's name in traces and messages; empty for the last part of the path."""
    prompt: str = ""
    """A key of :data:`arbitrage.engines.prompt.PROMPTS`, or a plain template with ``{question}``; empty for the model's
    chat template."""
    system: str = ""
    """The system message of the chat template."""
    examples: tuple[Example, ...] = ()
    """Solved problems to show before the question."""
    format: str = ""
    """Of a PRM: the family whose layout it reads, a key of :data:`FAMILIES`; empty if the checkpoint's
    ``arbitrage.json`` describes the input."""

    def __post_init__(self) -> None:
        if is_hub_name(self.path):
            HubFile.parse(self.path)
        check_choice("format", self.format, ("", *FAMILIES))
        _ = self.question_prompt
        if self.format and self.has_prompt:
            raise ConfigError(
                f"the format {self.format!r} has a prompt of its own, got prompt, system or examples too",
                hint="leave one out",
            )

    @property
    def display_name(self) -> str:
        """The name, or the last part of the path, a GGUF file's without its ending."""
        file = Path(self.path).name
        return self.name or (file[: -len(SUFFIX)] if is_gguf(file) else file)

    @property
    def local_path(self) -> str:
        """The path, or where the GGUF file of the hub is that it names; downloads the file where it is missing.

        Raises:
            CheckpointError: See :meth:`arbitrage.pairs.hub.HubFile.local`.
            MissingExtra: Likewise.
        """
        return local_path(self.path)

    @property
    def has_prompt(self) -> bool:
        """Whether the configuration sets a prompt, a system message or examples."""
        return bool(self.prompt or self.system or self.examples)

    @property
    def question_prompt(self) -> Prompt:
        """The prompt into which a question is put."""
        return prompt_of(self.prompt, system=self.system, examples=self.examples)

    @property
    def identity(self) -> dict[str, Any]:
        """The engine and all options that change what the model writes, defaults left out; a part of run keys."""
        values, kept = asdict(self), [f for f in fields(self) if f.name not in self.address_fields]
        changed = {f.name: values[f.name] for f in kept if values[f.name] != _default(f)}
        return {"path": self.path, **({"name": self.name} if self.name else {}), "engine": self.engine, **changed}

    def chosen(self, *names: str) -> dict[str, Any]:
        """Those of the named options that are not None, as keyword arguments: the engine chooses the others."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @abstractmethod
    def load_engine(self, *, keeps_hidden_state: bool = False) -> Engine:
        """Load it as a language model, or connect to its server.

        Args:
            keeps_hidden_state: Whether its steps carry their last hidden state, where the engine can read it.

        Raises:
            CheckpointError: If it is missing or broken.
            EngineError: If its server does not answer.
            ConfigError: If an option cannot be used, or its server serves another model.
        """

    def load_classifier(self, kind: str, name: str) -> "HFScorer | HTTPScorer":
        """Load it as a classifier that carries its input format.

        Args:
            kind: ``prm`` or ``router``; must be the checkpoint's kind.
            name: How policies and traces call it.

        Raises:
            ConfigError: If the engine runs no classifiers, or its server serves another model.
            CheckpointError: If it is missing, broken or of the other kind.
            EngineError: If its server does not answer.
        """
        raise self._runs_no(kind)

    def load_family(self, family: Family, name: str) -> "FamilyScorer | HTTPScorer":
        """Load it as a PRM of a known family.

        Args:
            family: How it reads a solution.
            name: How policies and traces call it.

        Raises:
            ConfigError: If the engine runs no PRMs of this family, or its server serves another model.
            CheckpointError: If it is missing, broken or of another family.
            EngineError: If its server does not answer.
        """
        raise self._runs_no("prm")

    def _runs_no(self, kind: str) -> ConfigError:
        return ConfigError(
            f"a {kind} runs on the engine hf, vllm or sglang, got {self.engine!r}", hint="set engine in its table"
        )


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is not among the choices.

    Raises:
        ConfigError: With all choices, and the nearest one as a suggestion.
    """
    if value not in choices:
        near = difflib.get_close_matches(value, choices, n=1)
        raise ConfigError(
            f"{name} must be one of {', '.join(filter(None, choices))}, got {value!r}",
            hint=f"did you mean {near[0]!r}?" if near else "",
        )


def check_at_least(least: int, **values: int | None) -> None:
    """Refuse numbers that are too small; None is not set.

    Raises:
        ConfigError: With the field, its least value and the one that was given.
    """
    for name, value in values.items():
        if value is not None and value < least:
            raise ConfigError(f"{name} must be at least {least}, got {value}", hint="leave it out for the default")


def _default(spec: "Field[Any]") -> Any:
    return spec.default if spec.default_factory is MISSING else spec.default_factory()
