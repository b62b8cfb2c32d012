"""Shared builders: candidates, requests, scripted and watched engines."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from arbitrage.core.policy import Solver
from arbitrage.core.ports import Engine, Session, StepRequest
from arbitrage.core.trace import Trace
from arbitrage.core.turn import Pair, Setting
from arbitrage.core.types import (
    Candidate,
    Cost,
    Decision,
    Finish,
    Likelihood,
    Limits,
    Problem,
    Sampling,
    Score,
    Source,
    Step,
)
from arbitrage.engines.scripted import ScriptedEngine
from arbitrage.evaluation.running.entry import Entry
from arbitrage.evaluation.running.plan import Plan
from arbitrage.evaluation.running.solutions import Solution, TracePosition, condense
from arbitrage.evaluation.running.sweep import Results, sweep
from arbitrage.policies import RuleSolver
from arbitrage.training.rows import Past, Row, Sample

PROBLEM = Problem(id="p1", question="What is 2 + 2 ?")


def candidate(text: str, source: Source = Source.DRAFT, finish: Finish = Finish.STEP_END, **values: Any) -> Candidate:
    """A step whose ids are of no concern; one id for each character unless given."""
    values.setdefault("token_ids", tuple(map(ord, text)))
    values.setdefault("cost", Cost(num_calls=1, num_generated=len(values["token_ids"])))
    return Candidate(source=source, text=text, finish=finish, **values)


def step(kept: Candidate, *others: Candidate, decision: Decision | None = None, **values: Any) -> Step:
    """A step as a turn would record it."""
    decision = decision or Decision(source=kept.source)
    return Step(candidate=kept, decision=decision, finish=kept.finish, candidates=(kept, *others), **values)


def request(max_tokens: int = 32, *, temperature: float = 0.0, seed: int = 0, **values: Any) -> StepRequest:
    """A request for one step."""
    sampling = Sampling(temperature=temperature)
    return StepRequest(max_tokens=max_tokens, delimiter="\n\n", sampling=sampling, seed=seed, **values)


def setting(**values: Any) -> Setting:
    """A setting with the given limits; values that are no limits go where they belong."""
    own = {name: values.pop(name) for name in ("sampling", "seed", "use_proposals", "gives_up") if name in values}
    return Setting(limits=Limits(**values), **own)


async def swept(plan: Plan, methods: Mapping[Entry, Solver]) -> Results:
    """Traces of a sweep by entry."""
    results: Results = {entry: [] for entry in plan.entries}
    await sweep(plan, methods, lambda done: results[done.entry].append(done.trace))
    return results


def on_pair(policies: Mapping[Entry, Any], pair: Pair) -> dict[Entry, Solver]:
    """Methods of a plan: rules on one pair."""
    return {
        entry: RuleSolver(policy=rule, pair=pair, name=entry.policy, threshold=entry.threshold)
        for entry, rule in policies.items()
    }


def measured(engine: Any) -> Any:
    """An engine whose forward passes of several widths are compared already, as those of a loaded one are."""
    assert engine.width_difference >= 0.0
    return engine


def total(costs: Any) -> Cost:
    """The sum of costs."""
    return sum(costs, Cost())


@dataclass
class Policy:
    """A policy from a function, for what no shipped rule does."""

    decide: Callable[[Any], Any]
    name: str = "test"


@dataclass
class Watched:
    """An engine that remembers what it was asked and what it answered, whichever engine it wraps."""

    engine: Engine
    sessions: list["WatchedSession"] = field(default_factory=list)
    made: list[Candidate] = field(default_factory=list)
    prompt_lengths: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.engine.name

    async def open(self, problem: Problem, source: Source) -> "WatchedSession":
        self.sessions.append(WatchedSession(self, await self.engine.open(problem, source)))
        return self.sessions[-1]


@dataclass
class WatchedSession:
    """A session of :class:`Watched`."""

    owner: Watched
    session: Session
    closed: bool = False

    @property
    def token_ids(self) -> tuple[int, ...]:
        return self.session.token_ids

    async def propose(self, request: StepRequest) -> Candidate:
        prompt_length = len(self.session.token_ids)
        made = await self.session.propose(request)
        self.owner.made.append(made)
        self.owner.prompt_lengths.append(prompt_length)
        return made

    async def propose_many(self, request: StepRequest, seeds: Sequence[int]) -> list[Candidate]:
        return await self.session.propose_many(request, seeds)

    async def likelihood(self, candidate: Candidate) -> Likelihood:
        return await self.session.likelihood(candidate)

    async def commit(self, candidate: Candidate) -> None:
        await self.session.commit(candidate)

    async def close(self) -> None:
        await self.session.close()
        self.closed = True


def scripted(*steps: str, **values: Any) -> ScriptedEngine:
    """An engine whose steps are the given texts, each a delimiter but the last added."""
    return ScriptedEngine(script="\n\n".join(steps), **values)


@asynccontextmanager
async def opened(engine: Any, problem: Problem = PROBLEM, source: Source = Source.TARGET) -> AsyncIterator[Any]:
    """A session that is closed at the end."""
    session = await engine.open(problem, source)
    try:
        yield session
    finally:
        await session.close()


def row(draft: float, *targets: float, problem: str = "p1", step: int = 0, history: Any = (), **values: Any) -> Row:
    """A training row by its scores; ``values`` go to the draft's sample."""

    def sample(score: float, **more: Any) -> Sample:
        given = {"text": "two words\n\n", "finish": Finish.STEP_END, "num_tokens": 2, "seconds": 0.1, **more}
        return Sample(**given, score=score)

    return Row(
        problem=Problem(id=problem, question="?"),
        step=step,
        is_last=False,
        history=tuple(Past(source=Source.DRAFT, text=text) for text in history),
        draft=sample(draft, **values),
        targets=tuple(sample(score) for score in targets),
        kept=Source.DRAFT,
        models={"draft": "d", "target": "t", "prm": "prm"},
    )


def model_cost(
    seconds: float = 0.0, *, computed: int = 0, cached: int = 0, generated: int = 0, reused: int = 0
) -> Cost:
    """One call of a model."""
    return Cost(
        num_calls=1,
        num_computed=computed,
        num_cached=cached,
        num_generated=generated,
        num_reused=reused,
        seconds=seconds,
    )


def written(source: Source, num_tokens: int, seconds: float = 0.0, *, text: str = "x", **tokens: int) -> Candidate:
    """A candidate of so many tokens."""
    cost = model_cost(seconds, generated=num_tokens, **tokens)
    return candidate(text, source, token_ids=tuple(range(num_tokens)), cost=cost)


def score(scorer: str, source: Source, value: float, seconds: float = 0.0, *, computed: int = 0) -> Score:
    """A scorer's opinion."""
    return Score(scorer=scorer, source=source, value=value, cost=model_cost(seconds, computed=computed))


def solved(
    *steps: Step,
    problem: str = "p",
    answer: str | None = None,
    gold: str | None = "7",
    wall_s: float = 1.0,
    policy: str = "router",
    finish: Finish = Finish.END_OF_SEQUENCE,
    **metadata: str,
) -> Trace:
    """A trace; with ``answer`` it ends with a draft's step that says it."""
    last = [step(written(Source.DRAFT, 1, text=rf"\boxed{{{answer}}}"))] if answer is not None else []
    return Trace(
        problem=Problem(id=problem, question=f"What is {problem}?", answer=gold, metadata=metadata),
        policy=policy,
        steps=(*steps, *last),
        finish=finish,
        wall_s=wall_s,
    )


def entry_of(policy: str, threshold: float | None = None) -> Entry:
    """A row of a comparison by its method's name, known or not."""
    return Entry.recorded(policy, threshold)


def group(
    *outcomes: tuple[bool | None, float], policy: str = "router", threshold: float | None = 0.5
) -> list[Solution]:
    """Solutions of problems p0, p1, … by (is it right, seconds); None for a problem that cannot be graded."""
    position = TracePosition(entry=entry_of(policy, threshold))
    return [
        condense(
            solved(answer="7" if is_right else "8", gold=None if is_right is None else "7", problem=f"p{i}", wall_s=s),
            position,
        )
        for i, (is_right, s) in enumerate(outcomes)
    ]
