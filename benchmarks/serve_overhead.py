"""What the endpoint costs over ``solve`` in the same process, per step, one request at a time.

``python benchmarks/serve_overhead.py --problems 100 --method router`` solves each problem directly, over HTTP as a
whole, and over HTTP as a stream, in turn and in another order for each problem. Client and server share this process,
so the client's own work counts too. It prints one JSON line: medians of wall-clock and of processor time, with
intervals from 2,000 resamples of problems. Where other jobs share the cores, wall-clock counts their turns too.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from arbitrage.datasets.named import problems
from arbitrage.pairs.loaded import load
from serving_kit import running


def interval(values: list[float], rng: random.Random) -> list[float]:
    """A 95 % interval of the median."""
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(2000))
    return [round(medians[50], 4), round(medians[1949], 4)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--method", default="router")
    options = parser.parse_args()
    loaded, rng = load("tiny", policies=[options.method]), random.Random(0)
    overheads: dict[str, list[float]] = {"whole": [], "stream": []}
    cpu_overheads: dict[str, list[float]] = {"whole": [], "stream": []}
    steps: list[int] = []
    per_step: list[float] = []
    with running(loaded, method=options.method) as server, httpx.Client(base_url=server.url, timeout=120) as client:

        def direct(question: str) -> Any:
            work = loaded.solve_async(question, policy=options.method)
            return asyncio.run_coroutine_threadsafe(work, server.loop).result()

        def asked(question: str, **fields: Any) -> dict[str, Any]:
            return {"model": "tiny", "messages": [{"role": "user", "content": question}], **fields}

        def whole(question: str) -> None:
            client.post("/v1/chat/completions", json=asked(question)).json()

        def stream(question: str) -> None:
            with client.stream("POST", "/v1/chat/completions", json=asked(question, stream=True)) as answer:
                for line in answer.iter_lines():
                    if line.startswith("data: {"):
                        json.loads(line[6:])

        def timed(call: Callable[[str], Any], question: str) -> tuple[float, float, Any]:
            started, cpu_started = time.perf_counter(), time.process_time()
            result = call(question)
            return time.perf_counter() - started, time.process_time() - cpu_started, result

        given = [problem.question for problem in problems("tiny:test", options.problems + 5)]
        for number, question in enumerate(given):
            calls: dict[str, Callable[[str], Any]] = {"direct": direct, "whole": whole, "stream": stream}
            seconds, cpu = dict[str, float](), dict[str, float]()
            num_steps = 1
            for name in rng.sample(list(calls), 3):
                seconds[name], cpu[name], result = timed(calls[name], question)
                num_steps = len(result.steps) if name == "direct" else num_steps
            if number < 5:  # Warm up.
                continue
            steps.append(num_steps)
            per_step.append(1000.0 * seconds["direct"] / num_steps)
            for name in overheads:
                overheads[name].append(1000.0 * (seconds[name] - seconds["direct"]) / num_steps)
                cpu_overheads[name].append(1000.0 * (cpu[name] - cpu["direct"]) / num_steps)
    record = {
        "method": options.method,
        "num_problems": len(steps),
        "num_steps": sum(steps),
        "direct_ms_per_step": round(statistics.median(per_step), 3),
        **{
            f"{name}_{kind}_overhead_ms_per_step": {
                "median": round(statistics.median(values[name]), 3),
                "95%": interval(values[name], rng),
            }
            for name in overheads
            for kind, values in (("wall", overheads), ("cpu", cpu_overheads))
        },
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
