"""The loaded pair behind the endpoint: who may run, what runs, and what was counted."""

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Limits, Problem, Source
from arbitrage.pairs.loaded import LoadedPair
from arbitrage.serving.admission import Admission
from arbitrage.serving.answer import AnswerText
from arbitrage.serving.errors import bad_field, loading
from arbitrage.serving.keys import Keys
from arbitrage.serving.metrics import Metrics
from arbitrage.serving.models import Method, ModelTable
from arbitrage.serving.prompts import check_reads, prompt_ids, template_mark
from arbitrage.serving.requests import Bounds, SolveRequest
from arbitrage.serving.solving import Solution
from arbitrage.serving.thinking import Splitter, continued_mark

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Limits of a server.

    Raises:
        ConfigError: If one is out of range.
    """

    method: str = ""
    """The method of the pair's name; empty for the pair's default."""
    max_in_flight: int = 16
    max_queue: int = 256
    max_request_bytes: int = 1 << 20
    deadline_s: float = 600.0
    """Of a request, waiting and sending included."""
    max_tokens: int = Limits().max_tokens
    """Of an answer whose request names no limit."""
    max_steps: int = Limits().max_steps
    keys: Keys = field(default_factory=Keys)
    only_loopback: bool = True
    """Whether requests must name this machine as their host: without this check and without keys, a page of another
    site could send requests."""

    def __post_init__(self) -> None:
        Admission(self.max_in_flight, self.max_queue)
        Limits(max_tokens=self.max_tokens, max_steps=self.max_steps)
        if self.max_request_bytes < 1024:
            raise ConfigError(f"max_request_bytes must be at least 1024, got {self.max_request_bytes}")
        if not 0.0 < self.deadline_s < float("inf"):
            raise ConfigError(f"the deadline must be above 0 s, got {self.deadline_s}")

    @property
    def bounds(self) -> Bounds:
        """Defaults of a request."""
        return Bounds(max_tokens=self.max_tokens, max_steps=self.max_steps)


@dataclass(frozen=True, slots=True)
class Ready:
    """A loaded pair with what is known of it."""

    loaded: LoadedPair
    models: ModelTable
    marks: dict[Source, str]
    """By author: the mark of thinking that its template opens."""
    created: int


class Service:
    """Everything that requests share."""

    def __init__(self, options: ServeOptions, metrics: Metrics | None = None) -> None:
        """Start without a pair."""
        self.options, self.metrics = options, metrics or Metrics()
        self.admission = Admission(options.max_in_flight, options.max_queue)
        self.running: dict[Solution, str] = {}
        """Solutions in flight with the model ids that they were asked for by."""
        self._ready: Ready | None = None
        # One thread: tokenisers are not made for several, and must not block the event loop.
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix="arbitrage-encoding")
        self.metrics.running.set_function(lambda: self.admission.num_running)
        self.metrics.waiting.set_function(lambda: self.admission.num_waiting)

    def use(self, loaded: LoadedPair) -> None:
        """Serve a pair from now on.

        Raises:
            ConfigError: If it cannot run the default method.
        """
        marks = {source: template_mark(loaded.pair.engine(source)) for source in Source}
        self._ready = Ready(loaded, ModelTable(loaded, self.options.method), marks, int(time.time()))

    @property
    def is_ready(self) -> bool:
        """Whether the pair is loaded."""
        return self._ready is not None

    @property
    def ready(self) -> Ready:
        """The loaded pair.

        Raises:
            APIError: If it is not loaded yet.
        """
        if self._ready is None:
            raise loading()
        return self._ready

    async def encoding(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call what tokenises off the event loop."""
        work = functools.partial(call, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self._encoding, work)

    async def solutions(self, request: SolveRequest, request_id: str) -> list[Solution]:
        """Check a request against the pair, and prepare its solutions.

        Raises:
            APIError: If the model does not exist, a prompt leaves no room, or so many solutions never fit.
        """
        ready = self.ready
        method = ready.models.method(request.model, request.extension)
        count = len(request.problems) * request.num_choices
        if count > self.options.max_in_flight + self.options.max_queue:
            most = self.options.max_in_flight + self.options.max_queue
            raise bad_field("n", f"the request asks for {count} answers, this server takes {most} at a time")
        lengths = [await self.encoding(self._num_prompt, method, problem) for problem in request.problems]
        solutions = list[Solution]()
        for problem, length in zip(request.problems, lengths, strict=True):
            for attempt in range(request.num_choices):
                setting = replace(request.setting, attempt=attempt)
                index = len(solutions)
                solutions.append(
                    Solution(
                        index=index,
                        problem=problem,
                        setting=setting,
                        method=method,
                        answer=AnswerText(self._splitter(problem, method), request.stops),
                        engine_of=ready.loaded.pair.engine,
                        request_id=request_id,
                        shows_parts=request.streams or bool(request.stops),
                        num_prompt=length,
                    )
                )
        return solutions

    def status(self) -> dict[str, Any]:
        """What happens now, without any text of a request."""
        ready, now = self._ready, time.monotonic()
        running = [
            {
                "id": solution.request_id,
                "choice": solution.index,
                "model": model,
                "method": str(solution.method.spec),
                "steps": [step.source.value for step in solution.steps],
                "tokens": solution.num_tokens,
                "seconds": round(now - solution.started, 3),
            }
            for solution, model in self.running.items()
        ]
        return {
            "status": "ok" if ready else "loading",
            "pair": ready.loaded.name if ready else None,
            "default_method": str(ready.models.default) if ready else None,
            "methods": self._methods(ready.models) if ready else [],
            "running": running,
            "num_running": self.admission.num_running,
            "num_waiting": self.admission.num_waiting,
            "max_in_flight": self.options.max_in_flight,
            "max_queue": self.options.max_queue,
            **self.metrics.rates(),
        }

    def _methods(self, models: ModelTable) -> Sequence[dict[str, Any]]:
        name, default = models.loaded.name, models.default
        specs = [default if spec.name == default.name else spec for spec in models.methods]  # With its own threshold.
        return [{"name": spec.name, "id": f"{name}/{spec.name}", "threshold": spec.threshold} for spec in specs]

    def _num_prompt(self, method: Method, problem: Problem) -> int:
        """Tokens of the prompt that counts as the solution's; all writers and scorers must read the conversation.

        Raises:
            APIError: If one does not, or a writer's prompt leaves no room.
        """
        engine_of, models = self.ready.loaded.pair.engine, self.ready.loaded.models
        for role in method.spec.scorer_roles:
            check_reads(models.prm if role == "prm" else models.routers.get(role), problem)
        first, *_ = [len(prompt_ids(engine_of(source), problem)) for source in method.spec.writers]
        return first

    def _splitter(self, problem: Problem, method: Method) -> Splitter:
        if problem.prefix:
            return Splitter(continued_mark(problem.prefix), has_begun=True)
        return Splitter(self.ready.marks[method.spec.writers[0]])
