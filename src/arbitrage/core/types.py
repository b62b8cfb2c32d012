"""Values that the whole package shares: frozen, keyword-only, units in their names."""

import enum
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from arbitrage.core.delimiter import EMPTY_LINE
from arbitrage.core.errors import ConfigError, ProblemError


class Source(enum.StrEnum):
    """Who wrote a step."""

    DRAFT = "draft"
    TARGET = "target"


class Finish(enum.StrEnum):
    """Why a step or a whole trace ended."""

    STEP_END = "step_end"
    """The delimiter was written."""
    END_OF_SEQUENCE = "end_of_sequence"
    """The model closed its answer."""
    TOKEN_LIMIT = "token_limit"
    """A step or an answer was cut by its token budget or by the context."""
    EMPTY_STEP = "empty_step"
    """A step of nothing but white space."""
    REPEATED_STEP = "repeated_step"
    """A step with the text of the previous one."""
    STEP_LIMIT = "step_limit"
    GIVEN_UP = "given_up"
    """The author stopped within the step, since the rule would reject it however it went on."""
    CANCELLED = "cancelled"
    FAILED = "failed"
    ANSWERED = "answered"
    """A box holds an answer; only where :attr:`Limits.stops_at_answer` is set."""


class Role(enum.StrEnum):
    """The author of a message in a conversation."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Raises:
        ProblemError: If the role is unknown or the content is no text.
    """

    role: Role
    """A role, or its name."""
    content: str

    def __post_init__(self) -> None:
        if self.role not in tuple(Role):
            raise ProblemError(f"the role of a message must be one of {', '.join(Role)}, got {self.role!r}")
        if not isinstance(self.content, str):
            raise ProblemError(f"the content of a message must be a text, got {self.content!r}")
        object.__setattr__(self, "role", Role(self.role))

    def to_json(self) -> dict[str, str]:
        """The form in files, and the one that chat templates read."""
        return {"role": self.role.value, "content": self.content}


