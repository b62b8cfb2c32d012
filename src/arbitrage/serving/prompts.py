"""How a model reads a request before anything is written: its length in tokens, and whether it opens thinking."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol, runtime_checkable

from arbitrage.core.errors import ConfigError, ProblemError, first_line
from arbitrage.core.ports import Engine
from arbitrage.core.types import Problem
from arbitrage.engines.prompt import ChatPrompt
from arbitrage.engines.scripted import ScriptedEngine
from arbitrage.engines.speculative import SpeculativeEngine
from arbitrage.engines.tokens import TokenText
from arbitrage.serving.errors import bad_field
from arbitrage.serving.thinking import open_mark

_TAIL: Final = 32
"""Tokens at the end of a prompt, in which a template may open thinking."""
Reader = TokenText | ScriptedEngine


@runtime_checkable
class PromptReader(Protocol):
    """A scorer with a prompt of its own."""

    def prompt_ids(self, problem: Problem) -> list[int]:
        """Ids that a session starts from."""


def reader(engine: Engine) -> Reader | None:
    """What encodes text for an engine; None for an engine that tells nothing of it."""
    inner = engine.target if isinstance(engine, SpeculativeEngine) else engine
    return inner if isinstance(inner, TokenText | ScriptedEngine) else None


def prompt_ids(engine: Engine, problem: Problem) -> Sequence[int]:
    """Ids that an engine starts a problem from.

    Raises:
        APIError: If the conversation cannot be read, or leaves no room for an answer.
    """
    text = reader(engine)
    if text is None:
        return ()
    if isinstance(text, ScriptedEngine):
        return text.encode(problem.text + problem.prefix)
    with _refusing():
        ids = text.encoded_prompt(problem)
    if len(ids) >= text.context_length:
        # Clients such as LiteLLM know this error by OpenAI's words.
        message = (
            f"This model's maximum context length is {text.context_length} tokens. "
            f"However, your messages resulted in {len(ids)} tokens. Please reduce the length of the messages."
        )
        raise bad_field("messages", message, code="context_length_exceeded")
    return ids


def check_reads(scorer: object, problem: Problem) -> None:
    """Check that a scorer reads a conversation: it is encoded when the first step is scored.

    Raises:
        APIError: If it does not.
    """
    if isinstance(scorer, PromptReader):
        with _refusing():
            scorer.prompt_ids(problem)


@contextmanager
def _refusing() -> Iterator[None]:
    """Encode messages; those that a template or a tokenizer refuses are the request's own fault."""
    try:
        yield
    except (ConfigError, ProblemError) as error:
        reason = first_line(error.__cause__) if error.__cause__ else "they cannot be encoded"
        raise bad_field("messages", f"the model does not take these messages: {reason[:300]}") from error


def num_tokens(engine: Engine, text: str) -> int:
    """Length of a text in an engine's tokens; 0 where it does not tell."""
    encoder = reader(engine)
    return len(encoder.encode(text)) if encoder is not None and text else 0


def template_mark(engine: Engine) -> str:
    """The mark of thinking that the model's template writes in front of every answer; empty for none."""
    text = reader(engine)
    if not isinstance(text, TokenText) or not isinstance(text.prompt, ChatPrompt):
        return ""
    ids = text.encoded_prompt(Problem(id="?", question="?"))
    return open_mark(text.decode(ids[-_TAIL:], []))
