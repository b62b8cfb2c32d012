"""Servers that fail in many ways, and a driver that is killed: ``python benchmarks/faults.py OUT --kills 10``.

Two replicas of a draft and two of a target answer like vLLM, with texts that depend on the prompt alone. First
``arbitrage eval`` solves problems on them undisturbed. Then the servers inject faults by a seeded plan, and the command
is killed with SIGKILL at random moments. It is started again until it succeeds: it also ends by itself where no server
of a model answers at its start. The script prints the faults by kind, and how many solutions are equal, failed with a
named error, different, lost or doubled. Exit status 1 if any is different, lost or doubled, or if the command does not
succeed in time.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from arbitrage.engines.tokens import load_tokenizer
from arbitrage.runtime.store import read_records
from arbitrage.tiny import WEIGHTS

METHODS: Final = "draft,target,random@0.5"
TIMEOUT_S: Final = 2.0
OUTAGE: Final = 25
"""Requests, health checks included, that a server that is down does not answer."""
KINDS: Final = {
    "connection reset": 4,
    "answer cut in the middle": 4,
    "no answer": 1,
    "no JSON": 2,
    "a field is missing": 1,
    "429 with Retry-After": 4,
    "503": 4,
    "500": 1,
    "server down": 1,
}
"""Kinds of faults with their relative frequency."""


@dataclass
class Faults:
    """A seeded plan of faults for all servers."""

    rate: float
    rng: random.Random
    injected: Counter[str] = field(default_factory=Counter)

    def next(self) -> str:
        """The fault of the next request; empty for none."""
        if self.rng.random() >= self.rate:
            return ""
        (kind,) = self.rng.choices(list(KINDS), list(KINDS.values()))
        self.injected[kind] += 1
        return kind


@dataclass
class Server:
    """One replica: the text of a step depends on the model's role and on the prompt."""

    role: str
    tokenizer: Any
    faults: Faults | None = None
    num_left_down: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._one(reader, writer):
                pass
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; returns whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lengths = [line.split(":")[1] for line in head.lower().splitlines() if line.startswith("content-length")]
        body = json.loads(await reader.readexactly(int(lengths[0]))) if lengths else None
        if self.num_left_down:
            self.num_left_down -= 1
            return False
        if body is None:
            writer.write(_response({"data": [{"id": self.role, "max_model_len": 512}]}))
            return True
        kind = self.faults.next() if self.faults else ""
        if kind == "no answer":
            await reader.read()  # Until the client hangs up.
        if kind == "server down":
            self.num_left_down = OUTAGE
        answer = {
            "": _response(self._written(body["prompt"], body["max_tokens"])),
            "answer cut in the middle": _response({"choices": [{"text": "x" * 200}]})[:150],
            "no JSON": _response("<html>"),
            "a field is missing": _response({"choices": [{"text": "x"}]}),
            "429 with Retry-After": _response({"error": "busy"}, 429, "Retry-After: 0\r\n"),
            "503": _response({"error": "restarting"}, 503),
            "500": _response({"error": "a bug"}, 500),
        }.get(kind, b"")
        writer.write(answer)
        await writer.drain()
        return kind in ("", "no JSON", "a field is missing", "429 with Retry-After", "503", "500")

    def _written(self, prompt: list[int], max_tokens: int) -> dict[str, Any]:
        """A step as vLLM returns it."""
        number = int(hashlib.sha256(json.dumps([self.role, prompt]).encode()).hexdigest()[:6], 16)
        is_last = number % 4 == 0
        text = (
            rf"So it is \boxed{{{number % 100}}}." if is_last else f"{self.role} {number % 1000} and {number % 7}.\n\n"
        )
        ids = self.tokenizer.encode(text, add_special_tokens=False) + [self.tokenizer.eos_token_id] * is_last
        cut = ids[:max_tokens]
        choice = {
            "text": text,
            "token_ids": cut,
            "finish_reason": "length" if len(cut) < len(ids) else "stop",
            "stop_reason": None if is_last else "\n\n",
            "logprobs": {"token_logprobs": [-0.5] * len(cut)},
        }
        return {"choices": [choice], "usage": {}}


def _response(body: object, status: int = 200, header: str = "") -> bytes:
    data = (body if isinstance(body, str) else json.dumps(body)).encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n{header}\r\n".encode() + data


