"""From text to token ids and back without drift; shared by all engines that hold a tokenizer."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from arbitrage.core.delimiter import may_end_step, step_end
from arbitrage.core.errors import CheckpointError, ContextOverflow, MissingExtra, first_line
from arbitrage.core.types import Candidate, Message, Problem, Source
from arbitrage.engines.encoding import text_ids
from arbitrage.engines.gguf_files import is_gguf
from arbitrage.engines.gguf_metadata import GGUFFile
from arbitrage.engines.prompt import ChatPrompt, Prompt

MOST_TOKENS_OF_A_CHARACTER: Final = 4
"""As many as its bytes in UTF-8."""
CONTEXT_IDS: Final = 8
"""A step is decoded behind this many ids, since some tokenizers decode the first token of a text differently."""
_KEPT_PROMPTS: Final = 512
"""Encoded prompts that are kept: more than an endpoint has in flight and waiting by default."""


def load_tokenizer(path: str) -> Any:
    """Load the tokenizer of a checkpoint folder, a GGUF file or a hub name; torch is not needed.

    Raises:
        CheckpointError: If it is missing or broken.
    """
    try:
        from transformers import AutoTokenizer

        from arbitrage.engines.hf_gguf_tokenizer import gguf_tokenizer
    except ImportError as error:
        raise MissingExtra("http") from error
    if is_gguf(path):
        return gguf_tokenizer(GGUFFile(Path(path)).metadata, Path(path))
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # transformers, tokenizers and the hub raise errors of many kinds.
        raise CheckpointError(f"cannot load the tokenizer of {path!r}: {first_line(error)}") from error


class TokenText:
    """Encodes problems and foreign steps, and decodes own steps, with one model's tokenizer and context length."""

    context_length: int
    """Tokens of prompt and answer together."""

    def __init__(self, tokenizer: Any, name: str, prompt: Prompt | None) -> None:
        """Wrap a tokenizer.

        Args:
            tokenizer: Of transformers, or one that offers the same calls.
            name: The model's name in traces and run keys.
            prompt: Defaults to the model's chat template.

        Raises:
            ConfigError: If the prompt cannot be used with this tokenizer, whatever the problem.
        """
        self.tokenizer, self._name, self.prompt = tokenizer, name, prompt or ChatPrompt()
        self.prompt.check(tokenizer)
        self._token_texts: dict[int, str] = {}
        self._prompts: dict[tuple[Prompt, tuple[Message, ...]], tuple[int, ...]] = {}
        self._keeping = threading.Lock()

    @property
    def name(self) -> str:
        """The model's name in traces and run keys."""
        return self._name

    def prompt_ids(self, problem: Problem) -> list[int]:
        """Ids that a session starts from.

        Raises:
            ConfigError: If the chat template refuses this problem's messages.
            ProblemError: If the tokenizer cannot encode them.
            ContextOverflow: If they leave no room for an answer.
        """
        ids = self.encoded_prompt(problem)
        if len(ids) >= self.context_length:
            raise ContextOverflow(
                f"the prompt of problem {problem.id!r} has {len(ids)} tokens, "
                f"the context of {self.name} has {self.context_length}"
            )
        return ids

    def encoded_prompt(self, problem: Problem) -> list[int]:
        """Ids of a problem, however many there are; those of the latest problems are kept.

        So a server can encode a long prompt on another thread before its session opens on the event loop.

        Raises:
            ConfigError: See :meth:`prompt_ids`.
            ProblemError: See :meth:`prompt_ids`.
        """
        key = self.prompt, problem.messages
        ids = self._prompts.get(key)
        if ids is None:
            ids = tuple(self.prompt.encode(self.tokenizer, problem))
            with self._keeping:
                self._prompts[key] = ids
                if len(self._prompts) > _KEPT_PROMPTS:
                    del self._prompts[next(iter(self._prompts))]
        return list(ids)

    def room(self, ids: Sequence[int]) -> int:
        """The number of tokens that may follow ``ids``.

        Raises:
            ContextOverflow: If it is 0.
        """
        if len(ids) >= self.context_length:
            raise ContextOverflow(f"{len(ids)} tokens fill the context of {self.name}")
        return self.context_length - len(ids)

    def decode(self, ids: Sequence[int], context: Sequence[int]) -> str:
        """Text of ``ids`` as it reads behind ``context``."""
        for start in range(MOST_TOKENS_OF_A_CHARACTER):
            # A context that begins inside a character spoils all bytes beside it where tokens are single bytes.
            head = list(context[-CONTEXT_IDS:])[start:]
            before = self._text(head)
            if not before.startswith("\ufffd"):
                break
        return self._text([*head, *ids])[len(before) :]

    def _text(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
        return text

    def encode(self, text: str) -> list[int]:
        """Ids of a foreign step: of its characters, also where they spell a control token.

        Raises:
            ProblemError: If the tokenizer cannot encode it.
        """
        return text_ids(self.tokenizer, text)

    def ids_of(self, candidate: Candidate, source: Source) -> Sequence[int]:
        """Ids of a step in the session of ``source``: those that it has in its vocabulary, else those of the text."""
        return candidate.token_ids if candidate.has_ids_of(source) else self.encode(candidate.text)

    def may_complete(self, token: int, delimiter: str) -> bool:
        """Whether a token can complete the delimiter; other tokens need no decoding of the step."""
        if token not in self._token_texts:
            self._token_texts[token] = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return may_end_step(self._token_texts[token], delimiter)

    def ends_step(self, new: Sequence[int], context: Sequence[int], delimiter: str) -> bool:
        """Whether ``new``, behind ``context``, holds a whole step; its last token then completed the delimiter."""
        is_candidate = self.may_complete(new[-1], delimiter)
        return is_candidate and step_end(self.decode(new, context), delimiter) is not None

    def step_length(self, new: Sequence[int], context: Sequence[int], delimiter: str) -> int | None:
        """How many tokens of ``new``, behind ``context``, make up its first step; None where it holds no whole one."""
        lengths = range(1, len(new) + 1)
        return next((length for length in lengths if self.ends_step(new[:length], context, delimiter)), None)

    def whole_characters(self, new: list[int], context: Sequence[int]) -> list[int]:
        """Drop the tokens at the end that hold only a part of a character."""
        for length in range(len(new), max(len(new) - MOST_TOKENS_OF_A_CHARACTER, -1), -1):
            if not self.decode(new[:length], context).endswith("\ufffd"):
                return new[:length]
        return new
