"""One thread per device for blocking model calls, with cancellation between tokens."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

T = TypeVar("T")


class Cancelled(Exception):
    """Raised inside a worker call that was cancelled; never leaves the worker."""


class CancelFlag:
    """The signal for a running call to stop; checked between tokens."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Signal the call to stop."""
        self._event.set()

    def check(self) -> None:
        """Raise :class:`Cancelled` if the signal is set."""
        if self._event.is_set():
            raise Cancelled


class Worker:
    """Runs blocking calls one after another, off the event loop."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"arbitrage-{name}", initializer=self._started)
        self._thread: int | None = None

    def _started(self) -> None:
        self._thread = threading.get_ident()

    async def run(self, call: Callable[[CancelFlag], T]) -> T:
        """Run ``call`` on the worker's thread.

        A cancellation returns at once if the call has not begun, else only after it has left the thread, so that no
        call still changes a session that its owner uses again.
        """
        flag = CancelFlag()
        submitted = self._executor.submit(_unless_cancelled, call, flag)
        future = asyncio.wrap_future(submitted)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            flag.set()
            if submitted.cancel():
                raise
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):  # A second cancellation stops the thread no sooner.
                    await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # Retrieved, so that asyncio does not warn of it.
            raise

    def call(self, call: Callable[[], T]) -> T:
        """Run ``call`` on the worker's thread from a call on this or another worker's thread, and wait for it.

        A device whose calls wait for another's must not be waited for by the other: a target waits for its guesser.
        """
        if threading.get_ident() == self._thread:
            return call()
        return self._executor.submit(call).result()


def _unless_cancelled(call: Callable[[CancelFlag], T], flag: CancelFlag) -> T:
    flag.check()
    return call(flag)


@cache
def worker_for(device: str) -> Worker:
    """The worker of one device: models that compute on one device at the same time slow each other down."""
    return Worker(device)
