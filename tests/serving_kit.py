"""An endpoint on scripted models: in this process without a socket, or as a real server on a free port."""

import asyncio
import hashlib
import json
import re
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from arbitrage.core.turn import Pair
from arbitrage.core.types import Candidate, Problem, Source
from arbitrage.engines.scripted import Clock, ScriptedEngine, ScriptedSession, VirtualClock
from arbitrage.grading import is_same
from arbitrage.pairs.config import PairConfig
from arbitrage.pairs.hf import HFModel
from arbitrage.pairs.loaded import LoadedPair
from arbitrage.policies.table import Models
from arbitrage.scorers.scripted import ScriptedScorer
from arbitrage.serving.app import application
from arbitrage.serving.server import bound, serve
from arbitrage.serving.service import ServeOptions, Service

NAME = "pair"


def answer_of(question: str, author: str = "draft", *, num_steps: int = 4) -> str:
    """What an echoing model says: it depends on the question, and on who says it."""
    number = int(hashlib.sha256(question.encode()).hexdigest()[:4], 16) % 1000
    steps = [f"{author} {number} step {i} says w{(number + i) % 7}" for i in range(num_steps - 1)]
    return "\n\n".join([*steps, rf"{author} ends: \boxed{{{number}}}"])


def expected(question: str, escalated: Callable[[int], bool] = lambda i: i % 2 == 1) -> str:
    """What the pair says under ``rsd``: odd steps are the target's."""
    texts = {author: answer_of(question, author).split("\n\n") for author in ("draft", "target")}
    steps = [texts["target" if escalated(i) else "draft"][i] for i in range(4)]
    return "\n\n".join(steps)


class Echo(ScriptedEngine):
    """A scripted engine whose script depends on the question."""

    say: Callable[[str, str], str] = staticmethod(answer_of)

    async def open(self, problem: Problem, source: Source) -> ScriptedSession:
        if not isinstance(self.calls, deque):
            self.calls = deque(maxlen=64)  # A server lives long.
        self.open_sessions += 1
        return ScriptedSession(self, self.say(problem.question, source.value), problem, source)


def scripted_pair(
    draft: Any = None, target: Any = None, *, clock: Clock | None = None, seconds_per_token: float = 0.0
) -> LoadedPair:
    """A pair whose PRM dislikes the draft's odd steps; its default method is ``rsd``."""
    clock = clock or VirtualClock()

    def engine(given: Any, name: str) -> Any:
        if given is None or isinstance(given, str):
            kind, script = (Echo, "") if given is None else (ScriptedEngine, given)
            return kind(script=script, name=name, clock=clock, seconds_per_token=seconds_per_token)
        return given

    def value(index: int, candidate: Candidate) -> float:
        return 0.0 if index % 2 else 0.9

    config = PairConfig(
        name=NAME,
        draft=HFModel(path="/secret/folder/draft"),
        target=HFModel(path="/secret/folder/target"),
        prm=HFModel(path="/secret/folder/prm"),
        default_method="rsd",
    )
    models = Models(
        pair_name=NAME,
        pair=Pair(draft=engine(draft, "d"), target=engine(target, "t")),
        is_same_answer=is_same,
        prm=ScriptedScorer(value=value, name="prm"),
        configured=frozenset(config.models),
    )
    return LoadedPair(config=config, models=models)


def open_sessions(loaded: LoadedPair) -> int:
    """Sessions of both engines that are open."""
    return loaded.pair.draft.open_sessions + loaded.pair.target.open_sessions


@dataclass
class Endpoint:
    """An application without a socket, and a client of it."""

    service: Service
    loaded: LoadedPair
    client: httpx.AsyncClient

    async def post(self, path: str, **body: Any) -> httpx.Response:
        return await self.client.post(path, json=body)

    async def chat(self, question: str = "What is 2 + 2 ?", **fields: Any) -> httpx.Response:
        body = {"model": NAME, "messages": [{"role": "user", "content": question}], **fields}
        return await self.post("/v1/chat/completions", **body)


@asynccontextmanager
async def endpoint(
    loaded: LoadedPair | None = None, *, counts_sessions: bool = True, **options: Any
) -> AsyncIterator[Endpoint]:
    """An endpoint in this process."""
    loaded = loaded or scripted_pair()
    service = Service(ServeOptions(**{"only_loopback": False, **options}))
    service.use(loaded)
    transport = httpx.ASGITransport(application(service))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield Endpoint(service, loaded, client)
    assert not counts_sessions or open_sessions(loaded) == 0
    assert service.admission.num_running == service.admission.num_waiting == 0
    assert not service.running


def events(response: httpx.Response) -> list[Any]:
    """The objects of a stream, ``[DONE]`` checked and left out."""
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    blocks = [block for block in response.text.split("\n\n") if block]
    data = [re.sub(r"^event: [^\n]*\n", "", block) for block in blocks if not block.startswith(":")]
    assert all(line.startswith("data: ") for line in data)
    assert data[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in data[:-1]]


def joined(chunks: list[Any], name: str = "content", index: int = 0) -> str:
    """The deltas of one choice in one field."""
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ()) if choice["index"] == index]
    return "".join(choice["delta"].get(name) or "" for choice in choices)


@dataclass
class Running:
    """A real server."""

    url: str
    service: Service
    loaded: LoadedPair
    loop: asyncio.AbstractEventLoop
    problems: list[BaseException] = field(default_factory=list)


@contextmanager
def running(loaded: LoadedPair, **options: Any) -> Iterator[Running]:
    """A real server on a free port, in a thread with an event loop of its own."""
    service, listening = Service(ServeOptions(**options)), bound("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    ready, started = threading.Event(), list[Running]()
    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        started.append(Running(url, service, loaded, asyncio.get_running_loop()))
        task = asyncio.ensure_future(serve(service, lambda: loaded, listening, on_ready=ready.set))
        tasks.append(task)
        try:
            await task
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            started[0].problems.append(error)
            ready.set()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield started[0]
    finally:
        started[0].loop.call_soon_threadsafe(tasks[0].cancel)
        thread.join(30)
        assert not thread.is_alive()
    assert not started[0].problems
