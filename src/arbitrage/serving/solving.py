"""One solution for a client: solved by a method, shown part by part, ended by a stop string or by the client."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from arbitrage.core.ports import Engine
from arbitrage.core.trace import Trace
from arbitrage.core.turn import OnText, Setting
from arbitrage.core.types import Cost, Finish, Problem, Source, Step
from arbitrage.serving.answer import AnswerText, Delta, num_tokens_within
from arbitrage.serving.errors import APIError, engine_failed
from arbitrage.serving.models import Method
from arbitrage.serving.prompts import num_tokens

LOG: Final = logging.getLogger("arbitrage.serving")
COMPLETE: Final = frozenset({Finish.END_OF_SEQUENCE, Finish.ANSWERED})
"""Endings that clients know as ``stop``; all others are cuts, ``length``."""


class Watcher(Protocol):
    """Gets what happens to one solution, on the event loop."""

    def on_delta(self, index: int, delta: Delta) -> None:
        """A part of the answer."""

    def on_step(self, index: int, number: int, step: Step, threshold: float | None, wall_s: float) -> None:
        """A step is decided; its text was given to :meth:`on_delta` before, unless a part is held back."""

    def on_end(self, solution: "Solution") -> None:
        """The solution is over, whether it succeeded or not."""


@dataclass(slots=True, kw_only=True, eq=False)
class Solution:
    """One solution of a request."""

    index: int
    """Of the choice in the answer."""
    problem: Problem
    setting: Setting
    method: Method
    answer: AnswerText
    engine_of: Callable[[Source], Engine]
    request_id: str
    shows_parts: bool
    """Whether text is wanted while a step is written: for a stream, or to stop at a stop string."""
    num_prompt: int
    """Tokens of the prompt, as the target reads it; as the draft does where only the draft writes."""
    started: float = field(default_factory=time.monotonic)
    trace: Trace | None = None
    error: APIError | None = None
    num_partial: int = 0
    """Tokens of a step that a stop string cut short."""
    _num_steps: int = 0
    _in_step: list[tuple[Source, str]] = field(default_factory=list)
    """What was shown of the step that is being written."""

    async def run(self, watcher: Watcher) -> None:
        """Solve; errors are kept in :attr:`error`.

        Raises:
            asyncio.CancelledError: If cancelled, after the engines are at rest.
        """
        try:
            await self._solve(watcher)
        except asyncio.CancelledError:
            raise
        except Exception:  # A bug: the client gets an answer, the log the rest.
            LOG.exception("%s: the solution failed", self.request_id)
            self.error = engine_failed(self.request_id)
        self._close(watcher)
        watcher.on_end(self)

    async def _solve(self, watcher: Watcher) -> None:
        work: asyncio.Task[Trace] | None = None

        def show(author: Source, text: str) -> None:
            for delta in self.answer.write(author, text):
                watcher.on_delta(self.index, delta)
            if self.answer.is_stopped and work is not None:
                work.cancel()

        def on_text(author: Source, text: str) -> None:
            if not self.answer.is_stopped:
                self._in_step.append((author, text))
                show(author, text)

        def watch(trace: Trace) -> None:
            self._take(trace, show, watcher)

        parts = on_text if self.shows_parts else None
        work = asyncio.ensure_future(self.method.solver.solve(self.problem, self.setting, watch=watch, on_text=parts))
        try:
            watch(await work)
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            if not self.answer.is_stopped:
                raise
            if (task := asyncio.current_task()) and task.cancelling():
                raise

    def _take(self, trace: Trace, show: OnText, watcher: Watcher) -> None:
        """Show the steps that are new."""
        self.trace = trace
        for number in range(self._num_steps, len(trace.steps)):
            step, shown = trace.steps[number], "".join(text for _, text in self._in_step)
            self._in_step.clear()
            self._num_steps = number + 1
            if not self.answer.is_stopped and step.text.startswith(shown):
                num_shown = len(shown)
                for author, text in step.candidate.parts:
                    show(author, text[num_shown:])
                    num_shown = max(0, num_shown - len(text))
            watcher.on_step(self.index, number, step, self.method.spec.threshold, trace.wall_s)

    def _close(self, watcher: Watcher) -> None:
        for delta in self.answer.close():
            watcher.on_delta(self.index, delta)
        for author in {author for author, _ in self._in_step}:
            text = "".join(text for source, text in self._in_step if source is author)
            self.num_partial += num_tokens(self.engine_of(author), text)
        if self.trace is not None and self.trace.finish is Finish.FAILED and self.error is None:
            LOG.error("%s: %s", self.request_id, self.trace.error)
            self.error = engine_failed(self.request_id)

    @property
    def finish_reason(self) -> str:
        """Why the answer ends, as clients know it."""
        if self.answer.is_stopped or (self.trace is not None and self.trace.finish in COMPLETE):
            return "stop"
        return "length"

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps so far."""
        return self.trace.steps if self.trace else ()

    @property
    def num_tokens(self) -> int:
        """Tokens of the answer, each step in its author's."""
        return (self.trace.num_tokens if self.trace else 0) + self.num_partial

    @property
    def num_thinking_tokens(self) -> int:
        """Those of the thinking."""
        cut = self.num_partial, sum(len(text) for _, text in self._in_step)
        parts = [*((step.candidate.num_tokens, len(step.text)) for step in self.steps), cut]
        return num_tokens_within(self.answer.num_thinking, parts)

    @property
    def costs(self) -> dict[str, Cost]:
        """Cost by model."""
        return self.trace.usage if self.trace else {}

    def record(self, *, with_trace: bool) -> dict[str, Any]:
        """Method, threshold, authors and times of the answer, for the client."""
        authors = [step.source for step in self.steps]
        trace, threshold = self.trace, self.method.spec.threshold
        finish = "stop_string" if self.answer.is_stopped else trace.finish.value if trace and trace.finish else None
        record: dict[str, Any] = {
            "method": self.method.spec.name,
            "threshold": threshold,
            "finish": finish,
            "steps": {source.value: authors.count(source) for source in Source},
            "target_share": trace.target_token_share if trace else None,
            "seconds": {name: round(cost.seconds, 6) for name, cost in self.costs.items()},
            "wall_s": round(trace.wall_s, 6) if trace else None,
        }
        if with_trace and trace is not None:
            record["trace"] = replace(trace, error=None).to_json()
        return record


def step_record(number: int, step: Step, threshold: float | None, wall_s: float) -> dict[str, Any]:
    """A decided step as an event of a stream."""
    costs = [*(one.cost for one in step.candidates), *(one.cost for one in step.scores)]
    return {
        "index": number,
        "author": step.source.value,
        "text": step.text,
        "finish": step.finish.value,
        "candidates": [
            {
                "author": one.source.value,
                "text": one.text,
                "tokens": one.num_tokens,
                "ms": round(1000.0 * one.cost.seconds, 3),
                "kept": one is step.candidate,
            }
            for one in step.candidates
        ],
        "scores": [{"scorer": one.scorer, "author": one.source.value, "value": one.value} for one in step.scores],
        "score": step.decision.score,
        "threshold": threshold,
        "ms": round(1000.0 * sum(cost.seconds for cost in costs), 3),
        "wall_ms": round(1000.0 * wall_s, 3),
    }