@contextlib.contextmanager
def listening(servers: list[Server]) -> Iterator[list[str]]:
    """The servers on free ports, on a thread of their own."""
    loop, urls, ready = asyncio.new_event_loop(), list[str](), threading.Event()

    async def start() -> None:
        for server in servers:
            socket = (await asyncio.start_server(server.serve, "127.0.0.1", 0)).sockets[0]
            urls.append(f"http://127.0.0.1:{socket.getsockname()[1]}")
        ready.set()

    def run() -> None:
        loop.create_task(start())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    yield urls
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def write_inputs(out: Path, urls: list[str], num_problems: int) -> None:
    """The pair file and the problems."""
    tables = [
        f'[{role}]\npath = "{WEIGHTS / role}"\nname = "{role}"\nserved_name = "{role}"\nengine = "vllm"\n'
        f"timeout_s = {TIMEOUT_S}\nurl = {json.dumps(own)}\n"
        for role, own in (("draft", urls[:2]), ("target", urls[2:]))
    ]
    (out / "pair.toml").write_text("\n".join(tables))
    lines = [json.dumps({"id": f"p{i}", "question": f"What is {i} + {i}?", "answer": "1"}) for i in range(num_problems)]
    (out / "problems.jsonl").write_text("\n".join(lines))


def start(out: Path, name: str) -> "subprocess.Popen[bytes]":
    """The evaluation as a process of its own."""
    command = ["eval", "--pair", out / "pair.toml", "--dataset", out / "problems.jsonl", "--policies", METHODS]
    command += ["--jobs", "16", "--max-steps", "12", "--out", out / name]
    with (out / f"{name}.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "arbitrage", *map(str, command)], stdout=log, stderr=log)


def killed(process: "subprocess.Popen[bytes]", traces: Path, seconds: float) -> bool:
    """Kill a process some seconds after it wrote its first solution; False if it ended before."""
    before = traces.stat().st_size if traces.exists() else 0
    while process.poll() is None and (traces.stat().st_size if traces.exists() else 0) == before:
        time.sleep(0.05)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def solutions(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Records by solution."""
    found: dict[str, list[dict[str, Any]]] = {}
    for _, record in read_records(folder / "traces.jsonl"):
        found.setdefault(record["id"], []).append(record)
    return found


def facts(record: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Author and tokens of every step."""
    return [(step["decision"]["source"], *(one["token_ids"] for one in step["candidates"])) for step in record["steps"]]


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--rate", type=float, default=0.1, help="share of requests with a fault")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit-s", type=float, default=1800.0)
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    rng = random.Random(given.seed)
    tokenizer = load_tokenizer(str(WEIGHTS / "draft"))
    servers = [Server(role, tokenizer) for role in ("draft", "draft", "target", "target")]
    with listening(servers) as urls:
        write_inputs(given.out, urls, given.problems)
        if start(given.out, "undisturbed").wait():
            raise SystemExit("the undisturbed run failed: see undisturbed.log")
        faults = Faults(given.rate, rng)
        for server in servers:
            server.faults = faults
        num_killed, num_refused, ended, began = 0, 0, False, time.monotonic()
        while not ended and time.monotonic() < began + given.limit_s:
            process = start(given.out, "disturbed")
            if num_killed < given.kills:
                num_killed += killed(process, given.out / "disturbed" / "traces.jsonl", rng.uniform(0.0, 6.0))
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(began + given.limit_s - time.monotonic())
                process.kill()
            ended = process.wait() == 0
            num_refused += process.returncode == 2
    expected, found = solutions(given.out / "undisturbed"), solutions(given.out / "disturbed")
    failed = {id for id, records in found.items() if records[0]["finish"] == "failed" and records[0]["error"]}
    compared = [id for id in found if id in expected and id not in failed]
    same = [id for id in compared if facts(found[id][0]) == facts(expected[id][0])]
    counts = {
        "solutions": len(expected),
        "equal": len(same),
        "failed with a named error": len(failed),
        "different": len(compared) - len(same),
        "lost": len(expected.keys() - found.keys()),
        "doubled": sum(len(records) > 1 for records in found.values()),
        "hung": int(not ended),
    }
    width = max(map(len, (*KINDS, *counts)))
    for name, count in {
        **faults.injected,
        "all faults": faults.injected.total(),
        "kills": num_killed,
        **counts,
    }.items():
        print(f"{name:<{width}}  {count}")
    errors = Counter(found[id][0]["error"].partition(" answered ")[2][:40] for id in failed)
    print(json.dumps({"seed": given.seed, **counts, "errors": errors}))
    if any(counts[name] for name in ("different", "lost", "doubled", "hung")):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
