"""A server on this machine that answers, or fails, as it is told: to test what a client does with it."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from arbitrage.engines.cache import common_length

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


@contextmanager
def in_a_thread(handler: Handler) -> Iterator[LocalServer]:
    """A local server with an event loop of its own, for engines that outlive one test's."""
    ready, stop = threading.Event(), asyncio.Event()
    started: list[tuple[LocalServer, asyncio.AbstractEventLoop]] = []

    async def serve() -> None:
        async with local_server(handler) as server:
            started.append((server, asyncio.get_running_loop()))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    ready.wait()
    server, loop = started[0]
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


class SGLangServer:
    """Answers as SGLang 0.5.23 does, by its source: a model of transformers behind a cache of prefixes.

    ``Req.adjust_max_prefix_ids``: at least one token is computed, and with ``return_logprob`` all from
    ``logprob_start_len`` on, which is the last one by default. ``input_token_logprobs`` holds an entry for each input
    token from there on; the first of them has no log-probability, since the token before it is not read.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.context_length = model.config.max_position_embeddings
        self.num_computed: list[int] = []
        """Input tokens that went through the model, for each request."""
        self._cached: list[tuple[int, ...]] = []

    def __call__(self, path: str, body: Any) -> Answer:
        if path == "/v1/models":
            return {"object": "list", "data": [{"id": self.name, "max_model_len": self.context_length}]}
        return self._generate(body) if path == "/generate" else response(404)

    def _generate(self, body: dict[str, Any]) -> Answer:
        ids, sampling = body["input_ids"], body["sampling_params"]
        wants_logprobs, start = body.get("return_logprob", False), body.get("logprob_start_len", -1)
        start = len(ids) - 1 if start == -1 else start
        if not 0 <= start <= len(ids):
            return response(400, "logprob_start_len is out of range")
        num_cached = self._num_cached(ids, min(len(ids) - 1, start) if wants_logprobs else len(ids) - 1)
        self.num_computed.append(len(ids) - num_cached)
        new, logprobs, reason = self._write(ids, sampling)
        self._cached.append((*ids, *new[:-1]))  # Of the last token, no keys and values are computed.
        info = {"finish_reason": reason, "prompt_tokens": len(ids), "completion_tokens": len(new)}
        info["cached_tokens"] = num_cached
        if wants_logprobs:
            info["output_token_logprobs"] = [[value, token, None] for value, token in zip(logprobs, new, strict=True)]
            rows = self._rows(ids)
            info["input_token_logprobs"] = [
                [float(rows[i - 1, ids[i]]) if i > start else None, ids[i], None] for i in range(start, len(ids))
            ]
        return {"text": self._cut(new, reason), "output_ids": new, "meta_info": info}

    def _write(self, ids: list[int], sampling: dict[str, Any]) -> tuple[list[int], list[float], dict[str, Any]]:
        """Ids with the token that ended them, their log-probabilities at temperature 1, and why they end."""
        import torch

        generator = torch.Generator().manual_seed(sampling.get("sampling_seed", 0))
        new, logprobs = list[int](), list[float]()
        while len(new) < sampling["max_new_tokens"]:
            row, temperature = self._rows([*ids, *new])[-1], sampling["temperature"]
            weights = (row / temperature).softmax(-1) if temperature else None
            token = int(row.argmax() if weights is None else torch.multinomial(weights, 1, generator=generator))
            new.append(token)
            logprobs.append(float(row[token]))
            if token == self.tokenizer.eos_token_id:
                return new, logprobs, {"type": "stop", "matched": token}
            text = self.tokenizer.decode(new)
            if matched := next((stop for stop in sampling.get("stop", ()) if stop in text), None):
                return new, logprobs, {"type": "stop", "matched": matched}
        return new, logprobs, {"type": "length", "length": len(new)}

    def _rows(self, ids: list[int]) -> Any:
        """Log-probabilities of every next token behind each of the ids."""
        import torch

        with torch.inference_mode():
            return self.model(input_ids=self._tensor(ids)[None]).logits[0].float().log_softmax(-1)

    def _tensor(self, ids: list[int]) -> Any:
        import torch

        return torch.tensor(ids, dtype=torch.long)

    def _num_cached(self, ids: list[int], most: int) -> int:
        return min(most, max((common_length(ids, old) for old in self._cached), default=0))

    def _cut(self, new: list[int], reason: dict[str, Any]) -> str:
        """The text without end-of-sequence, and without the stop string."""
        matched = reason.get("matched")
        text: str = self.tokenizer.decode(new[:-1] if isinstance(matched, int) else new)
        return text.split(matched)[0] if isinstance(matched, str) else text
