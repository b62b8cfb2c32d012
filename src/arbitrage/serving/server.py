"""Runs the endpoint: it answers at once, and loads the pair meanwhile."""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from arbitrage.core.errors import ConfigError, MissingExtra, first_line
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
    except (OSError, UnicodeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or first_line(error)
        raise ConfigError(f"cannot serve at {host}:{port}: {reason}", hint="choose another --host") from error
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
    loading = asyncio.wrap_future(_on_daemon(load))
    try:
        await asyncio.wait((serving, loading), return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            await asyncio.to_thread(service.use, loading.result())
            on_ready()
        await asyncio.wait((serving,))  # A cancellation must not reach it: it closes its connections below.
        await serving
    finally:
        server.should_exit = True
        loading.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        listening.close()


def _on_daemon(load: Callable[[], LoadedPair]) -> "Future[LoadedPair]":
    """Load on a thread that does not keep the process from ending, as one of an executor would."""
    loaded: Future[LoadedPair] = Future()
    loaded.set_running_or_notify_cancel()  # From now on nobody can cancel it.

    def run() -> None:
        try:
            loaded.set_result(load())
        except BaseException as error:
            loaded.set_exception(error)

    threading.Thread(target=run, name="arbitrage-loading", daemon=True).start()
    return loaded
