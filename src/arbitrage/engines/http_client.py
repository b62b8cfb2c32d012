"""JSON over HTTP to a model server, with retries, time-outs and clear errors."""

import asyncio
import contextlib
import os
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Self, TypeVar

from arbitrage.core.errors import ConfigError, EngineError, EngineTimeout, MissingExtra, first_line
from arbitrage.core.hosts import is_loopback
from arbitrage.engines.connections import with_retries

try:
    import httpx
except ImportError as error:
    raise MissingExtra("http") from error

T = TypeVar("T", "httpx.Client", "httpx.AsyncClient")
RETRYABLE_STATUS: Final = frozenset({408, 429, 502, 503, 504})
"""Server or proxy is busy or restarting; a request with any other status would fail again."""
HEALTH_S: Final = 5.0
"""A server that is well answers a health check within so many seconds."""
_BODY: Final = 300
"""Characters of a server's answer that an error quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPOptions:
    """Time-outs, retries, number of connections and key of a client.

    Raises:
        ConfigError: If a value is out of range.
    """

    timeout_s: float = 120.0
    """Bound of each wait in one attempt. A server sends nothing before a step is complete: so it bounds the step."""
    num_retries: int = 6
    backoff_s: float = 0.25
    """Before the first retry; doubled before each further one, and multiplied by a random number in [0.5, 1]."""
    max_backoff_s: float = 8.0
    max_connections: int = 64
    api_key_env: str = ""
    """Environment variable that holds the key; empty for none."""

    def __post_init__(self) -> None:
        for name in ("timeout_s", "backoff_s", "max_backoff_s"):
            if getattr(self, name) <= 0.0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.num_retries < 0:
            raise ConfigError(f"num_retries must be at least 0, got {self.num_retries}")
        if self.max_connections < 1:
            raise ConfigError(f"max_connections must be at least 1, got {self.max_connections}")

    @property
    def headers(self) -> dict[str, str]:
        """The request headers: the key, if a variable for it is named.

        Raises:
            ConfigError: If the variable is not set, or its value cannot be a key.
        """
        if not self.api_key_env:
            return {}
        if not (key := os.environ.get(self.api_key_env)):
            raise ConfigError(f"the environment variable {self.api_key_env} is not set", hint="it holds the API key")
        if not (key.isascii() and key.isprintable() and key == key.strip()):
            raise ConfigError(
                f"the API key in the environment variable {self.api_key_env} must be printable ASCII characters "
                "without white space around them",
                hint="set it again: a line break or another character was copied with it",
            )
        return {"Authorization": f"Bearer {key}"}


@dataclass
class HTTPClient:
    """A client of one server, used by any number of sessions.

    Requests to a server on this machine (127.0.0.0/8, ::1, localhost) are sent directly, those to any other server
    through the proxy that the environment names for it, if it names one.

    Connections stay open while a session is open (:meth:`acquire` and :meth:`release`), in the event loop that opened
    them; the last session closes them.
    """

    url: str
    options: HTTPOptions = field(default_factory=HTTPOptions)
    jitter: random.Random = field(default_factory=random.Random)
    _is_local: bool = field(default=False, init=False)
    _users: int = 0
    _client: "httpx.AsyncClient | None" = None

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"url must start with http:// or https://, got {self.url!r}")
        self.url, self._is_local = self.url.rstrip("/"), is_loopback(_host(self.url))

    def acquire(self) -> None:
        """Open connections for one more session.

        Raises:
            ConfigError: If the key or a proxy cannot be used.
        """
        if self._client is None:
            limits = httpx.Limits(
                max_connections=self.options.max_connections, max_keepalive_connections=self.options.max_connections
            )
            # The wait for a free connection has no time-out: it depends on our own requests, not on the server.
            timeout = httpx.Timeout(self.options.timeout_s, pool=None)
            self._client = self._new_client(httpx.AsyncClient, base_url=self.url, timeout=timeout, limits=limits)
        self._users += 1

    def _new_client(self, client_class: type[T], **options: Any) -> T:
        """Make a client of httpx.

        Raises:
            ConfigError: If a proxy of the environment cannot be used.
        """
        headers = self.options.headers
        try:
            return client_class(headers=headers, verify=self._verify, trust_env=not self._is_local, **options)
        except (ImportError, ValueError, httpx.InvalidURL) as error:  # Without trust in the environment none is raised.
            raise ConfigError(
                f"a proxy that the environment names cannot be used for {self.url}: {first_line(error)}",
                hint=f"correct or unset {_proxy_variables()}",
            ) from error

    async def release(self) -> None:
        """Count one session less; the last one closes the connections."""
        self._users -= 1
        if self._users <= 0 and self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    @cached_property
    def _verify(self) -> Any:
        """The certificates, read once for all sessions."""
        return httpx.create_ssl_context() if self.url.startswith("https://") else False

    async def open(self) -> Self:
        """Open a session's connection: all sessions share this client."""
        self.acquire()
        return self

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send JSON and return the JSON answer; see :class:`arbitrage.engines.connections.Connection`."""
        return await with_retries(lambda: self.post_once(path, body), self.options.num_retries, self.pause)

    async def post_once(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send JSON once.

        Raises:
            EngineTimeout: If the server did not answer in time.
            EngineError: See :class:`arbitrage.engines.connections.Connection`.
        """
        if self._client is None:
            raise EngineError(f"no open session with {self.url}")
        try:
            response = await self._client.post(path, json=body)
        except httpx.TimeoutException as error:
            raise EngineTimeout(f"{self.url}{path} did not answer within {self.options.timeout_s} s") from error
        except httpx.RequestError as error:
            raise ServerUnreachable(f"{self.url}{path}: {first_line(error)}") from error
        return self._read(path, response)

    def _read(self, path: str, response: httpx.Response) -> Any:
        if response.status_code in RETRYABLE_STATUS:
            raise ServerBusy(f"{self.url}{path} answered {_quoted(response)}", wait_s=_retry_after(response))
        if response.status_code != 200:
            raise EngineError(f"{self.url}{path} answered {_quoted(response)}")
        try:
            return response.json()
        except ValueError as error:
            # The status was 200: so the answer was cut on its way.
            raise ServerUnreachable(f"{self.url}{path} answered with broken JSON: {_quoted(response)}") from error

    async def pause(self, attempt: int, error: EngineError) -> None:
        """Wait before a request is repeated: longer each time, and at least as long as the server asks for."""
        wait = getattr(error, "wait_s", None)
        longest = min(self.options.max_backoff_s, self.options.backoff_s * 2.0**attempt)
        spread: float = longest * (0.5 + 0.5 * self.jitter.random())
        await asyncio.sleep(max(spread, min(wait, self.options.max_backoff_s)) if wait is not None else spread)

    async def is_well(self, path: str) -> bool:
        """Whether the server answers a request within :data:`HEALTH_S`."""
        try:
            async with self._new_client(httpx.AsyncClient, timeout=HEALTH_S) as client:
                return (await client.get(self.url + path)).status_code == 200
        except httpx.RequestError:
            return False

    def get_all(self, path: str) -> list[Any]:
        """See :class:`arbitrage.engines.connections.Client`."""
        return [self.get(path)]

    def get(self, path: str) -> Any:
        """Send one request and block, without an event loop; for checks at the start.

        Raises:
            ConfigError: If the key or a proxy cannot be used.
            EngineError: If the server cannot be reached or refuses.
        """
        try:
            with self._new_client(httpx.Client, timeout=10.0) as client:
                response = client.get(self.url + path)
        except httpx.RequestError as error:
            raise ServerUnreachable(f"no server answers at {self.url}: {first_line(error)}") from error
        return self._read(path, response)


