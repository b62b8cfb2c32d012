"""Calls from one worker's thread to another's."""

import asyncio
import threading

import pytest

from arbitrage.engines.worker import Worker


async def test_a_call_runs_on_the_workers_own_thread():
    first, second = Worker("first"), Worker("second")
    inner = await first.run(lambda flag: second.call(threading.get_ident))
    assert inner == await second.run(lambda flag: threading.get_ident())
    assert inner != await first.run(lambda flag: threading.get_ident())


async def test_a_worker_calls_itself_without_waiting():
    worker = Worker("one")
    outer, inner = await worker.run(lambda flag: (threading.get_ident(), worker.call(threading.get_ident)))
    assert outer == inner != threading.get_ident()


async def test_a_call_that_waits_is_cancelled_at_once_and_never_runs():
    worker, begun, may_end, called = Worker("busy"), threading.Event(), threading.Event(), []
    running = asyncio.ensure_future(worker.run(lambda flag: begun.set() or may_end.wait(10)))
    await asyncio.to_thread(begun.wait, 10)
    waiting = asyncio.ensure_future(worker.run(lambda flag: called.append(1)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, 5)
    assert not running.done()
    may_end.set()
    assert await running
    assert await worker.run(lambda flag: called == [])
