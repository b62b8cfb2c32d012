"""Input formats of public process reward models: the ids of a solution, and from outputs to a probability.

Pure: a family needs a tokenizer, no model and no server, so that the same functions serve a model in process and one
behind HTTP. In every family the score stands at the last of a step's ``scored`` ids: a server is sent the ids up to
there, and the numbers that it returns for the last one go through :meth:`Head.probability`.

These models were trained on a question and steps. Of a conversation they read :attr:`Problem.text` as the question, and
the beginning of an answer that it ends with as the beginning of the first step. Questions and steps are text: neither
a control token nor a family's own mark comes from them.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Final, Protocol

from arbitrage.core.errors import CheckpointError, ConfigError, ScorerError
from arbitrage.core.types import Message, Problem, Role
from arbitrage.engines.chat import Chat, chat_ids
from arbitrage.engines.encoding import Mark, encoded, part_ids, spelt_out, text_ids
from arbitrage.scorers.format import Readout


class Head(StrEnum):
    """The outputs of a model at a position, and how they become a probability."""

    VALUE = "value"
    """One number: its sigmoid."""
    CLASSES = "classes"
    """Two numbers, bad and good: the softmax of the second."""
    LANGUAGE = "language"
    """Logits or log-probabilities of two tokens, good and bad: the softmax of the first."""

    @property
    def num_outputs(self) -> int:
        """The number of outputs that are read."""
        return 1 if self is Head.VALUE else 2

    def probability(self, outputs: Sequence[float]) -> float:
        """The probability, in [0, 1], of raw outputs, which no activation has changed; NaN stays NaN.

        Raises:
            ScorerError: If their number is not the head's.
        """
        if len(outputs) != self.num_outputs:
            raise ScorerError(f"a {self.value} head gives {self.num_outputs} numbers for a step, got {len(outputs)}")
        return Readout.PROBABILITY.probability(outputs[::-1] if self is Head.LANGUAGE else outputs)


_ANY: Final = Problem(id="any", question="?")
"""A problem to check tokenizers with."""


def checked_probability(value: float, name: str) -> float:
    """Return a value that is a probability.

    Args:
        value: A score.
        name: The scorer's.

    Raises:
        ScorerError: If it is not in [0, 1].
    """
    if math.isnan(value):
        raise ScorerError(f"the scorer {name!r} gave NaN", hint="load it as float32 or bfloat16")
    if not 0.0 <= value <= 1.0:
        raise ScorerError(f"the scorer {name!r} gave {value:g}, no probability", hint="read its raw outputs")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class StepIds:
    """The ids that a step adds to a solution."""

    scored: tuple[int, ...]
    """Up to the position of the step's score."""
    closing: tuple[int, ...] = ()
    """What follows a step that is kept, before the next one."""


class Family(Protocol):
    """The input format of one family of models. A solution's ids only grow, so a KV cache can hold them."""

    @property
    def name(self) -> str:
        """The key in :data:`FAMILIES`."""

    @property
    def head(self) -> Head:
        """The outputs that are read."""

    def check(self, tokenizer: Any) -> None:
        """Check that a tokenizer is of this family.

        Raises:
            CheckpointError: If it lacks a token or a template that the family needs.
        """

    def prompt_ids(self, tokenizer: Any, problem: Problem) -> list[int]:
        """Ids before the first step; none where the first step's hold the question."""

    def step_ids(self, tokenizer: Any, problem: Problem, index: int, text: str) -> StepIds:
        """Ids of one step.

        Args:
            tokenizer: The model's.
            problem: What is solved.
            index: Position of the step, from 0.
            text: As it was written, its delimiter included.

        Raises:
            ProblemError: If the tokenizer cannot encode it.
        """

    def label_ids(self, tokenizer: Any) -> tuple[int, ...]:
        """Ids of the good and the bad token for a language head, none for others."""


def _step_text(problem: Problem, index: int, text: str) -> str:
    """A step as a family reads it: the first one with the beginning of the answer that the problem gives."""
    return problem.prefix + text if index == 0 else text