def read_messages(records: Any) -> tuple[Message, ...]:
    """Read messages in the form that files hold.

    Args:
        records: A list of objects with ``role`` and ``content``; other keys are ignored.

    Raises:
        ProblemError: If this is no such list.
    """
    if not isinstance(records, list | tuple) or not all(isinstance(record, Mapping) for record in records):
        raise ProblemError(f"messages must be a list of objects with role and content, got {records!r}")
    return tuple(Message(record.get("role"), record.get("content")) for record in records)


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class Problem:
    """One problem: a question, or a whole conversation that ends with one."""

    id: str
    messages: tuple[Message, ...]
    """In order; the last one is the user's, or the beginning of the assistant's answer."""
    answer: str | None = None
    """The gold answer, where one is known; never shown to a model."""
    metadata: Mapping[str, str]

    def __init__(
        self,
        *,
        id: str,
        question: str | None = None,
        messages: Sequence[Message] = (),
        answer: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Pose a problem.

        Args:
            id: Unique among the problems of a run.
            question: The user's only message; with ``messages`` it stands in place of their last user message.
            messages: The whole conversation.
            answer: The gold answer.
            metadata: Further facts, such as a level.

        Raises:
            ProblemError: If there is no question or it is empty, or if the last message is a system message or an
                empty one.
        """
        conversation = tuple(messages) if messages else (Message(Role.USER, question or ""),)
        if question is not None and messages:
            conversation = _with_question(conversation, question)
        values = {"id": id, "messages": conversation, "answer": answer, "metadata": metadata or {}}
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        user_messages = [message for message in self.messages if message.role is Role.USER]
        if not user_messages:
            raise ProblemError(f"problem {self.id!r} has no user message", hint="give a text to solve")
        if not user_messages[-1].content.strip():
            raise ProblemError(f"the question of problem {self.id!r} is empty", hint="give a text to solve")
        last = self.messages[-1]
        if last.role is Role.SYSTEM or not last.content:
            description = "a system message" if last.role is Role.SYSTEM else "an empty assistant message"
            raise ProblemError(
                f"the last message of problem {self.id!r} is {description}",
                hint="end with a user message, or with the beginning of the answer",
            )

    @property
    def question(self) -> str:
        """The last user message."""
        return next(message.content for message in reversed(self.messages) if message.role is Role.USER)

    @property
    def is_plain(self) -> bool:
        """Whether the conversation is one user message."""
        return len(self.messages) == 1

    @property
    def prefix(self) -> str:
        """The beginning of the answer that the conversation ends with; the solution goes on from it."""
        last = self.messages[-1]
        return last.content if last.role is Role.ASSISTANT else ""

    @property
    def text(self) -> str:
        """The conversation as one text, for models that read a question; without :attr:`prefix`.

        The question itself where it is the only message; else every message behind the name of its role, such as
        ``User: ``, with an empty line between them. Empty messages are left out.
        """
        messages = [message for message in (self.messages[:-1] if self.prefix else self.messages) if message.content]
        if len(messages) == 1:
            return messages[0].content
        return "\n\n".join(f"{message.role.value.capitalize()}: {message.content}" for message in messages)


def _with_question(messages: tuple[Message, ...], question: str) -> tuple[Message, ...]:
    last = max((i for i, message in enumerate(messages) if message.role is Role.USER), default=None)
    if last is None:
        return messages
    return (*messages[:last], Message(Role.USER, question), *messages[last + 1 :])


MIN_TEMPERATURE: Final = 1e-4
"""The least temperature at which tokens are sampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen; temperature 0 is greedy.

    Raises:
        ConfigError: If a value is out of range.
    """

    temperature: float = 0.0
    """At least :data:`MIN_TEMPERATURE`, or 0: logits over a smaller number are no longer finite."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the likeliest tokens that together reach this probability."""
    min_p: float = 0.0
    """Keep tokens at least this likely relative to the likeliest."""

    def __post_init__(self) -> None:
        if self.temperature != 0.0 and not MIN_TEMPERATURE <= self.temperature < math.inf:
            raise ConfigError(
                f"temperature must be 0 or at least {MIN_TEMPERATURE:g}, got {self.temperature}", hint="0 is greedy"
            )
        if self.top_k < 0:
            raise ConfigError(f"top_k must be at least 0, got {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise ConfigError(f"top_p must be in (0, 1], got {self.top_p}")
        if not 0.0 <= self.min_p <= 1.0:
            raise ConfigError(f"min_p must be in [0, 1], got {self.min_p}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one solution.

    Raises:
        ConfigError: If a bound is not positive or the delimiter is empty.
    """

    max_steps: int = 64
    max_tokens: int = 4096
    """Tokens of the whole answer."""
    max_step_tokens: int = 512
    max_idle_steps: int = 3
    """This many empty or repeated steps in a row end the solution: a greedy model would repeat them without end."""
    delimiter: str = EMPTY_LINE
    """Ends a step; the usual one is an empty line however it is written, see :mod:`arbitrage.core.delimiter`."""
    stops_at_answer: bool = False
    """Whether the solution ends behind the first step with an answer in a box, see
    :attr:`arbitrage.core.boxes.Box.is_answer`. A model may write another box later; its answer is then another."""

    def __post_init__(self) -> None:
        for name in ("max_steps", "max_tokens", "max_step_tokens", "max_idle_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.delimiter:
            raise ConfigError("delimiter must not be empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one or more model calls consumed; costs add up."""

    num_calls: int = 0
    num_computed: int = 0
    """Prompt tokens that went through the model."""
    num_cached: int = 0
    """Prompt tokens that a cache held."""
    num_generated: int = 0
    num_reused: int = 0
    """Generated tokens that were taken from proposals, verified rather than decoded one by one."""
    num_guessed: int = 0
    """Tokens that were guessed ahead for the model to verify: token-level speculation."""
    num_confirmed: int = 0
    """Generated tokens that were guessed ahead; guesses beyond a step's end may be confirmed by the next call."""
    seconds: float = 0.0
    guessing_s: float = 0.0
    """The part of ``seconds`` that guessing took: a draft model's time."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Cost)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One step that a model wrote, whether it is kept or not.

    A repaired step has two authors: its first :attr:`num_taken` tokens are those of the draft's step.
    """

    source: Source
    """Who wrote the step, or its end."""
    text: str
    """Includes its delimiter: joined steps reproduce the answer byte for byte."""
    token_ids: tuple[int, ...]
    """The ids that were generated or taken over, without end-of-sequence; empty for a step of which only the text is
    known."""
    finish: Finish
    cost: Cost
    logprobs: tuple[float, ...] | None = None
    """Log-probability of each token id under the model that wrote it, at temperature 1."""
    hidden_state: tuple[float, ...] | None = field(default=None, repr=False)
    """Last layer's state at the last token, if the engine keeps it."""
    first_entropy: float | None = None
    """Nats; entropy at temperature 1 of the distribution that the first token was drawn from, where known."""
    sample: int = 0
    """Number among the candidates that the same author wrote for the same step."""
    num_taken: int = 0
    """How many of the tokens, from the first, were taken over from the draft's step."""
    num_taken_chars: int = 0
    """The characters of those tokens."""

    @property
    def num_tokens(self) -> int:
        """Length in the author's tokens, end-of-sequence not counted."""
        return len(self.token_ids)

    @property
    def num_written(self) -> int:
        """Tokens that :attr:`source` wrote for this candidate."""
        return self.num_tokens - self.num_taken

    def num_tokens_by(self, author: Source) -> int:
        """Tokens of the step that ``author`` wrote."""
        taken = self.num_taken if author is Source.DRAFT else 0
        return taken + (self.num_written if author is self.source else 0)

    @property
    def parts(self) -> tuple[tuple[Source, str], ...]:
        """The text by author, in order: one part, or the draft's and then the target's."""
        if not self.num_taken_chars or self.source is Source.DRAFT:
            return ((self.source, self.text),)
        end = self.num_taken_chars
        return (Source.DRAFT, self.text[:end]), (self.source, self.text[end:])

    def has_ids_of(self, source: Source) -> bool:
        """Whether :attr:`token_ids` are ids of the model that plays ``source``.

        They are for its own step, and for one that both wrote: models that share a step share a vocabulary.
        """
        return bool(self.token_ids) and (source is self.source or self.num_taken > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A step while its author writes it, as a rule sees it that may stop it."""

    num_tokens: int
    max_tokens: int
    """Budget of the step."""
    logprob: float
    """The lowest sum of the log-probabilities of the tokens up to any of these; it never rises."""
    first_entropy: float | None
    """See :attr:`Candidate.first_entropy`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """The likelihood of a step under a model, which need not be its author."""

    logprobs: tuple[float, ...]
    """Log-probability of each of the step's tokens, in this model's ids, at temperature 1; end-of-sequence left out."""
    cost: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A scorer's score of one candidate."""

    scorer: str
    source: Source
    """Author of the candidate that was scored."""
    value: float
    cost: Cost
    sample: int = 0
    """Number of the scored candidate among its author's."""
    logprobs: tuple[float, ...] | None = None
    """Log-probability of each of the step's tokens, for a scorer that reads a step by its tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Which candidate a policy keeps, and why."""

    source: Source
    score: float | None = None
    """The number that was compared with the threshold, if there was one."""
    measured: frozenset[str] = frozenset()
    """Names of models whose calls in this step served only to measure (an oracle's target call): a served
    policy would not make them, so they do not count in its latency or its tokens."""
    sample: int = 0
    """Number of the kept candidate among those of ``source``."""
    num_taken: int = 0
    """The step begins with so many tokens of the draft's, where ``source`` is the target: it repairs the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One committed step with all candidates and scores of its turn."""

    candidate: Candidate
    """The one that was kept."""
    decision: Decision
    finish: Finish
    candidates: tuple[Candidate, ...]
    """All candidates of the turn in the order of the calls, the kept one included."""
    scores: tuple[Score, ...] = ()

    @property
    def source(self) -> Source:
        """Who wrote the kept candidate."""
        return self.candidate.source

    @property
    def text(self) -> str:
        """The kept text, its delimiter included."""
        return self.candidate.text


def derive_seed(run_seed: int, problem_id: str, attempt: int, step: int, source: Source, sample: int = 0) -> int:
    """Make the seed of one proposal, independent of concurrency and order.

    Args:
        run_seed: Of the whole run.
        problem_id: Of the problem.
        attempt: Number of the solution, when a problem is solved several times.
        step: Position of the step in the solution.
        source: The author.
        sample: Number of the candidate among its author's for this step.

    Returns:
        A number below 2**31, which every engine accepts.

    Raises:
        ProblemError: If the id is no text that can be encoded, such as a lone surrogate.
    """
    key = f"{run_seed}\0{problem_id}\0{attempt}\0{step}\0{source}" + (f"\0{sample}" if sample else "")
    try:
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") >> 1
    except UnicodeEncodeError as error:
        raise ProblemError(
            f"the id {problem_id!r} cannot be encoded: {error}", hint="give the problem another id"
        ) from error
