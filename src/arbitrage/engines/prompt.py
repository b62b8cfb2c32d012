"""How a question becomes a prompt: a chat template, or plain text around it."""

from dataclasses import dataclass
from typing import Any, Final, Protocol

from arbitrage.core.errors import ConfigError

_ANSWER: Final = "(answer)"
"""Stands for an answer in a rendered chat."""


class Prompt(Protocol):
    """Turns a question into the token ids that a model starts from."""

    def encode(self, tokenizer: Any, question: str) -> list[int]:
        """Encode one question with the model's tokenizer."""

    def follow_up(self, tokenizer: Any, text: str) -> str:
        """What stands between an answer and the next one, if ``text`` is asked in between."""


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """The model's own chat template, with the generation prompt added."""

    system: str = ""

    def encode(self, tokenizer: Any, question: str) -> list[int]:
        """Render system and user message.

        Raises:
            ConfigError: If the tokenizer has no chat template.
        """
        if not tokenizer.chat_template:
            raise ConfigError(
                f"the tokenizer {tokenizer.name_or_path!r} has no chat template", hint="use a plain prompt for it"
            )
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages.append({"role": "user", "content": question})
        ids: list[int] = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        return ids

    def follow_up(self, tokenizer: Any, text: str) -> str:
        """The end of the answer, the user's ``text`` and the beginning of an answer, as the template writes them."""
        messages = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": _ANSWER},
            {"role": "user", "content": text},
        ]
        whole: str = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return whole.rpartition(_ANSWER)[2]


@dataclass(frozen=True, slots=True)
class PlainPrompt:
    """Plain text with ``{question}`` where the question goes.

    Raises:
        ConfigError: If the template has no place for the question.
    """

    template: str = "{question}\n\n"

    def __post_init__(self) -> None:
        if "{question}" not in self.template:
            raise ConfigError(f"prompt template must contain {{question}}, got {self.template!r}")

    def encode(self, tokenizer: Any, question: str) -> list[int]:
        """Fill the template; special tokens are the tokenizer's own."""
        ids: list[int] = tokenizer.encode(self.template.replace("{question}", question))
        return ids

    def follow_up(self, tokenizer: Any, text: str) -> str:
        """A paragraph of its own."""
        return f"\n\n{text}\n\n"
