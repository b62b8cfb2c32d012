"""How a problem becomes a prompt: a chat template, or plain text around it."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from arbitrage.core.errors import ConfigError
from arbitrage.core.types import Message, Problem, Role
from arbitrage.engines.chat import chat_ids, check_template, render, with_system
from arbitrage.engines.encoding import Mark, part_ids

_ANSWER: Final = "(answer)"
"""Takes the place of an answer in a rendered chat."""
QUESTION_SLOT: Final = "{question}"


class Prompt(Protocol):
    """Turns a problem into the token ids that a model starts from."""

    def check(self, tokenizer: Any) -> None:
        """Refuse a tokenizer that this prompt cannot be used with, whatever the problem.

        Raises:
            ConfigError: If it has no chat template where one is needed, or the template refuses the prompt's own parts.
        """

    def encode(self, tokenizer: Any, problem: Problem) -> list[int]:
        """Encode one problem with the model's tokenizer; the answer goes on from the last id.

        Messages and examples are encoded as text, also where they spell a control token.

        Raises:
            ConfigError: If the chat template refuses the conversation.
            ProblemError: If the tokenizer cannot encode it.
        """

    def follow_up(self, tokenizer: Any, text: str) -> str:
        """The text between an answer and the next one if ``text`` is the user's message between them."""


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
    """The model's own chat template, with the beginning of an answer added.

    The order: the prompt's system message and, behind it in the same message, the conversation's first one; the
    examples; the rest of the conversation. Where the template refuses system messages, each goes in front of the next
    user message.
    """

    system: str = ""
    examples: tuple[Example, ...] = ()
    """Earlier turns: each question as the user's, its solution as the model's."""

    def check(self, tokenizer: Any) -> None:
        """See :meth:`Prompt.check`."""
        check_template(tokenizer)
        render(tokenizer, self._messages([Message(Role.USER, "?")]), opens_answer=True)

    def encode(self, tokenizer: Any, problem: Problem) -> list[int]:
        """Render the conversation; see :meth:`Prompt.encode`."""
        messages = problem.messages[:-1] if problem.prefix else problem.messages
        return chat_ids(tokenizer, self._messages(messages), problem.prefix)

    def follow_up(self, tokenizer: Any, text: str) -> str:
        """The end of the answer, the user's ``text`` and the beginning of an answer, as the template writes them.

        Raises:
            ConfigError: If the tokenizer has no chat template.
        """
        messages = [Message(Role.USER, "?"), Message(Role.ASSISTANT, _ANSWER), Message(Role.USER, text)]
        return render(tokenizer, messages, opens_answer=True).rpartition(_ANSWER)[2]

    def _messages(self, conversation: Sequence[Message]) -> list[Message]:
        messages = with_system(self.system, conversation)
        shown = [
            message
            for example in self.examples
            for message in (Message(Role.USER, example.question), Message(Role.ASSISTANT, example.solution))
        ]
        num_system = int(messages[0].role is Role.SYSTEM)
        return [*messages[:num_system], *shown, *messages[num_system:]]


@dataclass(frozen=True, slots=True)
class PlainPrompt:
    """Plain text with ``{question}`` where the question goes.

    Raises:
        ConfigError: If the template lacks ``{question}``.
    """

    template: str = "{question}\n\n"
    examples: tuple[Example, ...] = ()
    """Each fills the template, followed by its solution and an empty line."""

    def __post_init__(self) -> None:
        if QUESTION_SLOT not in self.template:
            raise ConfigError(f"prompt template must contain {QUESTION_SLOT}, got {self.template!r}")

    def check(self, tokenizer: Any) -> None:
        """Any tokenizer serves."""

    def encode(self, tokenizer: Any, problem: Problem) -> list[int]:
        """Fill the template with the problem's text; special tokens are the tokenizer's own and the template's."""
        parts: list[str | Mark] = []
        for example in self.examples:
            parts += [*self._filled(example.question), f"{example.solution}\n\n"]
        parts += [*self._filled(problem.text), problem.prefix]
        return part_ids(tokenizer, parts, add_special_tokens=True)

    def follow_up(self, tokenizer: Any, text: str) -> str:
        """A paragraph of its own."""
        return f"\n\n{text}\n\n"

    def _filled(self, question: str) -> list[str | Mark]:
        first, *rest = self.template.split(QUESTION_SLOT)
        return [Mark(first), *(part for text in rest for part in (question, Mark(text)))]


PROMPTS: Final[dict[str, ChatPrompt | PlainPrompt]] = {
    "plain": PlainPrompt(),
    # The system message that Qwen2.5-Math was tuned with (its model card).
    "qwen2.5-math-cot": ChatPrompt(r"Please reason step by step, and put your final answer within \boxed{}."),
    # Llama-3 Instruct writes such headings and such a last line for mathematics. Each step ends with an empty line, the
    # usual delimiter.
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
        ConfigError: If ``text`` is none of these; similar names are suggested.
    """
    shown = tuple(examples)
    if not text:
        return ChatPrompt(system, shown)
    if QUESTION_SLOT in text:
        return PlainPrompt(text, shown)
    if text not in PROMPTS:
        near = difflib.get_close_matches(text, PROMPTS, n=1)
        raise ConfigError(
            f"prompt must be one of {', '.join(PROMPTS)}, or a template that contains {QUESTION_SLOT}, got {text!r}",
            hint=f"did you mean {near[0]!r}?" if near else "",
        )
    prompt = PROMPTS[text]
    if isinstance(prompt, PlainPrompt):
        return replace(prompt, examples=shown)
    return ChatPrompt(system or prompt.system, shown)
