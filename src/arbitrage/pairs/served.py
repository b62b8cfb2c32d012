"""Models behind a server: how they are reached, and how ``arbitrage up`` starts their server."""

import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from arbitrage.core.errors import ConfigError
from arbitrage.core.ports import Engine
from arbitrage.engines.dialects import DIALECTS, Dialect
from arbitrage.pairs.addresses import addresses
from arbitrage.pairs.hub import is_hub_name
from arbitrage.pairs.model import DTYPES, ModelConfig, check_at_least, check_choice
from arbitrage.policies.table import Need
from arbitrage.scorers.families import Family
from arbitrage.scorers.format import InputFormat

if TYPE_CHECKING:
    from arbitrage.engines.connections import Client
    from arbitrage.scorers.http import HTTPScorer, Layout

UNSERVED: Final = ("qwen-prm",)
"""PRM families that no server runs: their head has two layers, servers read one at the last token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel(ModelConfig):
    """A model behind a server; each kind of server derives from this.

    Raises:
        ConfigError: See :class:`ModelConfig`; also if the url is missing, or a number is too small.
    """

    path_fields: ClassVar[tuple[str, ...]] = ("path", "tokenizer")
    address_fields: ClassVar[tuple[str, ...]] = (
        "url",
        "replicas",
        "served_name",
        "timeout_s",
        "api_key_env",
        "server_args",
        "server_env",
    )
    lacks: ClassVar[frozenset[Need]] = frozenset({Need.FIRST_ENTROPY, Need.HIDDEN_STATE})
    command: ClassVar[tuple[str, ...]]
    """What starts a server of this kind; the table ``[launch]`` of a pair may name another command."""

    url: str | tuple[str, ...] = ""
    """Where the server listens, such as ``http://127.0.0.1:8101``; several addresses, or a text that
    :func:`arbitrage.pairs.addresses.addresses` reads, where several serve this model."""
    replicas: int = 1
    """Servers of this model at the ports from that of the url on."""
    served_name: str = ""
    """The model's id on the server; empty for the server's only model. ``arbitrage up`` then serves it as
    ``display_name``."""
    tokenizer: str = ""
    """Folder, GGUF file or hub name of the tokenizer where ``path`` has none that is read here."""
    context_length: int | None = None
    """Tokens of prompt and answer, to use less than the server offers, or if the server does not report it."""
    timeout_s: float = 120.0
    """Seconds to wait for one step."""
    api_key_env: str = ""
    """Environment variable that holds the server's API key."""
    server_args: tuple[str, ...] = ()
    """Further flags for the server where ``arbitrage up`` starts it."""
    server_env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables for that server, such as ``CUDA_VISIBLE_DEVICES``."""

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        if is_hub_name(self.path):
            raise ConfigError(
                f"engine {self.engine!r} takes no file of the hub, got path = {self.path!r}",
                hint="name a local file, or OWNER/NAME where the server downloads by itself",
            )
        if not self.url:
            raise ConfigError(
                f"engine {self.engine!r} needs url, got ''", hint="give the server's address: http://HOST:PORT"
            )
        check_at_least(1, context_length=self.context_length, replicas=self.replicas)
        if self.replicas > 1:
            addresses(self.url, self.replicas)
        if not self.timeout_s > 0.0:
            raise ConfigError(f"timeout_s must be above 0, got {self.timeout_s:g}")

    @property
    def dialect(self) -> Dialect:
        """The formats of the server's requests and answers."""
        return DIALECTS[self.engine]

    @abstractmethod
    def flags(self, host: str, port: int, *, classifies: bool) -> list[str]:
        """The arguments behind :attr:`command` that serve this model with all that the loop needs.

        Args:
            host: Where the server listens.
            port: Likewise.
            classifies: Whether the model's head gives scores; else it writes tokens.

        Raises:
            ConfigError: If this kind of server cannot serve such a model.
        """

    def load_engine(self, *, keeps_hidden_state: bool = False) -> Engine:
        """See :meth:`ModelConfig.load_engine`; no server returns hidden states."""
        from arbitrage.engines.http import HTTPEngine

        return HTTPEngine.connect(
            self._client(),
            self.dialect,
            self._tokenizer(),
            name=self.display_name,
            model=self.served_name,
            known_as=(self.display_name, self.path),
            prompt=self.question_prompt,
            context_length=self.context_length,
        )

    def load_classifier(self, kind: str, name: str) -> "HTTPScorer":
        """See :meth:`ModelConfig.load_classifier`."""
        from arbitrage.scorers.http import FormatLayout

        input_format = InputFormat.load(Path(self.path), kind)  # Before a tokenizer is looked for, perhaps on the hub.
        prompt = self.question_prompt if self.has_prompt else None  # None: the checkpoint's own prompt.
        return self._scorer(name, FormatLayout(self._tokenizer(), input_format, prompt))

    def load_family(self, family: Family, name: str) -> "HTTPScorer":
        """See :meth:`ModelConfig.load_family`."""
        if family.name in UNSERVED:
            raise ConfigError(
                f"a PRM of the format {family.name!r} cannot run behind a server", hint="run it in process"
            )
        from arbitrage.scorers.http import FamilyLayout

        return self._scorer(name, FamilyLayout(self._tokenizer(), family))

    def _scorer(self, name: str, layout: "Layout") -> "HTTPScorer":
        from arbitrage.engines.http import served_model
        from arbitrage.scorers.http import HTTPScorer

        client = self._client()
        replicas = [self.dialect.served(answer) for answer in client.get_all(self.dialect.models_path)]
        model = served_model(replicas, self.served_name, client.url, (self.display_name, self.path))
        return HTTPScorer(client, self.dialect, layout, name=name, model=model)

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses of all servers of this model.

        Raises:
            ConfigError: See :func:`arbitrage.pairs.addresses.addresses`.
        """
        return addresses(self.url, self.replicas)

    def _client(self) -> "Client":
        from arbitrage.engines.http_client import HTTPClient, HTTPOptions
        from arbitrage.engines.replicas import Replicas

        options = HTTPOptions(timeout_s=self.timeout_s, api_key_env=self.api_key_env)
        clients = [HTTPClient(url, options) for url in self.urls]
        return clients[0] if len(clients) == 1 else Replicas(clients, self.dialect.models_path)

    def _tokenizer(self) -> Any:
        from arbitrage.engines.tokens import load_tokenizer

        return load_tokenizer(self.tokenizer or self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedCheckpoint(ServedModel):
    """A checkpoint of transformers behind a server.

    Raises:
        ConfigError: See :class:`ServedModel`; also if the data type is unknown.
    """

    dtype: str = "float32"
    """Of weights and cache where ``arbitrage up`` starts the server, from :data:`arbitrage.pairs.model.DTYPES`."""

    def __post_init__(self) -> None:
        ServedModel.__post_init__(self)
        check_choice("dtype", self.dtype, DTYPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class VLLMModel(ServedCheckpoint):
    """A checkpoint behind vLLM."""

    engine: ClassVar[str] = "vllm"
    command: ClassVar[tuple[str, ...]] = ("vllm", "serve")

    def flags(self, host: str, port: int, *, classifies: bool) -> list[str]:
        """See :meth:`ServedModel.flags`."""
        flags = ["--model", self.path, "--served-model-name", self.served_name or self.display_name]
        flags += ["--host", host, "--port", str(port), "--dtype", self.dtype, "--enable-prefix-caching"]
        flags += _if_set("--max-model-len", self.context_length)
        if not classifies:
            return [*flags, "--enable-prompt-tokens-details"]
        # The last token's head only: this task reads the prefix cache, the token-wise one does not.
        return [*flags, "--runner", "pooling", "--pooler-config", json.dumps({"task": "classify"})]


@dataclass(frozen=True, slots=True, kw_only=True)
class SGLangModel(ServedCheckpoint):
    """A checkpoint behind SGLang."""

    engine: ClassVar[str] = "sglang"
    command: ClassVar[tuple[str, ...]] = ("python", "-m", "sglang.launch_server")

    def flags(self, host: str, port: int, *, classifies: bool) -> list[str]:
        """See :meth:`ServedModel.flags`."""
        flags = ["--model-path", self.path, "--served-model-name", self.served_name or self.display_name]
        flags += ["--host", host, "--port", str(port), "--dtype", self.dtype]
        return flags + _if_set("--context-length", self.context_length)


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaServerModel(ServedModel):
    """A GGUF file behind llama.cpp's server, which determines the weights' data type."""

    engine: ClassVar[str] = "llama-server"
    # The server leaves out the probabilities of a stop word's tokens, so most steps have none.
    lacks: ClassVar[frozenset[Need]] = ServedModel.lacks | {Need.LOGPROBS, Need.LIKELIHOOD}
    command: ClassVar[tuple[str, ...]] = ("llama-server",)

    def flags(self, host: str, port: int, *, classifies: bool) -> list[str]:
        """See :meth:`ServedModel.flags`."""
        if classifies:
            raise ConfigError("llama-server does not serve classifiers", hint="use vllm, or run it in process")
        flags = ["-m", self.path, "--alias", self.served_name or self.display_name, "--host", host, "--port", str(port)]
        return flags + _if_set("-c", self.context_length)


def _if_set(flag: str, value: object) -> list[str]:
    return [flag, str(value)] if value else []
