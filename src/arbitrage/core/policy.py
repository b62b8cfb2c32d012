"""The protocols of methods: a rule for single steps, and a solver of whole problems."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from arbitrage.core.trace import Trace
from arbitrage.core.turn import OnText, Setting, Turn
from arbitrage.core.types import Decision, Problem


@runtime_checkable
class Policy(Protocol):
    """A rule that decides, step by step, whose text to keep."""

    @property
    def name(self) -> str:
        """The rule's short name, as used on the command line."""

    async def decide(self, turn: Turn) -> Decision:
        """Get the candidates and scores that the rule needs from the turn, and choose.

        A candidate or score that the rule does not request is never computed.
        """


class Solver(Protocol):
    """A way to solve whole problems: a rule for single steps on a pair, or another means, such as a vote.

    It is the only thing that an evaluation runs.
    """

    @property
    def name(self) -> str:
        """Its short name, as used on the command line, without the threshold."""

    @property
    def threshold(self) -> float | None:
        """The threshold in force, a default included; None for a method without one."""

    @property
    def identity(self) -> tuple[str, float | None, str | None]:
        """Distinguishes it from other methods of the same name in a run's key: class, threshold, and own target."""

    async def solve(
        self,
        problem: Problem,
        setting: Setting,
        *,
        watch: Callable[[Trace], None] = lambda trace: None,
        on_text: OnText | None = None,
    ) -> Trace:
        """Solve a problem.

        Args:
            problem: The problem.
            setting: Limits, sampling and seeds.
            watch: Called with the trace so far, at least with the final one.
            on_text: Gets the text of a step while it is written, where it is sure to be kept; need not be called.

        Returns:
            One trace with all costs.
        """
