"""Solutions a second of the endpoint beside ``eval``'s own loop on the same models, several at a time.

``python benchmarks/serve_parallel.py --pair pair.toml --dataset tiny:test --limit 64 --jobs 16`` solves the problems in
both ways in turn; every other round begins with the other way. It prints one JSON line: the ratio of each round, and
whether all texts are the same.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from arbitrage.core.types import Problem
from arbitrage.datasets.named import problems
from arbitrage.pairs.loaded import load
from arbitrage.runtime.pool import each
from serving_kit import running

Work = Callable[[Problem], Awaitable[None]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", default="tiny")
    parser.add_argument("--dataset", default="tiny:test")
    parser.add_argument("--method", default="router")
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    loaded, given = load(options.pair, policies=[options.method]), problems(options.dataset, options.limit)
    texts: dict[str, dict[str, str]] = {"direct": {}, "served": {}}
    ratios: list[float] = []
    with running(loaded, method=options.method, max_in_flight=options.jobs) as server:

        async def timed(work: Work) -> float:
            started = time.perf_counter()
            await each(given, work, max_in_flight=options.jobs)
            return time.perf_counter() - started

        async def direct(problem: Problem) -> None:
            asked = Problem(id="question", question=problem.question)
            texts["direct"][problem.id] = (await loaded.solve_async(asked, policy=options.method)).text

        def direct_seconds() -> float:  # On the server's loop: connections of served models belong to one.
            return asyncio.run_coroutine_threadsafe(timed(direct), server.loop).result()

        async def served_seconds() -> float:
            async with httpx.AsyncClient(base_url=server.url, timeout=None) as client:

                async def served(problem: Problem) -> None:
                    asked = {"model": loaded.name, "messages": [{"role": "user", "content": problem.question}]}
                    answer = (await client.post("/v1/chat/completions", json=asked)).json()
                    texts["served"][problem.id] = answer["choices"][0]["message"]["content"]

                return await timed(served)

        for number in range(options.rounds):
            ways: list[Callable[[], float]] = [direct_seconds, lambda: asyncio.run(served_seconds())]
            first, second = ways if number % 2 == 0 else ways[::-1]
            seconds = [first(), second()]
            direct_s, served_s = seconds if number % 2 == 0 else seconds[::-1]
            ratios.append(direct_s / served_s)
    record = {
        "pair": loaded.name,
        "method": options.method,
        "num_problems": len(given),
        "jobs": options.jobs,
        "served_over_direct": [round(ratio, 3) for ratio in ratios],
        "median": round(statistics.median(ratios), 3),
        "same_texts": texts["direct"] == texts["served"],
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
