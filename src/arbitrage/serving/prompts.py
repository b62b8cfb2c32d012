"""How a model reads a request before anything is written: its length in tokens, and whether it opens thinking."""

from collections.abc import Sequence
from typing import Final

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
    try:
        ids = text.encoded_prompt(problem)
    except (ConfigError, ProblemError) as error:
        reason = first_line(error.__cause__) if error.__cause__ else "they cannot be encoded"
        raise bad_field("messages", f"the model does not take these messages: {reason[:300]}") from error
    if len(ids) >= text.context_length:
        # Clients such as LiteLLM know this error by OpenAI's words.
        message = (
            f"This model's maximum context length is {text.context_length} tokens. "
            f"However, your messages resulted in {len(ids)} tokens. Please reduce the length of the messages."
        )
        raise bad_field("messages", message, code="context_length_exceeded")
    return ids


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
