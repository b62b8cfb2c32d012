"""Calls from one worker's thread to another's."""

import threading

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
