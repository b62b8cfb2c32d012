"""Where the servers of a model are: addresses in a list, in a file, behind a name of the DNS, or port after port."""

import socket
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from arbitrage.core.errors import ConfigError

FILE: Final = "file:"
"""Before the name of a file with one address a line; empty lines and those that begin with # are left out."""
DNS: Final = "dns:"
"""Before an address whose host name has one entry in the DNS for each server."""


def addresses(url: str | tuple[str, ...], replicas: int = 1) -> tuple[str, ...]:
    """All addresses of a model's servers.

    Args:
        url: One address, several, or a text that begins with :data:`FILE` or :data:`DNS`.
        replicas: So many servers listen at the ports from that of a single address on.

    Raises:
        ConfigError: If a list is empty or cannot be read, an address is there twice, or ``replicas`` cannot be used.
    """
    if replicas > 1:
        return _counted(url, replicas)
    if not isinstance(url, str):
        urls = url
    elif url.startswith(FILE):
        urls = _in_file(url.removeprefix(FILE))
    elif url.startswith(DNS):
        urls = _behind_name(url.removeprefix(DNS))
    else:
        return (url,)
    if not urls or len(set(urls)) < len(urls):
        raise ConfigError(
            f"url must name at least one address and none twice, got {url!r}: {', '.join(urls) or 'nothing'}"
        )
    return urls


def parts(url: str) -> SplitResult | None:
    """The parts of an address; None if its port is no number or out of range, or its host cannot be read."""
    try:
        split = urlsplit(url)
        _ = split.port
    except ValueError:
        return None
    return split


def _counted(url: str | tuple[str, ...], replicas: int) -> tuple[str, ...]:
    split = parts(url) if isinstance(url, str) else None
    if split is None or not split.hostname or split.port is None or split.port + replicas - 1 > 65535:
        raise ConfigError(
            f"replicas = {replicas} needs one url with a host and a port, got {url!r}",
            hint="further servers listen at the next ports; or list all addresses in url and leave replicas out",
        )
    host = split.netloc.rpartition(":")[0]
    return tuple(split._replace(netloc=f"{host}:{split.port + i}").geturl() for i in range(replicas))


def _in_file(name: str) -> tuple[str, ...]:
    try:
        lines = Path(name).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"cannot read the addresses in {name!r}: {reason}") from error
    return tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))


def _behind_name(url: str) -> tuple[str, ...]:
    split = parts(url)
    if split is None or not split.hostname or split.port is None or split.scheme != "http":
        raise ConfigError(f"url must be dns:http://NAME:PORT, got {DNS + url!r}")
    try:
        entries = socket.getaddrinfo(split.hostname, split.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(
            f"url: no DNS entry for the host {split.hostname!r}: {error.strerror or error}",
            hint="check the name in url",
        ) from error
    hosts = dict.fromkeys(str(entry[4][0]) for entry in entries)
    shown = (f"[{host}]" if ":" in host else host for host in hosts)
    return tuple(split._replace(netloc=f"{host}:{split.port}").geturl() for host in shown)
