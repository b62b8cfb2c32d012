"""How sessions reach the servers of a model: the protocols of one server and of several, and repeated requests."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from arbitrage.core.errors import EngineError


class Connection(Protocol):
    """One session's way to a server."""

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send JSON and return the JSON answer.

        A cancellation drops the connection; the server then stops generating.

        Raises:
            EngineTimeout: If every attempt took too long.
            EngineError: If the server refuses, cannot be reached, or its answer is not JSON.
        """

    async def release(self) -> None:
        """Give the connection back; the last session closes it."""


class Client(Protocol):
    """Opens connections to the servers of one model."""

    @property
    def url(self) -> str:
        """Where they are, for messages."""

    def get_all(self, path: str) -> list[Any]:
        """Send one request to each server that answers and block, without an event loop; for checks at the start.

        Raises:
            ConfigError: If the key or a proxy cannot be used.
            EngineError: If no server can be reached, or one refuses.
        """

    async def open(self) -> Connection:
        """Open a session's connection.

        Raises:
            ConfigError: If the key or a proxy cannot be used.
        """


async def with_retries(
    send: Callable[[], Awaitable[Any]],
    num_retries: int,
    before_retry: Callable[[int, EngineError], Awaitable[None]],
) -> Any:
    """Send a request until it succeeds, fails for good, or was repeated often enough.

    Args:
        send: Sends it once.
        num_retries: How often it is repeated at most.
        before_retry: Awaited with the number of the attempt, from 0, and its error.

    Raises:
        EngineError: The last one.
    """
    attempt = 0
    while True:
        try:
            return await send()
        except EngineError as error:
            if not error.is_retryable or attempt >= num_retries:
                raise
            await before_retry(attempt, error)
            attempt += 1
