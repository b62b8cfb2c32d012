"""The servers of a pair: which there are, and the command that starts each."""

from collections.abc import Mapping, Sequence

from arbitrage.core.errors import ConfigError, EngineError
from arbitrage.pairs.addresses import parts
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
    served = {role: model for role, model in config.models.items() if isinstance(model, ServedModel)}
    for role, model in served.items():
        for server in servers_for(role, model, config.launch):
            other, first = by_url.setdefault(server.url, (model, server))
            if other.path != model.path:
                raise ConfigError(
                    f"{first.role} and {server.role} share {server.url} but are different models",
                    hint="give each its own url",
                )
    if not by_url:
        raise ConfigError(
            f"the pair {config.name!r} names no server", hint='give its models an engine such as "vllm" and a url'
        )
    return [server for _, server in by_url.values()]


def servers_for(role: str, model: ServedModel, launch: Mapping[str, Sequence[str]]) -> list[Server]:
    """The servers of one model; several have numbers behind their role.

    Args:
        role: The model's role in its pair.
        model: The model.
        launch: The command by kind of server, where it is not :attr:`ServedModel.command`.

    Raises:
        ConfigError: If an address has no port, or its server does not serve such a model.
    """
    own, urls = Role.parse(role), model.urls
    reads_tokens = bool(model.format) and FAMILIES[model.format].head is Head.LANGUAGE
    servers_of_model = []
    for number, url in enumerate(urls, start=1):
        split = parts(url)
        if split is None or not split.hostname or split.port is None:
            raise ConfigError(f"[{own.table}] url needs a host and a port to start a server at, got {url!r}")
        flags = model.flags(split.hostname, split.port, classifies=own.is_scorer and not reads_tokens)
        server = Server(
            role=own.file_stem if len(urls) == 1 else f"{own.file_stem}-{number}",
            url=url,
            models_path=model.dialect.models_path,
            command=[*(launch.get(model.engine) or model.command), *flags, *model.server_args],
            env=model.server_env,
            api_key_env=model.api_key_env,
        )
        servers_of_model.append(server)
    return servers_of_model


def answers(server: Server) -> bool:
    """Whether a server lists its models; False while it starts.

    Raises:
        EngineError: If something else listens there.
    """
    from arbitrage.engines.http_client import HTTPClient, HTTPOptions  # Needs an extra; commands can be shown without.

    try:
        HTTPClient(server.url, HTTPOptions(api_key_env=server.api_key_env)).get(server.models_path)
    except EngineError as error:
        if error.is_retryable:
            return False
        raise
    return True