def _lacks(name: str, part: str) -> CheckpointError:
    return CheckpointError(
        f"the tokenizer has no {part}, which the format {name!r} needs",
        hint="name the format that the model was trained in, or use the tokenizer that came with it",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Skywork:
    """Skywork-o1-Open-PRM: a value behind each line.

    The authors' ``prepare_input`` (SkyworkAI/skywork-o1-prm-inference) encodes begin-of-sequence, problem and a newline
    at once, then every line of the response alone, the last id of an encoded newline behind it. A step's score is the
    one of its last line.
    """

    name: ClassVar[str] = "skywork"
    head: ClassVar[Head] = Head.VALUE
    separator: str = "\n"

    def check(self, tokenizer: Any) -> None:
        """Needs begin-of-sequence; see :class:`Family`."""
        if not tokenizer.bos_token:
            raise _lacks(self.name, "begin-of-sequence token")
        if not encoded(tokenizer, self.separator):
            raise _lacks(self.name, f"token for {self.separator!r}")

    def prompt_ids(self, tokenizer: Any, problem: Problem) -> list[int]:
        """Begin-of-sequence and the problem's line."""
        return part_ids(tokenizer, [Mark(tokenizer.bos_token), problem.text, Mark(self.separator)])

    def step_ids(self, tokenizer: Any, problem: Problem, index: int, text: str) -> StepIds:
        """Each line alone, a separator behind it."""
        end, ids = encoded(tokenizer, self.separator)[-1], list[int]()
        for line in _step_text(problem, index, text).rstrip().split(self.separator):
            ids += [*(text_ids(tokenizer, line) if line else ()), end]
        return StepIds(scored=tuple(ids))

    def label_ids(self, tokenizer: Any) -> tuple[int, ...]:
        """None."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QwenPRM:
    """Qwen2.5-Math-PRM: two classes at a token of its own behind each step of an assistant's message.

    After the model card's example; the steps there carry no blank line.
    """

    name: ClassVar[str] = "qwen-prm"
    head: ClassVar[Head] = Head.CLASSES
    separator: str = "<extra_0>"
    system: str = "Please reason step by step, and put your final answer within \\boxed{}."

    def check(self, tokenizer: Any) -> None:
        """Needs the separator as one token, and a chat template; see :class:`Family`."""
        if len(encoded(tokenizer, self.separator)) != 1:
            raise _lacks(self.name, f"token {self.separator!r}")
        if not tokenizer.chat_template:
            raise _lacks(self.name, "chat template")
        try:
            self.prompt_ids(tokenizer, _ANY)
        except ConfigError as error:
            raise CheckpointError(str(error)) from error

    def prompt_ids(self, tokenizer: Any, problem: Problem) -> list[int]:
        """System and user message, and the head of the assistant's."""
        messages = [Message(Role.SYSTEM, self.system), Message(Role.USER, problem.text)]
        return chat_ids(tokenizer, messages, marks=[self.separator])

    def step_ids(self, tokenizer: Any, problem: Problem, index: int, text: str) -> StepIds:
        """The step and the separator."""
        step = text_ids(tokenizer, _step_text(problem, index, text).rstrip(), marks=[self.separator])
        return StepIds(scored=(*step, *encoded(tokenizer, self.separator)))

    def label_ids(self, tokenizer: Any) -> tuple[int, ...]:
        """None."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TRL:
    """What TRL's ``PRMTrainer`` trains: two classes at the last token of a separator; no chat template.

    The trainer's ``tokenize_row`` (TRL 0.13 to 1.13) encodes prompt and steps alone, begin-of-sequence in front where
    the tokenizer has one.
    """

    name: ClassVar[str] = "trl"
    head: ClassVar[Head] = Head.CLASSES
    separator: str = "\n\n"
    """Must be that of the training; the trainer's own default is one newline."""

    def check(self, tokenizer: Any) -> None:
        """Needs a token for the separator; see :class:`Family`."""
        if not encoded(tokenizer, self.separator):
            raise _lacks(self.name, f"token for {self.separator!r}")

    def prompt_ids(self, tokenizer: Any, problem: Problem) -> list[int]:
        """The question as it is."""
        begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        return [*begin, *text_ids(tokenizer, problem.text)]

    def step_ids(self, tokenizer: Any, problem: Problem, index: int, text: str) -> StepIds:
        """The step and the separator, each encoded alone."""
        step = text_ids(tokenizer, _step_text(problem, index, text).rstrip())
        return StepIds(scored=(*step, *encoded(tokenizer, self.separator)))

    def label_ids(self, tokenizer: Any) -> tuple[int, ...]:
        """None."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RLHFlow:
    """RLHFlow's PRMs: a conversation in which each user message is a step and each answer is ``+`` or ``-``.

    The authors' ``prm_evaluate.py`` (RLHFlow/RLHF-Reward-Modeling, math-rm) puts the question before the first step,
    writes ``+`` for every answer, and reads both tokens at the position before it.
    """

    name: ClassVar[str] = "rlhflow"
    head: ClassVar[Head] = Head.LANGUAGE
    good: str = "+"
    bad: str = "-"

    def check(self, tokenizer: Any) -> None:
        """Needs a chat template whose turns follow one another unchanged; see :class:`Family`."""
        if not tokenizer.chat_template:
            raise _lacks(self.name, "chat template")
        closing = self.step_ids(tokenizer, _ANY, 1, "!").closing
        if closing[:1] != self.label_ids(tokenizer)[:1]:
            raise _lacks(self.name, f"chat template with {self.good!r} as a token of its own")

    def prompt_ids(self, tokenizer: Any, problem: Problem) -> list[int]:
        """Nothing: question and first step are one message."""
        return []

    def step_ids(self, tokenizer: Any, problem: Problem, index: int, text: str) -> StepIds:
        """The user's turn and the head of the assistant's; behind the score the good answer."""
        chat, answer = Chat(tokenizer), Message(Role.ASSISTANT, self.good)
        step = _step_text(problem, index, text).strip()
        # A turn does not depend on those before it: one pair of turns stands for all of them.
        past = [Message(Role.USER, "?"), answer] if index else []
        turn = Message(Role.USER, step if index else f"{problem.text} {step}")
        before = chat.render(past) if past else ""
        opened = chat.render([*past, turn], opens_answer=True)
        answered = chat.render([*past, turn, answer])
        if not (opened.startswith(before) and answered.startswith(opened)):
            raise _lacks(self.name, "chat template that leaves earlier turns as they are")
        scored, closing = chat.ids(opened[len(before) :]), chat.ids(answered[len(opened) :])
        return StepIds(scored=tuple(scored), closing=tuple(closing))

    def label_ids(self, tokenizer: Any) -> tuple[int, ...]:
        """Of ``+`` and ``-``."""
        return encoded(tokenizer, self.good)[-1], encoded(tokenizer, self.bad)[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class MathShepherd:
    """math-shepherd-mistral-7b-prm: ``+`` against ``-`` at a tag behind each step.

    After the model card: the question, a space, then lines ``Step 1: … ки``, as in the training data (Math-Shepherd,
    arXiv 2312.08935). A step that does not begin with its number gets it.
    """

    name: ClassVar[str] = "math-shepherd"
    head: ClassVar[Head] = Head.LANGUAGE
    tag: str = "\u043a\u0438"
    good: str = "+"
    bad: str = "-"

    def check(self, tokenizer: Any) -> None:
        """Needs tag, ``+`` and ``-`` as one token each; see :class:`Family`."""
        tag = encoded(tokenizer, self.tag)
        if len(tag) != 1 or tag[0] == tokenizer.unk_token_id or encoded(tokenizer, f"1 {self.tag}")[-1:] != tag:
            raise _lacks(self.name, f"token {self.tag!r}")
        if len(self.label_ids(tokenizer)) != 2:
            raise _lacks(self.name, f"tokens {self.good!r} and {self.bad!r}")
        self.step_ids(tokenizer, _ANY, 1, "!")

    def prompt_ids(self, tokenizer: Any, problem: Problem) -> list[int]:
        """Nothing: question and first step are encoded at once."""
        return []

    def step_ids(self, tokenizer: Any, problem: Problem, index: int, text: str) -> StepIds:
        """The step and the tag, as they are encoded behind what stands before."""
        step = _step_text(problem, index, text).strip()
        line = f"{step if re.match(r'Step [0-9]', step) else f'Step {index + 1}: {step}'} {self.tag}"
        if index == 0:
            ids = part_ids(tokenizer, [f"{problem.text} {line}"], add_special_tokens=True)
            return StepIds(scored=self._tagged(tokenizer, ids))
        tag_ids, ids = encoded(tokenizer, self.tag), text_ids(tokenizer, f"{self.tag}\n{line}")
        if ids[: len(tag_ids)] != tag_ids:
            raise _lacks(self.name, f"token {self.tag!r} that stays as it is before a newline")
        return StepIds(scored=self._tagged(tokenizer, ids[len(tag_ids) :]))

    def _tagged(self, tokenizer: Any, ids: Sequence[int]) -> tuple[int, ...]:
        """Keep the tag at the end and spell out those in the text, where the tag also begins words."""
        tag = encoded(tokenizer, self.tag)[-1]
        end = next((i for i in reversed(range(len(ids))) if ids[i] == tag), len(ids))
        return (*spelt_out(tokenizer, ids[:end], {tag}), *ids[end:])

    def label_ids(self, tokenizer: Any) -> tuple[int, ...]:
        """Of ``+`` and ``-``."""
        return tuple(encoded(tokenizer, f"{self.good} {self.bad}"))


FAMILIES: Final[dict[str, Family]] = {
    family.name: family for family in (Skywork(), QwenPRM(), TRL(), RLHFlow(), MathShepherd())
}
"""By the name that a configuration gives as ``format``."""
