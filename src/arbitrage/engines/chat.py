"""Conversations through a chat template: control tokens come from the template, never from the content of a message."""

import re
import secrets
from collections.abc import Collection, Sequence
from typing import Any, Final

from arbitrage.core.errors import ConfigError, first_line
from arbitrage.core.types import Message, Role
from arbitrage.engines.encoding import encoded, encoder_of

_GAP: Final = "\n\n"
"""Between texts that one message joins."""


def check_template(tokenizer: Any) -> None:
    """Refuse a tokenizer without a chat template.

    Raises:
        ConfigError: If it has none.
    """
    if not tokenizer.chat_template:
        raise ConfigError(
            f"the tokenizer {tokenizer.name_or_path!r} has no chat template", hint="use a plain prompt for it"
        )


def with_system(system: str, messages: Sequence[Message]) -> list[Message]:
    """Put a system message in front of a conversation; one that is there already goes behind it in the same message."""
    num_leading = next((i for i, message in enumerate(messages) if message.role is not Role.SYSTEM), len(messages))
    texts = [text for text in (system, *(message.content for message in messages[:num_leading])) if text]
    return [*([Message(Role.SYSTEM, _GAP.join(texts))] if texts else ()), *messages[num_leading:]]


def without_system(messages: Sequence[Message]) -> list[Message]:
    """Put each system message in front of the user message behind it; behind the last user message if none follows."""
    folded: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message.role is Role.SYSTEM:
            waiting.append(message.content)
        elif message.role is Role.USER:
            folded.append(Message(Role.USER, _GAP.join([*waiting, message.content])))
            waiting = []
        else:
            folded.append(message)
    for i in reversed(range(len(folded))):
        if waiting and folded[i].role is Role.USER:
            folded[i] = Message(Role.USER, _GAP.join([folded[i].content, *waiting]))
            break
    return folded


def render(tokenizer: Any, messages: Sequence[Message], *, opens_answer: bool) -> str:
    """The text that the chat template makes of messages.

    A template that refuses system messages gets them as :func:`without_system` puts them.

    Args:
        tokenizer: With a chat template.
        messages: The conversation.
        opens_answer: Whether the beginning of the assistant's next message follows.

    Raises:
        ConfigError: If there is no template, or it refuses the messages; with the template's own words.
    """
    check_template(tokenizer)

    def rendered(messages: Sequence[Message]) -> str:
        records = [message.to_json() for message in messages]
        text: str = tokenizer.apply_chat_template(records, add_generation_prompt=opens_answer, tokenize=False)
        return text

    try:
        try:
            return rendered(messages)
        except Exception:  # Templates and jinja raise errors of many kinds.
            if all(message.role is not Role.SYSTEM for message in messages):
                raise
            return rendered(without_system(messages))
    except Exception as error:
        raise ConfigError(
            f"the chat template of {tokenizer.name_or_path!r} does not take this prompt: {first_line(error)}",
            hint="use a plain prompt, or other messages",
        ) from error


def chat_ids(
    tokenizer: Any, messages: Sequence[Message], prefix: str = "", *, marks: Collection[str] = ()
) -> list[int]:
    """Ids of a conversation up to where the assistant's answer goes on.

    Args:
        tokenizer: With a chat template.
        messages: The conversation, without ``prefix``.
        prefix: The beginning of the answer, byte for byte; no turn ends behind it.
        marks: See :func:`arbitrage.engines.encoding.text_ids`.

    Raises:
        ConfigError: See :func:`render`.
        ProblemError: If the tokenizer cannot encode a message.
    """
    chat = Chat(tokenizer, marks=marks)
    if not prefix:
        return chat.ids(chat.render(messages, opens_answer=True))
    return chat.ids(chat.render_up_to_answer(messages), prefix)


class Chat:
    """Renders conversations by one template and encodes what it rendered.

    A message that spells a control token goes through the template as a random word and is put back when the rest is
    encoded; white space at its ends stays visible to the template, which may trim it.
    """

    def __init__(self, tokenizer: Any, *, marks: Collection[str] = ()) -> None:
        """Begin.

        Args:
            tokenizer: With a chat template.
            marks: See :func:`arbitrage.engines.encoding.text_ids`.
        """
        self._tokenizer, self._encoder = tokenizer, encoder_of(tokenizer, marks)
        self._hidden: list[str] = []
        self._secret = secrets.token_hex(16)

    def render(self, messages: Sequence[Message], *, opens_answer: bool = False) -> str:
        """See :func:`render`; for :meth:`ids`, whole or cut anywhere between messages."""
        hidden = [Message(message.role, self._hide(message.content)) for message in messages]
        return render(self._tokenizer, hidden, opens_answer=opens_answer)

    def render_up_to_answer(self, messages: Sequence[Message]) -> str:
        """The rendered text before the content of an assistant's message that follows ``messages``.

        Raises:
            ConfigError: Also if the template does not write such a message.
        """
        word = f"q{secrets.token_hex(16)}q"
        head, is_there, _ = self.render([*messages, Message(Role.ASSISTANT, word)]).rpartition(word)
        if not is_there:
            raise ConfigError(
                f"the chat template of {self._tokenizer.name_or_path!r} leaves out the beginning of an answer",
                hint="end the conversation with the user's message",
            )
        return head

    def ids(self, rendered: str, prefix: str = "") -> list[int]:
        """Ids of rendered text and of a text behind it.

        Raises:
            ProblemError: If the tokenizer cannot encode it.
        """
        if not self._hidden and self._encoder.is_plain(prefix):
            return encoded(self._tokenizer, rendered + prefix)
        parts = re.split(rf"q{self._secret}n(\d+)q", rendered)
        pieces = self._encoder.split(parts[0])
        for number, text in zip(parts[1::2], parts[2::2], strict=True):
            pieces += [self._hidden[int(number)], *self._encoder.split(text)]
        return self._encoder.encode(self._tokenizer, [*pieces, prefix])

    def _hide(self, content: str) -> str:
        """The content itself where it is plain; else a word for all but the white space around it."""
        inner = content.strip()
        if self._encoder.is_plain(content) and self._secret not in content:
            return content
        start = content.index(inner)
        if inner not in self._hidden:
            self._hidden.append(inner)
        return f"{content[:start]}q{self._secret}n{self._hidden.index(inner)}q{content[start + len(inner) :]}"
