"""How the servers of a pair are started: the flags that step-level speculation needs, by kind of server."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from arbitrage.core.errors import ConfigError, EngineError
from arbitrage.engines.dialects import DIALECTS
from arbitrage.pairs.config import ModelConfig, PairConfig
from arbitrage.pairs.roles import Role
from arbitrage.runtime.servers import Server
from arbitrage.scorers.families import FAMILIES, Head

COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "vllm": ("vllm", "serve"),
    "sglang": ("python", "-m", "sglang.launch_server"),
    "llama-server": ("llama-server",),
}
"""What starts each kind of server; the table ``[launch]`` of a pair may say otherwise."""


def servers(config: PairConfig) -> list[Server]:
    """The servers that a pair names, one for each address.

    Raises:
        ConfigError: If it names none, an address has no port, or two models want the same one.
    """
    found: dict[str, tuple[ModelConfig, Server]] = {}
    for role, model in config.models.items():
        if not model.is_served:
            continue
        known = found.get(model.url)
        if known and known[0].path != model.path:
            raise ConfigError(f"{known[1].role} and {role} share {model.url} but are different models")
        if not known:
            found[model.url] = (model, server_for(role, model, config.launch))
    if not found:
        raise ConfigError(
            f"the pair {config.name!r} names no server", hint='give its models an engine such as "vllm" and a url'
        )
    return [server for _, server in found.values()]


def server_for(role: str, model: ModelConfig, launch: Mapping[str, Sequence[str]]) -> Server:
    """The server of one model.

    Args:
        role: What the model is to the pair.
        model: With an engine that is a server.
        launch: What starts a kind of server, where it is not :data:`COMMANDS`.

    Raises:
        ConfigError: If its address has no port, or its server does not serve such a model.
    """
    where = urlsplit(model.url)
    if where.hostname is None or where.port is None:
        raise ConfigError(f"[{role}] url needs a host and a port to start a server at, got {model.url!r}")
    reads_tokens = bool(model.format) and FAMILIES[model.format].head is Head.LANGUAGE
    classifies = Role.parse(role).is_scorer and not reads_tokens
    flags = FLAGS[model.engine](model, where.hostname, where.port, classifies)
    command = [*(launch.get(model.engine) or COMMANDS[model.engine]), *flags, *model.serve]
    return Server(
        role=Role.parse(role).file_stem,
        url=model.url,
        about=DIALECTS[model.engine].about,
        command=command,
        env=model.env,
        api_key_env=model.api_key_env,
    )


def answers(server: Server) -> bool:
    """Whether a server tells what it serves: false while it starts.

    Raises:
        EngineError: If something else listens there.
    """
    from arbitrage.engines.http_client import HTTPClient, HTTPOptions  # Needs an extra; commands can be shown without.

    try:
        HTTPClient(server.url, HTTPOptions(api_key_env=server.api_key_env)).get(server.about)
    except EngineError as error:
        if error.is_retryable:
            return False
        raise
    return True


def _vllm(model: ModelConfig, host: str, port: int, classifies: bool) -> list[str]:
    flags = ["--model", model.path, "--served-model-name", model.served_name or model.called]
    flags += ["--host", host, "--port", str(port), "--dtype", model.dtype, "--enable-prefix-caching"]
    if model.context_length:
        flags += ["--max-model-len", str(model.context_length)]
    if classifies:  # The last token's head only: this task reads the prefix cache, the token-wise one does not.
        return [*flags, "--runner", "pooling", "--pooler-config", json.dumps({"task": "classify"})]
    return [*flags, "--enable-prompt-tokens-details"]


def _sglang(model: ModelConfig, host: str, port: int, _classifies: bool) -> list[str]:
    flags = ["--model-path", model.path, "--served-model-name", model.served_name or model.called]
    flags += ["--host", host, "--port", str(port), "--dtype", model.dtype]
    return flags + (["--context-length", str(model.context_length)] if model.context_length else [])


def _llama_server(model: ModelConfig, host: str, port: int, classifies: bool) -> list[str]:
    if classifies:
        raise ConfigError("llama-server does not serve classifiers", hint="use vllm, or run it in process")
    flags = ["-m", model.path, "--alias", model.served_name or model.called, "--host", host, "--port", str(port)]
    return flags + (["-c", str(model.context_length)] if model.context_length else [])


FLAGS: Final[Mapping[str, Callable[[ModelConfig, str, int, bool], list[str]]]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "llama-server": _llama_server,
}
