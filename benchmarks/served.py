"""A served pair against the same models in process: ``python benchmarks/served.py PAIR.toml [--limit 100]``.

Prints JSON lines: how much greedy text is the same, prompt tokens computed again and seconds of our own per step, and
throughput at several numbers of problems in flight. The pair must be the tiny one.
"""

import argparse
import asyncio
import json
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from arbitrage import Setting, load, solve
from arbitrage.core.policy import Policy
from arbitrage.core.trace import Trace
from arbitrage.core.turn import Pair
from arbitrage.core.types import Problem
from arbitrage.datasets.named import problems
from arbitrage.engines.http_client import HTTPClient
from arbitrage.pairs.catalogue import load_engines
from arbitrage.policies import TargetOnly
from arbitrage.runtime.pool import each


def solve_all(found: list[Problem], pair: Pair, policy: Policy, jobs: int) -> tuple[list[Trace], float]:
    """Traces in the order of the problems, and seconds for all."""
    traces: dict[str, Trace] = {}

    async def work(problem: Problem) -> None:
        traces[problem.id] = await solve(problem, pair, policy, Setting())

    started = time.perf_counter()
    asyncio.run(each(found, work, max_in_flight=jobs))
    return [traces[problem.id] for problem in found], time.perf_counter() - started


def first_difference(served: Trace, local: Trace) -> dict[str, Any]:
    """Where two answers part, and how near the two tokens were by what each model said of its own."""
    for a, b in zip(served.steps, local.steps, strict=False):
        for i, (mine, theirs) in enumerate(zip(a.candidate.token_ids, b.candidate.token_ids, strict=False)):
            if mine != theirs:
                both = [(c.logprobs or ())[i] for c in (a.candidate, b.candidate)]
                return {"problem": served.problem.id, "served": both[0], "local": both[1]}
    return {"problem": served.problem.id, "lengths": [len(served.steps), len(local.steps)]}


def parity(found: list[Problem], served: Pair, local: Pair) -> dict[str, Any]:
    """Greedy text of draft and target, each by itself."""
    record: dict[str, Any] = {}
    for role in ("draft", "target"):
        engines = [Pair(draft=getattr(pair, role), target=getattr(pair, role)) for pair in (served, local)]
        theirs, _ = solve_all(found, engines[0], TargetOnly(), 8)
        ours, _ = solve_all(found, engines[1], TargetOnly(), 1)
        differing = [first_difference(a, b) for a, b in zip(theirs, ours, strict=True) if a.text != b.text]
        record[role] = {"same": len(found) - len(differing), "of": len(found), "differences": differing}
    return record


def steps_of(found: list[Problem], served: Pair) -> dict[str, Any]:
    """Tokens computed again, and seconds outside the server, per step; one problem at a time."""
    waited: list[float] = []
    read = HTTPClient._read

    def timed(self: HTTPClient, path: str, response: httpx.Response) -> Any:
        waited.append(response.elapsed.total_seconds())
        return read(self, path, response)

    HTTPClient._read = timed  # type: ignore[method-assign]
    again, own = [], []
    for problem in found:
        waited.clear()
        (trace,), _ = solve_all([problem], served, TargetOnly(), 1)
        own.append((trace.wall_s - sum(waited)) / len(trace.steps))
        for before, step in pairwise(trace.steps):
            again.append(step.candidate.cost.num_computed - before.candidate.num_tokens)
    HTTPClient._read = read  # type: ignore[method-assign]
    return {
        "tokens_computed_again_max": max(again),
        "own_ms_per_step_median": round(1000 * statistics.median(own), 3),
        "steps": len(again) + len(found),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pair", type=Path)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 16])
    arguments = parser.parse_args()
    served, found = load_engines(arguments.pair), problems("tiny:test", arguments.limit)
    solve_all(found[:4], served, TargetOnly(), 4)  # Warms the servers up.
    print(json.dumps({"parity": parity(found, served, load("tiny").pair)}), flush=True)
    print(json.dumps({"steps": steps_of(found[:40], served)}), flush=True)
    rates = {}
    for jobs in arguments.jobs:
        some = problems("tiny:validation", 64 * len(arguments.jobs))[64 * len(rates) :][
            :64
        ]  # Nobody's prefix is cached.
        traces, seconds = solve_all(some, served, TargetOnly(), jobs)
        rates[jobs] = {"problems": len(some), "tokens_per_s": round(sum(t.num_tokens for t in traces) / seconds, 1)}
    print(json.dumps({"throughput": rates}), flush=True)


if __name__ == "__main__":
    main()
