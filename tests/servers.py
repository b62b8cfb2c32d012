"""A server on this machine that answers, or fails, as it is told: to test what a client does with it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

Answer = bytes | dict[str, Any]
Handler = Callable[[str, Any], "Answer | Awaitable[Answer]"]
"""From path and JSON body to raw bytes to send before hanging up, or to a JSON answer."""


def response(status: int, body: str = "", **headers: str) -> bytes:
    """A whole HTTP answer."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body.encode())}", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", body]).encode()


class Hang(Exception):
    """Raised by a handler: never answer."""


class LocalServer:
    """Counts what it is asked, and how many requests were dropped before it answered."""

    def __init__(self, handler: Handler) -> None:
        self.handler, self.requests, self.num_dropped, self.url = handler, [], 0, ""
        self.num_open, self.most_open = 0, 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        try:
            while request := await self._request(reader):
                self.requests.append(request)
                try:
                    answer = self.handler(*request)
                    if isinstance(answer, Awaitable):
                        answer = await answer
                except Hang:
                    await reader.read()  # Until the client hangs up.
                    self.num_dropped += 1
                    return
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                    return
                writer.write(response(200, json.dumps(answer)).replace(b"Connection: close\r\n", b""))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.num_open -= 1
            writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> tuple[str, Any] | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        path = head.split(" ", 2)[1]
        length = next(
            (int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-l")), 0
        )
        return path, json.loads(await reader.readexactly(length)) if length else None


@asynccontextmanager
async def local_server(handler: Handler) -> AsyncIterator[LocalServer]:
    """A server on a free port of the loopback interface."""
    local = LocalServer(handler)
    server = await asyncio.start_server(local.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    local.url = f"http://{host}:{port}"
    try:
        yield local
    finally:
        server.close()
        await server.wait_closed()
