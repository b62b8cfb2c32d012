"""Answers one request: runs its solutions, sends them whole or as a stream, and stops them when the client goes."""

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from arbitrage.core.types import Step
from arbitrage.serving.admission import Ticket
from arbitrage.serving.answer import Delta
from arbitrage.serving.errors import APIError, internal, too_late
from arbitrage.serving.formats import DONE, Event, Format, event_bytes
from arbitrage.serving.requests import SolveRequest
from arbitrage.serving.service import Service
from arbitrage.serving.solving import Solution, step_record

LOG: Final = logging.getLogger("arbitrage.serving")
QUIET_S: Final = 15.0
"""After so many seconds without an event a stream sends a comment, so that no proxy takes it for dead."""
_QUIET: Final = b": \n\n"


class Answering(Response):
    """The answer to one request, as an ASGI application."""

    def __init__(self, service: Service, request: SolveRequest, form: Format, *, client: str, request_id: str) -> None:
        """Prepare; nothing runs before the call.

        Args:
            service: The pair and who may use it.
            request: What is asked.
            form: The interface.
            client: Who asks: clients take turns.
            request_id: For the client and the log.
        """
        self._service, self._request, self._form, self._client, self._id = service, request, form, client, request_id
        self._ready: asyncio.Queue[bytes | None] = asyncio.Queue()
        """Events to be sent; None at the end of a solution."""
        self._started = time.monotonic()
        self._has_begun = self._has_text = self._is_complete = False
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer until everything is sent or the client is gone."""
        answer = asyncio.ensure_future(self._answer(send))
        gone = asyncio.ensure_future(_gone(receive))
        outcome = "cancelled"
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
            if answer.done() or self._is_complete:  # Behind the last part of an answer the client may go.
                outcome = await answer
        finally:
            for task in (answer, gone):
                task.cancel()
            await asyncio.gather(answer, gone, return_exceptions=True)
            metrics = self._service.metrics
            metrics.requests.labels(scope["path"], outcome).inc()
            metrics.request_seconds.observe(time.monotonic() - self._started)

    async def _answer(self, send: Send) -> str:
        """Answer, errors included; returns the outcome for the counters."""
        deadline_s = self._service.options.deadline_s
        try:
            try:
                async with asyncio.timeout(deadline_s):
                    await self._run(send)
                return "ok"
            except TimeoutError:
                raise too_late(deadline_s) from None
            except APIError:
                raise
            except OSError:  # The client is gone.
                return "cancelled"
            except Exception as error:
                LOG.exception("%s: the answer failed", self._id)
                raise internal() from error
        except APIError as error:
            await self._fail(error, send)
            return error.code or str(error.status)

    async def _run(self, send: Send) -> None:
        solutions = await self._service.solutions(self._request, self._id)
        tickets = self._service.admission.reserve(self._client, self._request.user, len(solutions))
        tasks = [
            asyncio.ensure_future(self._solve(solution, ticket))
            for solution, ticket in zip(solutions, tickets, strict=True)
        ]
        try:
            if self._request.streams:
                await self._stream(solutions, tickets, send)
            else:
                await self._whole(solutions, send)
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for ticket in tickets:  # Of a task that was cancelled before it began.
                self._service.admission.release(ticket)

    async def _solve(self, solution: Solution, ticket: Ticket) -> None:
        service, arrived, seconds = self._service, time.monotonic(), None
        try:
            await ticket.granted.wait()
            started = solution.started = time.monotonic()
            service.metrics.queue_seconds.observe(started - arrived)
            service.running[solution] = self._request.model
            try:
                await solution.run(self)
            finally:
                del service.running[solution]
            seconds = time.monotonic() - started
        finally:
            service.admission.release(ticket, seconds)
            self._ready.put_nowait(None)

    def on_delta(self, index: int, delta: Delta) -> None:
        """See :class:`arbitrage.serving.solving.Watcher`."""
        if not self._has_text:
            self._has_text = True
            self._service.metrics.first_text_seconds.observe(time.monotonic() - self._started)
        if self._request.streams:
            self._put(self._form.delta(index, delta))

    def on_step(self, index: int, number: int, step: Step, threshold: float | None, wall_s: float) -> None:
        """See :class:`arbitrage.serving.solving.Watcher`."""
        self._service.metrics.step(step)
        if self._request.streams and self._request.extension.events:
            self._put(self._form.step(index, step_record(number, step, threshold, wall_s)))

    def on_end(self, solution: Solution) -> None:
        """See :class:`arbitrage.serving.solving.Watcher`."""
        if self._request.streams and solution.error is None:
            self._put(self._form.end(solution))

    def _put(self, events: Sequence[Event]) -> None:
        for event in events:
            self._ready.put_nowait(event_bytes(event))

    async def _whole(self, solutions: Sequence[Solution], send: Send) -> None:
        for _ in solutions:
            await self._ready.get()
            _check(solutions)
        await self._send_json(send, 200, self._form.whole(solutions), {})

    async def _stream(self, solutions: Sequence[Solution], tickets: Sequence[Ticket], send: Send) -> None:
        # Until a solution runs, an error can still have a status of its own.
        waiting = [asyncio.ensure_future(ticket.granted.wait()) for ticket in tickets]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        headers = {
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
        }
        await self._begin(send, 200, headers)
        await self._body(send, b"".join(map(event_bytes, self._form.head(len(solutions)))))
        num_running = len(solutions)
        while num_running:
            parts = await self._next()
            num_running -= parts.count(None)
            if body := b"".join(part for part in parts if part):
                await self._body(send, body)
            _check(solutions)
        tail = b"".join(map(event_bytes, self._form.tail(solutions)))
        await self._body(send, tail + DONE, is_last=True)

    async def _next(self) -> list[bytes | None]:
        """All events that are ready, at least one; a comment after a long silence."""
        try:
            async with asyncio.timeout(QUIET_S):
                parts = [await self._ready.get()]
        except TimeoutError:
            return [_QUIET]
        while not self._ready.empty():
            parts.append(self._ready.get_nowait())
        return parts

    async def _fail(self, error: APIError, send: Send) -> None:
        if not self._has_begun:
            await self._send_json(send, error.status, error.body, error.headers)
            return
        events = b"".join(map(event_bytes, self._form.failed(error)))
        try:
            async with asyncio.timeout(1.0):  # A client that does not read gets no more.
                await self._body(send, events + DONE, is_last=True)
        except (TimeoutError, OSError):
            pass

    async def _send_json(self, send: Send, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        data = json.dumps(body).encode()
        own = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        await self._begin(send, status, headers | own)
        await self._body(send, data, is_last=True)

    async def _begin(self, send: Send, status: int, headers: dict[str, str]) -> None:
        self._has_begun = True
        ignored = {"X-Arbitrage-Ignored": ", ".join(self._request.ignored)} if self._request.ignored else {}
        own = {"X-Request-Id": self._id, **ignored, **headers}
        pairs = [(name.lower().encode(), value.encode()) for name, value in own.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})

    async def _body(self, send: Send, data: bytes, *, is_last: bool = False) -> None:
        if data or is_last:
            await send({"type": "http.response.body", "body": data, "more_body": not is_last})
        self._is_complete = is_last


def _check(solutions: Sequence[Solution]) -> None:
    """Raise the error of a solution that failed."""
    for solution in solutions:
        if solution.error is not None:
            raise solution.error


async def _gone(receive: Receive) -> None:
    """Return when the client has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass
