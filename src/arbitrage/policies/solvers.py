"""The things that solve whole problems: a rule on a pair, and a vote among several solutions of the draft."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from arbitrage.core.errors import ConfigError
from arbitrage.core.policy import Policy
from arbitrage.core.solve import solve
from arbitrage.core.trace import Trace
from arbitrage.core.turn import OnText, Pair, Setting
from arbitrage.core.types import Finish, Problem, Sampling
from arbitrage.policies.basic import DraftOnly


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSolver:
    """A rule for single steps on the engines that write them."""

    policy: Policy
    pair: Pair
    name: str = ""
    """The method's name in traces; the rule's own where it is empty."""
    threshold: float | None = None
    """The threshold in force; None for a rule without one."""
    own_target: str | None = None
    """What run keys call the target that the method brings, such as one that verifies guessed tokens."""
    prepare: Callable[[], Awaitable[None]] | None = None
    """Awaited before the time of a solution begins."""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.policy.name)

    @property
    def identity(self) -> tuple[str, float | None, str | None]:
        """The rule's class, its threshold, and the name of its own target, which says how tokens are guessed."""
        return type(self.policy).__name__, self.threshold, self.own_target

    async def solve(
        self,
        problem: Problem,
        setting: Setting,
        *,
        watch: Callable[[Trace], None] = lambda trace: None,
        on_text: OnText | None = None,
    ) -> Trace:
        """Solve as the rule does; the trace bears this name."""
        if self.prepare is not None:
            await self.prepare()
        trace = await solve(
            problem,
            self.pair,
            self.policy,
            setting,
            watch=lambda trace: watch(replace(trace, policy=self.name)),
            on_text=on_text,
        )
        return replace(trace, policy=self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Majority:
    """The draft alone solves a problem several times, and the answer that most agree on is kept.

    Self-consistency, arXiv 2203.11171. The solutions are written one after another, so their seconds add up.

    Raises:
        ConfigError: If the number is not positive.
    """

    pair: Pair
    is_same: Callable[[str, str], bool]
    """Whether two answers are equal."""
    num: int = 5
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.7))
    """Used where the setting's is greedy, since greedy solutions are all equal."""
    name: str = "majority"
    threshold: float | None = field(default=None, init=False)

    @property
    def identity(self) -> tuple[str, float | None, str | None]:
        """See :class:`arbitrage.core.policy.Solver`; the name holds the number of drafts."""
        return type(self).__name__, None, None

    def __post_init__(self) -> None:
        if self.num < 1:
            raise ConfigError(f"the number of drafts must be at least 1, got {self.num}")

    async def solve(
        self,
        problem: Problem,
        setting: Setting,
        *,
        watch: Callable[[Trace], None] = lambda trace: None,
        on_text: OnText | None = None,
    ) -> Trace:
        """Solve several times, each with seeds of its own, and vote.

        Returns:
            The first solution with the winning answer. It has the cost of all: the other solutions' steps are its
            discarded candidates, numbered by solution, and its seconds are those of all.
        """
        sampling = setting.sampling if setting.sampling.temperature else self.sampling
        traces: list[Trace] = []
        for number in range(self.num):
            own = replace(setting, sampling=sampling, attempt=setting.attempt * self.num + number)
            traces.append(await solve(problem, self.pair, DraftOnly(self.name), own))
        trace = _with_all_costs(traces, self._elected(traces))
        watch(trace)
        return trace

    def _elected(self, traces: Sequence[Trace]) -> int:
        """Number of the first solution whose answer most others share; the first that did not fail without answers."""
        answers = [trace.answer for trace in traces]
        votes = [-1 if a is None else sum(b is not None and self.is_same(b, a) for b in answers) for a in answers]
        ranks = [(trace.finish is not Finish.FAILED, num) for trace, num in zip(traces, votes, strict=True)]
        return ranks.index(max(ranks))


def _with_all_costs(traces: Sequence[Trace], elected: int) -> Trace:
    """The elected solution with the candidates of all solutions; those beyond its length go to its last step."""
    winner = traces[elected]
    if not winner.steps:
        return replace(winner, wall_s=sum(trace.wall_s for trace in traces))
    num_steps = len(winner.steps)
    steps = [
        replace(
            step,
            candidate=(kept := replace(step.candidate, sample=elected)),
            decision=replace(step.decision, sample=elected),
            candidates=(kept,),
        )
        for step in winner.steps
    ]
    for number, trace in enumerate(traces):
        for index, step in enumerate(trace.steps if number != elected else ()):
            last = min(index, num_steps - 1)
            discarded = replace(step.candidate, sample=number)
            steps[last] = replace(steps[last], candidates=(*steps[last].candidates, discarded))
    return replace(winner, steps=tuple(steps), wall_s=sum(trace.wall_s for trace in traces))