class ServerUnreachable(EngineError):
    """The connection failed or broke; the same request may succeed."""

    is_retryable = True
    hint = "start the server; `arbitrage up` starts those of a pair"


class ServerBusy(EngineError):
    """The server refuses for now; the same request may succeed later."""

    is_retryable = True
    hint = "lower the number of problems in flight"

    def __init__(self, message: str, *, hint: str = "", wait_s: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.wait_s = wait_s
        """Seconds to wait, from the server's answer; None if it names none."""


def _host(url: str) -> str:
    """The host in a URL.

    Raises:
        ConfigError: If it cannot be read, or names no host or no valid port.
    """
    hint = "write it as http://HOST:PORT"
    try:
        parsed = httpx.URL(url)
        parsed.host.encode("idna")  # As a look-up of the name would do.
    except (httpx.InvalidURL, ValueError) as error:
        raise ConfigError(f"url {url!r} cannot be read: {first_line(error)}", hint=hint) from error
    if not parsed.host:
        raise ConfigError(f"url must name a host, got {url!r}", hint=hint)
    if parsed.port is not None and not 1 <= parsed.port <= 65535:
        raise ConfigError(f"the port of a url must be between 1 and 65535, got {url!r}", hint=hint)
    return parsed.host


def _proxy_variables() -> str:
    """Environment variables that name a proxy; their values may hold a password."""
    is_proxy = re.compile(r"(http|https|all)_proxy", re.IGNORECASE)
    return ", ".join(sorted(name for name in os.environ if is_proxy.fullmatch(name))) or "the system's proxy"


def _quoted(response: httpx.Response) -> str:
    text = " ".join(response.text.split())
    return f"{response.status_code}: {text[:_BODY]}{'…' if len(text) > _BODY else ''}"


def _retry_after(response: httpx.Response) -> float | None:
    with contextlib.suppress(ValueError):  # A date is allowed too; then the usual back-off is used.
        return float(response.headers.get("Retry-After", ""))
    return None
