"""From the body of a request to what is to be solved, in our own terms; fields that cannot be honoured are refused."""

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from arbitrage.core.errors import ConfigError, ProblemError
from arbitrage.core.turn import Setting
from arbitrage.core.types import Limits, Message, Problem, Role, Sampling
from arbitrage.serving.errors import bad_field, unsupported
from arbitrage.serving.schemas import (
    Asked,
    ChatBody,
    Choices,
    CompletionBody,
    Extension,
    ResponsesBody,
    TextMessage,
)

QUESTION_ID: Final = "question"
"""The id of every problem, as in ``arbitrage solve``: seeds derive from it, so that both write the same text."""
_NAME: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)
_EMPTY: Final[tuple[Any, ...]] = (None, False, "", [], {})


def _unless(*values: object) -> Callable[[Any], bool]:
    return lambda value: all(
        value != neutral or isinstance(value, bool) != isinstance(neutral, bool) for neutral in values
    )


_UNLESS_EMPTY: Final = _unless(*_EMPTY)
_UNLESS_ZERO: Final = _unless(None, 0)
REFUSED: Final[Mapping[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(
        (
            "tools",
            "functions",
            "function_call",
            "logprobs",
            "prompt_logprobs",
            "logit_bias",
            "audio",
            "prediction",
            "web_search_options",
            "reasoning_effort",
            "verbosity",
            "chat_template",
            "chat_template_kwargs",
            "documents",
            "echo",
            "suffix",
            "ignore_eos",
            "stop_token_ids",
            "bad_words",
            "allowed_token_ids",
            "structured_outputs",
            "guided_json",
            "guided_regex",
            "guided_choice",
            "guided_grammar",
            "use_beam_search",
            "include_stop_str_in_output",
            "previous_response_id",
            "conversation",
            "background",
            "prompt_cache_retention",
        ),
        _UNLESS_EMPTY,
    ),
    **dict.fromkeys(("presence_penalty", "frequency_penalty", "min_tokens", "top_logprobs"), _UNLESS_ZERO),
    "repetition_penalty": _unless(None, 1),
    "best_of": _unless(None, 1),
    "tool_choice": _unless(None, "none", "auto"),
    "response_format": _unless(None, {"type": "text"}),
    "modalities": _unless(None, ["text"]),
    "truncation": _unless(None, "disabled"),
    "add_generation_prompt": _unless(None, True),
}
"""Fields that would change the answer and that no engine honours: each is refused unless its value changes nothing."""
REFUSED_OF_RESPONSES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "reasoning": lambda value: bool(isinstance(value, dict) and value.get("effort")),
    "text": lambda value: isinstance(value, dict) and value.get("format") not in (None, {"type": "text"}),
    "include": lambda value: value != ["reasoning.encrypted_content"] and _UNLESS_EMPTY(value),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Defaults of a request."""

    max_tokens: int = Limits().max_tokens
    max_steps: int = Limits().max_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveRequest:
    """What is to be solved, and how."""

    model: str
    problems: tuple[Problem, ...]
    setting: Setting
    num_choices: int = 1
    """Solutions of each problem."""
    stops: tuple[str, ...] = ()
    streams: bool = False
    includes_usage: bool = False
    extension: Extension
    user: str = ""
    ignored: tuple[str, ...] = ()
    """Names of fields that change nothing."""


def chat_request(body: ChatBody, bounds: Bounds) -> SolveRequest:
    """Read a request for a chat completion.

    Raises:
        APIError: If a field cannot be honoured.
    """
    problem = _problem(_messages(body.messages, "messages"), "messages")
    limit = body.max_completion_tokens or body.max_tokens
    return _request(body, [problem], limit, bounds, _ignored(body, REFUSED))


def completion_request(body: CompletionBody, bounds: Bounds) -> SolveRequest:
    """Read a request for a completion: each prompt is a question to the pair.

    Raises:
        APIError: If a field cannot be honoured.
    """
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    if not all(isinstance(prompt, str) for prompt in prompts) or not prompts:
        raise bad_field("prompt", "prompt must be a text or a list of texts: draft and target read ids of their own")
    problems = [_problem([Message(Role.USER, str(prompt))], "prompt") for prompt in prompts]
    return _request(body, problems, body.max_tokens, bounds, _ignored(body, REFUSED))


def responses_request(body: ResponsesBody, bounds: Bounds) -> SolveRequest:
    """Read a request of the interface of responses, text only.

    Raises:
        APIError: If a field cannot be honoured.
    """
    given = [{"role": "user", "content": body.input}] if isinstance(body.input, str) else body.input
    first = [Message(Role.SYSTEM, body.instructions)] if body.instructions else []
    problem = _problem([*first, *_items(given)], "input")
    ignored = _ignored(body, {**REFUSED, **REFUSED_OF_RESPONSES})
    return _request(body, [problem], body.max_output_tokens, bounds, ignored)


def conversation(messages: Sequence[TextMessage]) -> Problem:
    """Read messages.

    Raises:
        APIError: If one of them is no text, or there is no question among them.
    """
    return _problem(_messages(messages, "messages"), "messages")


def _request(
    body: Asked, problems: list[Problem], max_tokens: int | None, bounds: Bounds, ignored: tuple[str, ...]
) -> SolveRequest:
    own = body.arbitrage or Extension()
    try:
        sampling = Sampling(
            temperature=body.temperature or 0.0,
            top_k=max(0, body.top_k or 0),
            top_p=1.0 if body.top_p is None else body.top_p,
            min_p=body.min_p or 0.0,
        )
    except ConfigError as error:  # The schema has checked the others.
        raise bad_field("temperature", str(error)) from error
    # Greedy text needs no seed; sampled text would be the same at every request.
    seed = body.seed if body.seed is not None else secrets.randbits(63) if sampling.temperature else 0
    limits = Limits(max_tokens=max_tokens or bounds.max_tokens, max_steps=own.max_steps or bounds.max_steps)
    stop, num_choices = (body.stop, body.n or 1) if isinstance(body, Choices) else (None, 1)
    return SolveRequest(
        model=body.model,
        problems=tuple(problems),
        setting=Setting(limits=limits, sampling=sampling, seed=seed),
        num_choices=num_choices,
        stops=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        streams=bool(body.stream),
        includes_usage=bool(body.stream_options and body.stream_options.include_usage),
        extension=own,
        user=body.user or "",
        ignored=ignored,
    )


def _ignored(body: Asked, refused: Mapping[str, Callable[[Any], bool]]) -> tuple[str, ...]:
    """Names of further fields that change nothing.

    Raises:
        APIError: If one of them would change the answer, and cannot be honoured.
    """
    extra = body.model_extra or {}
    for name, value in extra.items():
        if name in refused and refused[name](value):
            raise unsupported(name, value)
    names = [name for name, value in extra.items() if name not in refused and value is not None]
    return tuple(name if _NAME.fullmatch(name) else "?" for name in names[:20])


def _problem(messages: Sequence[Message], param: str) -> Problem:
    try:
        "".join(message.content for message in messages).encode()
    except UnicodeEncodeError as error:
        raise bad_field(
            param, f"{param} hold a half of a character, which no model can read: {error.reason}"
        ) from error
    try:
        return Problem(id=QUESTION_ID, messages=messages)
    except ProblemError as error:
        raise bad_field(param, f"{param}: {error}".replace(f"of problem {QUESTION_ID!r} ", "")) from error


def _messages(messages: Sequence[TextMessage], param: str) -> list[Message]:
    return [_message(message.model_dump(), f"{param}[{number}]") for number, message in enumerate(messages)]


def _items(items: Sequence[Mapping[str, Any]]) -> list[Message]:
    messages = list[Message]()
    for number, item in enumerate(items):
        param = f"input[{number}]"
        kind = item.get("type", "message")
        if kind == "reasoning":  # A client sends the thinking of earlier answers back; templates leave it out.
            continue
        if kind != "message":
            raise unsupported(f"{param}.type", kind)
        messages.append(_message(item, param))
    return messages


def _message(message: Mapping[str, Any], param: str) -> Message:
    role = message.get("role")
    if role == "developer":
        role = "system"
    if role not in tuple(Role):
        raise unsupported(f"{param}.role", role)
    for name in ("tool_calls", "function_call", "audio"):
        if _UNLESS_EMPTY(message.get(name)):
            raise unsupported(f"{param}.{name}", message[name])
    return Message(Role(role), _text(message.get("content"), f"{param}.content"))


def _text(content: Any, param: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise bad_field(param, f"{param} must be a text or a list of text parts")
    texts = list[str]()
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else part
        if kind not in ("text", "input_text", "output_text"):
            raise unsupported(f"{param}[{number}].type", kind)
        if not isinstance(part.get("text"), str):
            raise bad_field(f"{param}[{number}].text", f"{param}[{number}].text must be a text")
        texts.append(part["text"])
    return "".join(texts)
