"""Runs the endpoint: it answers at once, and loads the pair meanwhile."""

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Callable
from typing import Final

from arbitrage.core.errors import ConfigError, MissingExtra
from arbitrage.pairs.loaded import LoadedPair

try:
    import uvicorn
except ImportError as error:
    raise MissingExtra("serve") from error

from arbitrage.serving.app import application
from arbitrage.serving.service import Service

LOG: Final = logging.getLogger("arbitrage.serving")
GRACE_S: Final = 5
"""Seconds that running requests get when the server is told to stop."""


def is_loopback(host: str) -> bool:
    """Whether a server at this host is reached from this machine only."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: Name or address.
        port: 0 for any free one.

    Raises:
        ConfigError: If the address is taken or not this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family)
    except OSError as error:
        raise ConfigError(
            f"cannot serve at {host}:{port}: {error.strerror or error}", hint="choose another --host"
        ) from error
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise ConfigError(f"cannot serve at {host}:{port}: {error.strerror}", hint="choose another --port") from error
    return listening


async def serve(
    service: Service,
    load: Callable[[], LoadedPair],
    listening: socket.socket,
    *,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until the process is told to stop.

    Args:
        service: Without its pair.
        load: Loads the pair; it is called on a thread, while the server answers that it is loading.
        listening: See :func:`bound`; it is closed at the end.
        on_ready: Called when the pair is loaded.

    Raises:
        ArbitrageError: If the pair cannot be loaded, or cannot run the default method.
    """
    config = uvicorn.Config(
        application(service),
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        backlog=2048,
    )
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    loading = asyncio.ensure_future(asyncio.to_thread(load))
    try:
        await asyncio.wait((serving, loading), return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            await asyncio.to_thread(service.use, loading.result())
            on_ready()
        await asyncio.wait((serving,))  # A cancellation must not reach it: it closes its connections below.
        await serving
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        listening.close()
