"""What every request passes before anything reads it: host, key and size."""

import json
import logging
from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from arbitrage.core.hosts import is_loopback
from arbitrage.serving.errors import APIError, internal, too_large
from arbitrage.serving.service import ServeOptions

LOG: Final = logging.getLogger("arbitrage.serving")
OPEN_PATHS: Final = frozenset({"/", "/page.css", "/page.js", "/health"})
"""The page itself holds nothing secret, and load balancers have no key."""
CLIENT: Final = "arbitrage.client"
"""Where a request's scope holds the client's name."""


class Gate:
    """ASGI middleware: refuses requests from elsewhere, without a key, or too large."""

    def __init__(self, app: ASGIApp, options: ServeOptions) -> None:
        """Stand in front of an application."""
        self._app, self._options = app, options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        error: APIError | None
        has_begun, body = False, _Body(receive, self._options.max_request_bytes)

        async def sending(message: Message) -> None:
            nonlocal has_begun
            if body.is_too_large and not has_begun:
                return  # The application read a part of the body only, and answers that.
            has_begun = True
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            self._check(scope, headers)
            await self._app(scope, body.receive, sending)
            error = None
        except APIError as refused:
            error = refused
        except Exception:
            LOG.exception("a request to %r failed", scope["path"])
            error = internal()
        if body.is_too_large:
            error = too_large(self._options.max_request_bytes)
        if error is not None and not has_begun:
            await refuse(error, send)

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        options = self._options
        host = _host(headers.get("host", ""))
        if options.only_loopback and not options.keys.values and host and not is_loopback(host):
            message = (
                f"the host {host[:100]!r} is not this machine's own: call 127.0.0.1 or localhost, or start the server "
                "with --api-key-env or --insecure"
            )
            raise APIError(403, message, code="wrong_host")
        address = scope["client"][0] if scope.get("client") else "unknown"
        is_open = scope["path"] in OPEN_PATHS
        scope[CLIENT] = address if is_open else options.keys.owner(headers.get("authorization")) or address
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > options.max_request_bytes:
            raise too_large(options.max_request_bytes)


def _host(header: str) -> str:
    """The host of ``HOST:PORT`` or ``[ADDRESS]:PORT``; the port may be missing."""
    return header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0]


class _Body:
    """The body of a request, whose bytes are counted: it need not say how long it is."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive, self._left = receive, max_bytes
        self.is_too_large = False

    async def receive(self) -> Message:
        """The next message.

        Raises:
            APIError: If the body is too large.
        """
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.is_too_large = True
            raise too_large(0)
        return message


async def refuse(error: APIError, send: Send) -> None:
    """Send an error as the whole answer."""
    data = json.dumps(error.body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(data)), **error.headers}
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": pairs})
    await send({"type": "http.response.body", "body": data})
