"""Bounded concurrency: one coroutine for each item, nobody waits for the slowest."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from arbitrage.core.errors import ConfigError

T = TypeVar("T")


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]], *, max_in_flight: int) -> None:
    """Run ``work`` on every item, at most ``max_in_flight`` at a time, started in order.

    ``work`` turns what may go wrong with one item into a record of that item; an exception that leaves it
    cancels all others.

    Raises:
        ConfigError: If ``max_in_flight`` is not positive.
        Exception: The first one that left ``work``, once the others have stopped.
    """
    if max_in_flight < 1:
        raise ConfigError(f"the number of problems in flight must be at least 1, got {max_in_flight}")
    waiting = iter(items)

    async def lane() -> None:
        for item in waiting:  # Shared by all lanes: whoever is free takes the next.
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(max_in_flight):
                group.create_task(lane())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
