"""Many clients at once on scripted models: is every answer right, does anything hang or leak, does memory stay flat?

``python benchmarks/serve_load.py --requests 10000 --streams 1000`` starts the endpoint in a process of its own and
keeps so many connections busy. Of every 1,000 clients 100 read slowly, 200 vanish at a random moment, and 50 send
garbage; the others must get the right text to the byte. It prints one JSON line; its status is 1 if anything is wrong.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.request import urlopen

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))
SLOW, VANISHING, BROKEN = 0.1, 0.2, 0.05
LIMIT_S = 120.0
"""Of one client: longer means hung."""


def serve(port: int, in_flight: int, token_s: float) -> None:
    """Serve scripted models until killed."""
    from arbitrage.engines.scripted import RealClock
    from arbitrage.serving.server import bound
    from arbitrage.serving.server import serve as run
    from arbitrage.serving.service import ServeOptions, Service
    from serving_kit import open_sessions, scripted_pair

    loaded = scripted_pair(clock=RealClock(), seconds_per_token=token_s)
    service = Service(ServeOptions(max_in_flight=in_flight, max_queue=10_000))
    service.metrics.registry.register(_Sessions(lambda: open_sessions(loaded)))
    asyncio.run(run(service, lambda: loaded, bound("127.0.0.1", port)))


class _Sessions:
    """The number of open sessions, beside the server's own counters."""

    def __init__(self, count: Any) -> None:
        self._count = count

    def collect(self) -> Any:
        from prometheus_client.core import GaugeMetricFamily

        yield GaugeMetricFamily("open_sessions", "Sessions of both engines.", value=self._count())


def resident_mb(pid: int) -> float:
    """Memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far."""
    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


def gauge(url: str, name: str) -> float:
    """One value of /metrics."""
    lines = urlopen(f"{url}/metrics").read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


async def client(port: int, number: int, rng: random.Random) -> str:
    """One client of a random kind; returns what became of it."""
    from serving_kit import NAME, expected

    draw, question = rng.random(), f"question {number % 200}"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 12)
    head = "POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    try:
        if draw < BROKEN:
            writer.write(
                rng.choice([b"\x00" * 50, head.encode() + b"Content-Length: 5\r\n\r\n{}{}{", b"GET /x\r\n\r\n"])
            )
            await reader.read()
            return "broken"
        asked = {"model": NAME, "messages": [{"role": "user", "content": question}], "stream": True}
        body = json.dumps(asked).encode()
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        if draw < BROKEN + VANISHING:
            await asyncio.sleep(rng.random())
            return "vanished"
        is_slow, data = draw < BROKEN + VANISHING + SLOW, b""
        while part := await reader.read(256 if is_slow else 65536):
            data += part
            if is_slow:
                await asyncio.sleep(0.02)
    finally:
        writer.transport.abort()
    if b" 429 " in data[:20]:
        return "refused"
    chunks = [json.loads(line[6:]) for line in data.decode().splitlines() if line.startswith("data: {")]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk.get("choices"))
    return "right" if text == expected(question) and b"[DONE]" in data else "wrong"


async def drive(port: int, pid: int, num: int, num_streams: int) -> dict[str, Any]:
    """Keep the streams busy; returns counts and memory."""
    counts, numbers, memory = Counter[str](), iter(range(num)), list[tuple[int, float]]()

    async def lane(seed: int) -> None:
        rng = random.Random(seed)
        for number in numbers:
            try:
                async with asyncio.timeout(LIMIT_S):
                    counts[await client(port, number, rng)] += 1
            except TimeoutError:
                counts["hung"] += 1
            except OSError:
                counts["reset"] += 1
            if number % 500 == 0:
                memory.append((number, round(resident_mb(pid), 1)))

    async with asyncio.TaskGroup() as group:
        for seed in range(num_streams):
            group.create_task(lane(seed))
    return {"counts": dict(counts), "memory_mb": sorted(memory)}


def main() -> None:
    """Run server and clients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--warm-up", type=int, default=4000, help="Requests before memory is compared.")
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--token-s", type=float, default=0.005)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--serve", action="store_true")
    options = parser.parse_args()
    if options.serve:
        serve(options.port, options.in_flight, options.token_s)
        return
    command = [sys.executable, __file__, "--serve", "--port", str(options.port), "--in-flight", str(options.in_flight)]
    server = subprocess.Popen([*command, "--token-s", str(options.token_s)])
    url = f"http://127.0.0.1:{options.port}"
    try:
        for _ in range(200):
            try:
                if urlopen(f"{url}/health").status == 200:
                    break
            except OSError:
                time.sleep(0.1)
        warm = asyncio.run(drive(options.port, server.pid, options.warm_up, options.streams))
        before, cpu_before, started = resident_mb(server.pid), cpu_seconds(server.pid), time.perf_counter()
        result = asyncio.run(drive(options.port, server.pid, options.requests, options.streams))
        seconds, cpu_s = time.perf_counter() - started, cpu_seconds(server.pid) - cpu_before
        time.sleep(2.0)
        after = resident_mb(server.pid)
        left = {name: gauge(url, name) for name in ("open_sessions", "arbitrage_running", "arbitrage_waiting")}
        peak = max(mb for _, mb in result["memory_mb"])
    finally:
        server.terminate()
        server.wait(20)
    counts = result["counts"]
    record = {
        "requests": options.requests,
        "streams": options.streams,
        "seconds": round(seconds, 1),
        "requests_per_s": round(options.requests / seconds, 1),
        "warm_up": warm["counts"],
        "counts": counts,
        "left": left,
        "cpu_ms_per_request": round(1000.0 * cpu_s / options.requests, 2),
        "memory_mb": {"before": round(before, 1), "peak": peak, "after": round(after, 1)},
        "memory_series_mb": [mb for _, mb in result["memory_mb"]],
        "memory_change": round(after / before - 1.0, 4),
    }
    print(json.dumps(record))
    if counts.get("wrong") or counts.get("hung") or any(left.values()) or abs(after / before - 1.0) > 0.05:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
