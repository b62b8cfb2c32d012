"""How a question becomes a prompt: a chat template, or plain text around it."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from arbitrage.core.errors import ConfigError

_ANSWER: Final = "(answer)"
"""Stands for an answer in a rendered chat."""
PLACE: Final = "{question}"


class Prompt(Protocol):
    """Turns a question into the token ids that a model starts from."""

    def encode(self, tokenizer: Any, question: str) -> list[int]:
        """Encode one question with the model's tokenizer."""

    def follow_up(self, tokenizer: Any, text: str) -> str:
        """What stands between an answer and the next one, if ``text`` is asked in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A solved problem that is shown before the question.

    Raises:
        ConfigError: If a part is empty.
    """

    question: str
    solution: str

    def __post_init__(self) -> None:
        if not self.question.strip() or not self.solution.strip():
            raise ConfigError(f"an example needs a question and a solution, got {self!r}")


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """The model's own chat template, with the generation prompt added."""

    system: str = ""
    examples: tuple[Example, ...] = ()
    """Earlier turns: each question as the user's, its solution as the model's."""

    def encode(self, tokenizer: Any, question: str) -> list[int]:
        """Render system and user message.

        Raises:
            ConfigError: If the tokenizer has no chat template.
        """
        _check_template(tokenizer)
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for example in self.examples:
            messages.append({"role": "user", "content": example.question})
            messages.append({"role": "assistant", "content": example.solution})
        messages.append({"role": "user", "content": question})
        ids: list[int] = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        return ids

    def follow_up(self, tokenizer: Any, text: str) -> str:
        """The end of the answer, the user's ``text`` and the beginning of an answer, as the template writes them.

        Raises:
            ConfigError: If the tokenizer has no chat template.
        """
        _check_template(tokenizer)
        messages = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": _ANSWER},
            {"role": "user", "content": text},
        ]
        whole: str = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return whole.rpartition(_ANSWER)[2]


def _check_template(tokenizer: Any) -> None:
    if not tokenizer.chat_template:
        raise ConfigError(
            f"the tokenizer {tokenizer.name_or_path!r} has no chat template", hint="use a plain prompt for it"
        )


@dataclass(frozen=True, slots=True)
class PlainPrompt:
    """Plain text with ``{question}`` where the question goes.

    Raises:
        ConfigError: If the template has no place for the question.
    """

    template: str = "{question}\n\n"
    examples: tuple[Example, ...] = ()
    """Each fills the template, followed by its solution and an empty line."""

    def __post_init__(self) -> None:
        if PLACE not in self.template:
            raise ConfigError(f"prompt template must contain {PLACE}, got {self.template!r}")

    def encode(self, tokenizer: Any, question: str) -> list[int]:
        """Fill the template; special tokens are the tokenizer's own."""
        shown = "".join(self._filled(example.question) + example.solution + "\n\n" for example in self.examples)
        ids: list[int] = tokenizer.encode(shown + self._filled(question))
        return ids

    def follow_up(self, tokenizer: Any, text: str) -> str:
        """A paragraph of its own."""
        return f"\n\n{text}\n\n"

    def _filled(self, question: str) -> str:
        return self.template.replace(PLACE, question)


PROMPTS: Final[dict[str, ChatPrompt | PlainPrompt]] = {
    "plain": PlainPrompt(),
    # The system message that Qwen2.5-Math was tuned with (its model card).
    "qwen2.5-math-cot": ChatPrompt(r"Please reason step by step, and put your final answer within \boxed{}."),
    # Steps with the headings and the last line that Llama-3 Instruct writes for mathematics; each ends with an empty
    # line, which is where a step ends here.
    "llama3-step": ChatPrompt(
        "You solve mathematics problems.\n\n"
        "If two short steps are enough, write a brief solution.\n\n"
        "Otherwise write numbered steps, an empty line after each:\n\n"
        "## Step 1: [what is done]\n[the reason and the calculation]\n\n"
        "## Step 2: [what is done]\n[the reason and the calculation]\n\n"
        "and so on. End every solution with this line, the result in the box:\n\n"
        r"Therefore, the final answer is: $\boxed{answer}$. I hope it is correct."
    ),
}
"""Prompts by name."""


def prompt_of(text: str = "", *, system: str = "", examples: Sequence[Example] = ()) -> Prompt:
    """Make a prompt from a configuration.

    Args:
        text: A key of :data:`PROMPTS`, a plain template with ``{question}``, or nothing for the chat template.
        system: The system message of the chat template; in place of a named prompt's own.
        examples: Solved problems to show before the question.

    Raises:
        ConfigError: If ``text`` is neither; near names are suggested.
    """
    shown = tuple(examples)
    if not text:
        return ChatPrompt(system, shown)
    if PLACE in text:
        return PlainPrompt(text, shown)
    if text not in PROMPTS:
        near = difflib.get_close_matches(text, PROMPTS, n=1)
        raise ConfigError(
            f"prompt must be one of {', '.join(PROMPTS)}, or a template that contains {PLACE}, got {text!r}",
            hint=f"did you mean {near[0]!r}?" if near else "",
        )
    found = PROMPTS[text]
    if isinstance(found, PlainPrompt):
        return replace(found, examples=shown)
    return ChatPrompt(system or found.system, shown)
