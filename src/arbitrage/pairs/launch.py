"""The servers of a pair: which there are, and the command that starts each."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from arbitrage.core.errors import ConfigError, EngineError
from arbitrage.pairs.config import PairConfig
from arbitrage.pairs.roles import Role
from arbitrage.pairs.served import ServedModel
from arbitrage.runtime.servers import Server
from arbitrage.scorers.families import FAMILIES, Head


def servers(config: PairConfig) -> list[Server]:
    """The servers that a pair names, one for each address.

    Raises:
        ConfigError: If it names none, an address has no port, or two models have the same one.
    """
    by_url: dict[str, tuple[ServedModel, Server]] = {}
    for role, model in config.models.items():
        if not isinstance(model, ServedModel):
            continue
        if model.url not in by_url:
            by_url[model.url] = (model, server_for(role, model, config.launch))
            continue
        other, server = by_url[model.url]
        if other.path != model.path:
            raise ConfigError(f"{server.role} and {role} share {model.url} but are different models")
    if not by_url:
        raise ConfigError(
            f"the pair {config.name!r} names no server", hint='give its models an engine such as "vllm" and a url'
        )
    return [server for _, server in by_url.values()]


def server_for(role: str, model: ServedModel, launch: Mapping[str, Sequence[str]]) -> Server:
    """The server of one model.

    Args:
        role: The model's role in its pair.
        model: The model.
        launch: The command by kind of server, where it is not :attr:`ServedModel.command`.

    Raises:
        ConfigError: If its address has no port, or its server does not serve such a model.
    """
    own = Role.parse(role)
    host, port = _address(model.url)
    if not host or port is None:
        raise ConfigError(f"[{own.table}] url needs a host and a port to start a server at, got {model.url!r}")
    reads_tokens = bool(model.format) and FAMILIES[model.format].head is Head.LANGUAGE
    flags = model.flags(host, port, classifies=own.is_scorer and not reads_tokens)
    return Server(
        role=own.file_stem,
        url=model.url,
        about=model.dialect.about,
        command=[*(launch.get(model.engine) or model.command), *flags, *model.server_args],
        env=model.server_env,
        api_key_env=model.api_key_env,
    )


def _address(url: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port
    except ValueError:  # The port is no number, or out of range.
        return None, None


def answers(server: Server) -> bool:
    """Whether a server lists its models; False while it starts.

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
