"""A language model in this process, without sessions: its tokenizer, and the arithmetic on its logits."""

import abc
import contextlib
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from arbitrage.core.files import fingerprint
from arbitrage.core.types import Sampling
from arbitrage.engines import widths
from arbitrage.engines.cache import CachedTokens, Rows
from arbitrage.engines.prompt import Prompt
from arbitrage.engines.tokens import TokenText
from arbitrage.engines.worker import CancelFlag, worker_for

Picker = Callable[[Any], tuple[int, Any]]
"""Picks a token from a row of logits; its log-probability at temperature 1 may stay on the device."""


class LanguageModel(TokenText, abc.ABC):
    """A model as sessions need it: sequences, and arithmetic on their logits.

    Sessions compute several tokens in one forward pass in order to verify a proposal. That changes no token where
    passes of different widths give the same logits (:attr:`widths_agree`). ``exact`` decides about the other models:

    ========= ========================================================================================================
    ``exact`` forward passes
    ========= ========================================================================================================
    None      proposals are verified if the widths agree up to the rounding of float32, and are not used otherwise
    False     proposals are always verified: where the widths disagree, the text may differ from the plain one
    True      unless the widths agree to the last bit, each of the model's own tokens gets a forward pass of its own,
              and prompt and foreign steps one each: text and log-probabilities are those of plain decoding, whatever
              else was computed in between
    ========= ========================================================================================================
    """

    eos_ids: frozenset[int]
    num_embeddings: int
    """Ids that the model can read: its tokens, and padding."""
    max_branches: int = 1 << 30
    """So many continuations of a sequence are written in one batch."""
    probe_lengths: tuple[int, ...] = (128,)
    """See :class:`arbitrage.engines.widths.Measured`."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        name: str,
        device: str,
        prompt: Prompt | None,
        keeps_hidden_state: bool,
        exact: bool | None,
    ) -> None:
        """Keep the parts that do not depend on the library; see the subclasses."""
        super().__init__(tokenizer, name, prompt)
        self.keeps_hidden_state, self.exact = keeps_hidden_state, exact
        self.worker = worker_for(device)
        self._width_difference: float | None = None

    @property
    def path(self) -> str:
        """How forward passes run: the engine's name unless it has several ways."""
        return str(self.arithmetic()["engine"])

    @property
    def width_difference(self) -> float:
        """See :func:`arbitrage.engines.widths.width_difference`; measured at first use.

        Infinite if measuring fails, for example because memory is short; then :attr:`widths_agree` is False.
        """
        if self._width_difference is None:
            # On the device's thread: libraries keep a team of threads for each thread that computes, and two teams
            # slow each other down as long as both exist.
            self._width_difference = self.worker.call(self._measured_difference)
        return self._width_difference

    def _measured_difference(self) -> float:
        try:
            with self.computing(CancelFlag()):
                return widths.width_difference(self)
        except Exception:  # Libraries have no common error, and a failed measurement must not fail a load.
            return float("inf")

    @property
    def widths_agree(self) -> bool:
        """Whether forward passes over one and over several tokens give the same logits, up to rounding of float32.

        Only there is a step that reused a proposal, or guessed tokens, token for token the plain one.
        """
        return self.width_difference <= widths.TOLERANCE

    @property
    def takes_proposals(self) -> bool:
        """Whether sessions verify proposals; they ignore them otherwise."""
        return self.exact is False or (self.widths_agree and not self.is_strict)

    @property
    def is_strict(self) -> bool:
        """Whether forward passes are those of plain decoding, whatever other calls sessions get."""
        return self.exact is True and self.width_difference > 0.0

    def measure_widths(self, path: str | Path) -> None:
        """Measure before the first problem, unless ``exact`` is False or an earlier start has measured the same.

        Args:
            path: Of the weights. Measurements are kept for files only: a name on the hub does not identify the weights.
        """
        if self.exact is False:
            return
        weights = fingerprint(Path(path))
        settings = {"weights": weights, **self.arithmetic()}
        self._width_difference = widths.saved_difference(settings) if weights else None
        if self._width_difference is None:
            difference = self.width_difference
            if weights and math.isfinite(difference):
                widths.save_difference(difference, settings)

    @abc.abstractmethod
    def arithmetic(self) -> dict[str, Any]:
        """Settings that the rounding of logits depends on, besides the weights: library, device, data type, threads."""

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
        """The log-probabilities that a picker returned, as plain numbers."""
        return tuple(map(float, values))

    def computing(self, flag: CancelFlag) -> AbstractContextManager[Any]:
        """Surrounds every call on the device's thread."""
        return contextlib.nullcontext()
