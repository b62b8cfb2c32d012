"""A language model in this process, without sessions: its tokenizer, and the arithmetic on its logits."""

import abc
import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from arbitrage.core.types import Sampling
from arbitrage.engines.cache import CachedTokens, Rows
from arbitrage.engines.prompt import Prompt
from arbitrage.engines.tokens import TokenText
from arbitrage.engines.worker import CancelFlag, worker_for

Picker = Callable[[Any], tuple[int, Any]]
"""Picks a token from a row of logits; its log-probability at temperature 1 may stay on the device."""


class LanguageModel(TokenText, abc.ABC):
    """What a session needs of a model: sequences, and arithmetic on their logits."""

    eos_ids: frozenset[int]
    max_branches: int = 1 << 30
    """So many continuations of a sequence are written in one batch."""

    def __init__(
        self, tokenizer: Any, *, name: str, device: str, prompt: Prompt | None, keeps_hidden_state: bool
    ) -> None:
        """Keep what does not depend on the library; see the subclasses."""
        super().__init__(tokenizer, name, prompt)
        self.keeps_hidden_state = keeps_hidden_state
        self.worker = worker_for(device)

    @abc.abstractmethod
    def sequence(self) -> CachedTokens:
        """A new sequence, empty."""

    @abc.abstractmethod
    def picker(self, sampling: Sampling, seed: int) -> Picker:
        """The function that picks each token of one step."""

    @abc.abstractmethod
    def entropy(self, row: Any) -> Any:
        """Entropy at temperature 1 of one row, in nats."""

    @abc.abstractmethod
    def logprobs(self, rows: Rows, tokens: Sequence[int]) -> tuple[float, ...]:
        """Log-probability at temperature 1 of one token in each of the first ``len(tokens)`` rows."""

    def floats(self, values: Sequence[Any]) -> tuple[float, ...]:
        """What a picker said of log-probabilities, as plain numbers."""
        return tuple(map(float, values))

    def computing(self, flag: CancelFlag) -> AbstractContextManager[Any]:
        """Surrounds every call on the device's thread."""
        return contextlib.nullcontext()
