"""The protocols of models: engines, which write steps, and scorers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from arbitrage.core.types import Candidate, Likelihood, Problem, Progress, Sampling, Score, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRequest:
    """A request for one step."""

    max_tokens: int
    delimiter: str
    sampling: Sampling
    seed: int
    proposal: Candidate | None = None
    """Another model's step from the same prefix. An engine may verify its tokens in one forward pass and keep
    the agreeing prefix. Where its forward passes over one and over several tokens give the same logits, the step is
    token for token the one without a proposal; other engines use proposals only if they are configured to do so."""
    num_taken: int = 0
    """The step begins with so many tokens of the proposal, and the model writes on behind them; budget and delimiter
    count from the step's beginning. The proposal's ids must be this model's. A beginning that ends inside a character
    is shortened to the whole ones."""
    after: Candidate | None = None
    """Continue from this candidate although it is not committed, to draft ahead."""
    stop: Callable[[Progress], bool] | None = field(default=None, compare=False, repr=False)
    """Asked after each token but the last ones of the budget; True ends the step as
    :attr:`~arbitrage.core.types.Finish.GIVEN_UP`. An engine
    that gets a step as a whole does not ask."""
    on_text: Callable[[str], None] | None = field(default=None, compare=False, repr=False)
    """Called on the event loop with each new part of the step, in whole characters, before the step is returned. Joined
    parts are the step's text. An engine that gets a step as a whole calls it once. With ``num_taken`` the first part is
    the beginning, which may be empty."""


class Session(Protocol):
    """One problem's token history on one engine; append-only."""

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Prompt and committed steps, as the engine holds them."""

    async def propose(self, request: StepRequest) -> Candidate:
        """Write one step from the committed prefix; commits nothing.

        Raises:
            ContextOverflow: If the prefix leaves no room for a token.
            EngineError: If the backend fails.
        """

    async def propose_many(self, request: StepRequest, seeds: Sequence[int]) -> list[Candidate]:
        """Write independent steps from the committed prefix, together where the backend can.

        Each is the step that :meth:`propose` would write with that seed, up to the rounding of batched sums. A proposal
        in ``request`` may be ignored, with ``num_taken``, ``on_text`` is not called, and no hidden state is kept.

        Raises:
            ContextOverflow: If the prefix leaves no room for a token.
            EngineError: If the backend fails.
        """

    async def likelihood(self, candidate: Candidate) -> Likelihood:
        """Read the probability that this model gives a step behind the committed prefix; writes and commits nothing.

        One forward pass over the step. Where the same step is the next proposal, an engine may use its results again.

        Raises:
            ContextOverflow: If the step does not fit behind the prefix.
            EngineError: If the backend fails.
        """

    async def commit(self, candidate: Candidate) -> None:
        """Append a step: the session's own by its ids, a foreign one by encoding its text once."""

    async def close(self) -> None:
        """Free the session's memory; safe to call twice, and after a cancellation."""


@runtime_checkable
class Rewindable(Protocol):
    """A session that can go back to earlier steps and keep what its cache holds of them."""

    async def rewind(self, num_steps: int) -> None:
        """Take back the last ``num_steps`` committed steps."""


class Engine(Protocol):
    """A model that can write steps."""

    @property
    def name(self) -> str:
        """Identifies model and backend in traces and run keys."""

    async def open(self, problem: Problem, source: Source) -> Session:
        """Start a session in which this engine plays ``source``.

        Raises:
            ContextOverflow: If the prompt does not fit.
        """


class OpenSolution(Protocol):
    """A solution that is being written, as its scorers see it."""

    @property
    def problem(self) -> Problem:
        """The problem."""

    async def session(self, source: Source) -> Session:
        """The session in which ``source`` writes, with every step so far."""


class ScoringSession(Protocol):
    """One problem's history in one scoring model."""

    async def score(self, candidate: Candidate) -> Score:
        """Score a step that follows the committed prefix; only new tokens are computed.

        Raises:
            ScorerError: If the model gives no probability.
        """

    async def commit(self, candidate: Candidate) -> None:
        """Append a step to the prefix; nothing is computed until the next score."""

    async def close(self) -> None:
        """Free the session's memory; safe to call twice."""


@runtime_checkable
class BoundsScores(Protocol):
    """A scorer that knows a bound of a step's score while the step is being written."""

    def lowest(self, progress: Progress) -> float:
        """The score that a step with this beginning gets at least, however it goes on."""


class Scorer(Protocol):
    """A model that scores steps: a PRM or a router."""

    @property
    def name(self) -> str:
        """Identifies the scorer in traces; unique within a policy."""

    async def open(self, solution: OpenSolution) -> ScoringSession:
        """Start scoring one solution."""
