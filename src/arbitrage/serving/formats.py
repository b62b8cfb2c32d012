"""Answers in the forms of OpenAI's interface: whole, and as the events of a stream."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from arbitrage.core.types import Source
from arbitrage.serving.answer import Delta
from arbitrage.serving.errors import APIError
from arbitrage.serving.solving import Solution
from arbitrage.serving.usage import Usage
from arbitrage.version import __version__

FINGERPRINT: Final = f"arbitrage-{__version__}"
DONE: Final = b"data: [DONE]\n\n"
Event = dict[str, Any]


def event_bytes(event: Event) -> bytes:
    """An event of a stream as it is sent; one with a type carries it as its name too."""
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {json.dumps(event)}\n\n".encode()


def summary(solutions: Sequence[Solution], *, with_trace: bool) -> dict[str, Any]:
    """The object ``arbitrage`` of an answer: of its only solution, or of all together."""
    records = [one.record(with_trace=with_trace) for one in solutions]
    if len(records) == 1:
        return records[0]
    steps = [record["steps"] for record in records]
    seconds = [record["seconds"] for record in records]
    names = {name: None for one in seconds for name in one}
    return {
        "method": records[0]["method"],
        "threshold": records[0]["threshold"],
        "steps": {source.value: sum(one[source.value] for one in steps) for source in Source},
        "seconds": {name: round(sum(one.get(name, 0.0) for one in seconds), 6) for name in names},
        "choices": records,
    }


class Format(Protocol):
    """One of the interfaces."""

    def head(self, num_choices: int) -> list[Event]:
        """Events at the beginning of a stream."""

    def delta(self, index: int, delta: Delta) -> list[Event]:
        """Events of a part of an answer."""

    def step(self, index: int, record: dict[str, Any]) -> list[Event]:
        """Events of a decided step."""

    def end(self, solution: Solution) -> list[Event]:
        """Events at the end of one solution."""

    def tail(self, solutions: Sequence[Solution]) -> list[Event]:
        """Events behind all solutions."""

    def failed(self, error: APIError) -> list[Event]:
        """Events of an error in a stream that has begun."""

    def whole(self, solutions: Sequence[Solution]) -> dict[str, Any]:
        """The answer that is no stream."""


@dataclass(slots=True, kw_only=True)
class ChatFormat:
    """``/v1/chat/completions``."""

    id: str
    model: str
    created: int
    includes_usage: bool = False
    with_trace: bool = False
    kind: str = "chat.completion"
    part_kind: str = "chat.completion.chunk"

    def head(self, num_choices: int) -> list[Event]:
        """The role of each answer."""
        return [self._part(i, {"role": "assistant", "content": ""}) for i in range(num_choices)]

    def delta(self, index: int, delta: Delta) -> list[Event]:
        """A part of the content, or of the thinking under the names that clients know."""
        text = delta.text
        names = {"reasoning_content": text, "reasoning": text} if delta.is_thinking else {"content": text}
        return [self._part(index, names) | {"arbitrage": {"author": delta.author.value}}]

    def step(self, index: int, record: dict[str, Any]) -> list[Event]:
        """A part without text that carries the step."""
        return [self._part(index, {}) | {"arbitrage": {"author": record["author"], "step": record}}]

    def end(self, solution: Solution) -> list[Event]:
        """The reason of the end; method, threshold, authors and times of the answer."""
        record = solution.record(with_trace=self.with_trace)
        return [self._part(solution.index, {}, solution.finish_reason) | {"arbitrage": record}]

    def tail(self, solutions: Sequence[Solution]) -> list[Event]:
        """The token counts, where they are asked for."""
        if not self.includes_usage:
            return []
        provenance = {"arbitrage": summary(solutions, with_trace=False)}
        usage = Usage.of(solutions).completion_json()
        return [self._envelope(self.part_kind) | {"choices": [], "usage": usage} | provenance]

    def failed(self, error: APIError) -> list[Event]:
        """The error."""
        return [error.body]

    def whole(self, solutions: Sequence[Solution]) -> dict[str, Any]:
        """All answers with token counts."""
        return {
            **self._envelope(self.kind),
            "choices": [self._choice(one) for one in solutions],
            "usage": Usage.of(solutions).completion_json(),
            "arbitrage": summary(solutions, with_trace=self.with_trace),
        }

    def _choice(self, solution: Solution) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": solution.answer.content, "refusal": None}
        if thinking := solution.answer.thinking:
            message |= {"reasoning_content": thinking, "reasoning": thinking}
        reason = solution.finish_reason
        return {"index": solution.index, "message": message, "logprobs": None, "finish_reason": reason}

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
        }

    def _part(self, index: int, delta: dict[str, Any], reason: str | None = None) -> Event:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        usage = {"usage": None} if self.includes_usage else {}
        return self._envelope(self.part_kind) | {"choices": [choice]} | usage


@dataclass(slots=True, kw_only=True)
class TextFormat(ChatFormat):
    """``/v1/completions``: thinking stands beside the text here too."""

    kind: str = "text_completion"
    part_kind: str = "text_completion"

    def head(self, num_choices: int) -> list[Event]:
        """Nothing: there are no roles."""
        return []

    def _choice(self, solution: Solution) -> dict[str, Any]:
        thinking = solution.answer.thinking
        names = {"reasoning_content": thinking, "reasoning": thinking} if thinking else {}
        choice = {"index": solution.index, "text": solution.answer.content, "logprobs": None}
        return choice | {"finish_reason": solution.finish_reason} | names

    def _part(self, index: int, delta: dict[str, Any], reason: str | None = None) -> Event:
        names = {name: text for name, text in delta.items() if name != "content"}
        choice = {"index": index, "text": delta.get("content", ""), "logprobs": None, "finish_reason": reason, **names}
        usage = {"usage": None} if self.includes_usage else {}
        return self._envelope(self.part_kind) | {"choices": [choice]} | usage


@dataclass(slots=True, kw_only=True)
class ResponsesFormat:
    """``/v1/responses``: the thinking is an item of its own in front of the message."""

    id: str
    model: str
    created: int
    asked: dict[str, Any]
    """Fields of the request that the answer repeats."""
    with_trace: bool = False
    _num_events: int = 0
    _item: dict[str, Any] | None = None
    """The item that is being written, its text included."""
    _items: list[dict[str, Any]] = field(default_factory=list)

    def head(self, num_choices: int) -> list[Event]:
        """The response without output."""
        begun = self._response("in_progress", [])
        return [
            self._event("response.created", response=begun),
            self._event("response.in_progress", response=begun),
        ]

    def delta(self, index: int, delta: Delta) -> list[Event]:
        """A part of an item; the first one begins it."""
        kind = "reasoning" if delta.is_thinking else "message"
        events = [] if self._item and self._item["type"] == kind else [*self._closed(), *self._begun(kind)]
        assert self._item is not None
        part = self._item["content"][0]
        part["text"] += delta.text
        name = "response.reasoning_text.delta" if delta.is_thinking else "response.output_text.delta"
        extra: dict[str, Any] = {} if delta.is_thinking else {"logprobs": []}
        own = {"arbitrage": {"author": delta.author.value}}
        return [*events, self._event(name, **self._place(), delta=delta.text, **extra, **own)]

    def step(self, index: int, record: dict[str, Any]) -> list[Event]:
        """An event of its own, which other clients pass over."""
        return [self._event("response.arbitrage.step", step=record)]

    def end(self, solution: Solution) -> list[Event]:
        """The end of the last item; an answer without content has an empty message."""
        events = [] if self._item and self._item["type"] == "message" else [*self._closed(), *self._begun("message")]
        return [*events, *self._closed()]

    def tail(self, solutions: Sequence[Solution]) -> list[Event]:
        """The whole response."""
        whole = self._completed(solutions[0], self._items)
        name = "response.completed" if whole["status"] == "completed" else "response.incomplete"
        return [self._event(name, response=whole)]

    def failed(self, error: APIError) -> list[Event]:
        """The error, and the response as failed."""
        described = error.body["error"]
        failed = self._response("failed", self._items) | {
            "error": {"code": "server_error", "message": described["message"]}
        }
        extra = {key: described[key] for key in ("code", "message", "param")}
        return [self._event("error", **extra), self._event("response.failed", response=failed)]

    def whole(self, solutions: Sequence[Solution]) -> dict[str, Any]:
        """The response with its items."""
        (solution,) = solutions
        texts = [("reasoning", solution.answer.thinking)] if solution.answer.thinking else []
        items = [self._new_item(i, *given) for i, given in enumerate([*texts, ("message", solution.answer.content)])]
        return self._completed(solution, [item | {"status": "completed"} for item in items])

    def _completed(self, solution: Solution, items: list[dict[str, Any]]) -> dict[str, Any]:
        is_cut = solution.finish_reason == "length"
        return self._response("incomplete" if is_cut else "completed", items) | {
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "usage": Usage.of([solution]).response_json(),
            "arbitrage": solution.record(with_trace=self.with_trace),
        }

    def _response(self, status: str, items: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": self.model,
            "output": items,
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "text": {"format": {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "truncation": "disabled",
            "metadata": {},
            "usage": None,
            **self.asked,
        }

    def _new_item(self, number: int, kind: str, text: str) -> dict[str, Any]:
        if kind == "reasoning":
            part: dict[str, Any] = {"type": "reasoning_text", "text": text}
            extra: dict[str, Any] = {"summary": []}
        else:
            part, extra = (
                {"type": "output_text", "text": text, "annotations": [], "logprobs": []},
                {"role": "assistant"},
            )
        prefix = "rs" if kind == "reasoning" else "msg"
        return {"id": f"{prefix}_{self.id}_{number}", "type": kind, "status": "in_progress", **extra, "content": [part]}

    def _begun(self, kind: str) -> list[Event]:
        self._item = self._new_item(len(self._items), kind, "")
        (part,), place = self._item["content"], self._place()
        empty = self._item | {"content": []}
        return [
            self._event("response.output_item.added", output_index=place["output_index"], item=empty),
            self._event("response.content_part.added", **place, part=dict(part)),
        ]

    def _closed(self) -> list[Event]:
        if self._item is None:
            return []
        (part,), place = self._item["content"], self._place()
        is_thinking = self._item["type"] == "reasoning"
        name = "response.reasoning_text.done" if is_thinking else "response.output_text.done"
        extra: dict[str, Any] = {} if is_thinking else {"logprobs": []}
        done = self._item | {"status": "completed"}
        self._items, self._item = [*self._items, done], None
        return [
            self._event(name, **place, text=part["text"], **extra),
            self._event("response.content_part.done", **place, part=part),
            self._event("response.output_item.done", output_index=place["output_index"], item=done),
        ]

    def _place(self) -> dict[str, Any]:
        assert self._item is not None
        return {"item_id": self._item["id"], "output_index": len(self._items), "content_index": 0}

    def _event(self, type: str, **values: Any) -> Event:
        self._num_events += 1
        return {"type": type, "sequence_number": self._num_events - 1, **values}
