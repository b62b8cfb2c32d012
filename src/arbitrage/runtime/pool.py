"""Bounded concurrency: one coroutine for each item; a free slot takes the next item at once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from arbitrage.core.errors import ConfigError

T = TypeVar("T")


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]], *, max_in_flight: int) -> None:
    """Run ``work`` on every item, at most ``max_in_flight`` at a time, started in order.

    ``work`` must turn a failure of one item into a record of that item. An exception that it raises is a bug and
    cancels all other items.

    Raises:
        ConfigError: If ``max_in_flight`` is not positive.
        Exception: The first exception that ``work`` raised, once the other items have stopped.
    """
    if max_in_flight < 1:
        raise ConfigError(f"the number of problems in flight must be at least 1, got {max_in_flight}")
    waiting = iter(items)

    async def lane() -> None:
        for item in waiting:  # All lanes share the iterator.
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(max_in_flight):
                group.create_task(lane())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
