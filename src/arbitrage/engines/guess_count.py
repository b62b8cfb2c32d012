"""How many tokens to guess for one pass of the target: a fixed number, or that with the least expected time per token.

Each guess is right with probability a, the acceptance. One forward pass of the target over k guesses and one more token
gives 1 + a + … + a^k tokens on average (Leviathan et al., arXiv 2211.17192). Acceptance and the costs of forward passes
are measured; from them follows the number with the least time per token, which is 0 where guessing would lose.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from arbitrage.core.errors import ConfigError
from arbitrage.core.interpolation import interpolated

MAX_GUESSES: Final = 15
"""At most so many tokens are guessed at a time where the number is chosen."""
MARGIN: Final = 0.02
"""Share of the time that guesses must save at least: measured costs are not more precise."""
PROBE_EVERY: Final = 32
"""Forward passes between two probes while guessing would lose: a text may follow that is easier to guess."""
PROBE_SHARE: Final = 0.01
"""Of the time of these forward passes, the share that a probe may cost at most."""
PROBE_TOKENS: Final = 4
"""Tokens guessed in a probe."""
PRIOR_WEIGHT: Final = 24.0
"""Guesses that the expected acceptance counts for: a few that are wrong at the beginning say little."""
WINDOW: Final = 128.0
"""Guesses that the running acceptance looks back on."""
IN_STEP: Final = 2
"""A guesser that has followed a text lacks at most so many tokens of it: its last guess, and the target's own token."""
RECHOOSE_EVERY: Final = 8
"""Guesses that are right between two choices; each wrong one leads to a new choice."""


class GuessCount(Protocol):
    """Chooses how many tokens to guess, from the results of earlier guesses; one for all sessions of an engine."""

    def choose(self, num_missing: int) -> int:
        """The number of tokens to guess for the next forward pass of the target.

        Args:
            num_missing: Tokens that the guesser would have to read before.
        """

    def read(self, num_tokens: int) -> None:
        """Learn how many tokens the guesser read before it guessed: a prompt, another author's step."""

    def learn(self, is_right: bool) -> None:
        """Learn how the target decided about a guessed token."""


@dataclass(frozen=True, slots=True)
class FixedCount:
    """Always the same number.

    Raises:
        ConfigError: If it is not positive.
    """

    num_tokens: int

    def __post_init__(self) -> None:
        if self.num_tokens < 1:
            raise ConfigError(f"the number of guessed tokens must be at least 1, got {self.num_tokens}")

    def choose(self, num_missing: int) -> int:
        """See :meth:`GuessCount.choose`."""
        return self.num_tokens

    def read(self, num_tokens: int) -> None:
        """Changes nothing."""

    def learn(self, is_right: bool) -> None:
        """Changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds of forward passes, measured on this machine."""

    target_s: Mapping[int, float]
    """Of the target, by the number of tokens in the pass: 1, and others in ascending order."""
    guess_s: float = 0.0
    """Of one guessed token."""
    read_s: float = 0.0
    """Of one token that the guesser reads without guessing."""

    @property
    def plain_s(self) -> float:
        """Of one token without guesses."""
        return self.target_s[1]

    def verify_s(self, num_tokens: int) -> float:
        """Of a pass of the target over some tokens; between two measured numbers it is interpolated."""
        return interpolated(list(self.target_s.items()), num_tokens, slope=None)

    def best_count(self, acceptance: float, num_read: float = 0.0) -> int:
        """The number of guesses with the least time per token; 0 unless it saves :data:`MARGIN`.

        Args:
            acceptance: Probability that a guess is right.
            num_read: Tokens that the guesser must read first, for each token that the target will write.
        """
        best, least = 0, self.plain_s * (1.0 - MARGIN)
        num_tokens, chance = 1.0, 1.0
        for count in range(1, MAX_GUESSES + 1):
            chance *= acceptance
            num_tokens += chance
            seconds = (self.verify_s(count + 1) + count * self.guess_s) / num_tokens + num_read * self.read_s
            if seconds < least:
                best, least = count, seconds
        return best

    def probe_s(self, num_missing: int) -> float:
        """What a probe adds to a pass of the target if no guess is right."""
        verifying = self.verify_s(1 + PROBE_TOKENS) - self.plain_s
        return verifying + PROBE_TOKENS * self.guess_s + num_missing * self.read_s


@dataclass(slots=True)
class RunningMean:
    """A mean in which older values count less and less."""

    mean: float
    """At the start: the expectation before anything is seen."""
    weight: float
    """In values; at the start, the weight of the expectation."""
    window: float
    """The greatest weight."""

    def add(self, value: float) -> None:
        """Add a value."""
        self.weight = min(self.weight + 1.0, self.window)
        self.mean += (value - self.mean) / self.weight


@dataclass(slots=True, kw_only=True)
class AdaptiveCount:
    """The number that promises the least time per token, by the acceptance of the latest guesses and measured costs.

    Where 0 is best, a few tokens are guessed now and then, at :data:`PROBE_SHARE` of the time, so that the acceptance
    follows the text; never where no acceptance could make guesses pay.
    """

    default: int
    """The number until costs are measured, and where they cannot be."""
    costs: Costs | None = None
    is_measured: bool = False
    """Whether measuring was tried."""
    acceptance: RunningMean
    num_written: RunningMean = field(default_factory=lambda: RunningMean(64.0, 2.0, 16.0))
    """Tokens that the target writes after the guesser has read what others wrote."""
    _best: int | None = None
    """The number for a guesser in step; None where it must be chosen anew."""
    _num_learned: int = 0
    _num_since: int = 0
    """Tokens of the target since the guesser read."""
    _num_idle: int = 0
    """Passes of the target without guesses since the last probe."""
    _credit_s: float = 0.0
    """What a probe may cost."""

    def set_costs(self, costs: Costs | None) -> None:
        """Choose by measured costs from now on; None if they could not be measured."""
        self.costs, self.is_measured, self._best = costs, True, None

    def choose(self, num_missing: int) -> int:
        """See :meth:`GuessCount.choose`."""
        if self.costs is None:
            return self.default
        self._num_since += 1
        if self._best is None:
            self._best = self.costs.best_count(self.acceptance.mean)
        count = self._best
        if count and num_missing > IN_STEP:
            count = self.costs.best_count(self.acceptance.mean, num_missing / self.num_written.mean)
        return count or self._probe(self.costs, num_missing)

    def _probe(self, costs: Costs, num_missing: int) -> int:
        self._num_idle += 1
        self._credit_s += PROBE_SHARE * costs.plain_s
        is_due = self._num_idle >= PROBE_EVERY and self._credit_s >= costs.probe_s(num_missing)
        if not is_due or not costs.best_count(1.0):
            return 0
        self._credit_s -= costs.probe_s(num_missing)
        self._num_idle = 0
        return PROBE_TOKENS

    def read(self, num_tokens: int) -> None:
        """See :meth:`GuessCount.read`."""
        if num_tokens > IN_STEP:
            self.num_written.add(max(1, self._num_since))
            self._num_since = 0

    def learn(self, is_right: bool) -> None:
        """See :meth:`GuessCount.learn`."""
        self.acceptance.add(float(is_right))
        self._num_since += is_right
        self._num_learned += 1
        if not is_right or self._num_learned % RECHOOSE_EVERY == 0:
            self._best = None
