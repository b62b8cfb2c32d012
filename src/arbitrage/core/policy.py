"""The seams towards methods: what a rule for single steps and a way to solve whole problems must offer."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from arbitrage.core.trace import Trace
from arbitrage.core.turn import Setting, Turn
from arbitrage.core.types import Decision, Problem


class Policy(Protocol):
    """A rule that decides, step by step, whose text to keep."""

    @property
    def name(self) -> str:
        """The rule's short name, as used on the command line."""

    async def decide(self, turn: Turn) -> Decision:
        """Ask the turn for what the rule needs, and choose.

        Whatever it does not ask for is never computed.
        """


@runtime_checkable
class Solver(Protocol):
    """A way to solve whole problems that is no rule for single steps, such as a vote among several solutions."""

    @property
    def name(self) -> str:
        """Its short name, as used on the command line."""

    async def solve(
        self, problem: Problem, setting: Setting, *, watch: Callable[[Trace], None] = lambda trace: None
    ) -> Trace:
        """Solve a problem with engines of its own.

        Args:
            problem: What to solve.
            setting: Limits, sampling and seeds.
            watch: Called with the trace so far, at least with the final one.

        Returns:
            One trace that bears all costs.
        """
