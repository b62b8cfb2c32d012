import math
import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from arbitrage.core.errors import ConfigError, EngineError
from arbitrage.core.solve import solve
from arbitrage.core.turn import History, Pair, Turn
from arbitrage.core.types import Problem, Source
from arbitrage.policies import (
    RSD,
    Confidence,
    DraftOnly,
    FirstEntropy,
    Judge,
    Oracle,
    RandomEscalation,
    RouterPolicy,
    TargetOnly,
)
from arbitrage.scorers.scripted import ScriptedScorer
from helpers import PROBLEM, scripted, setting

DRAFT, TARGET = Source.DRAFT, Source.TARGET


def scorer(draft: float, target: float = math.nan, name: str = "prm") -> ScriptedScorer:
    return ScriptedScorer(value=lambda _, c: draft if c.source is DRAFT else target, name=name)


@dataclass
class Telling:
    """An engine that tells the given numbers of its steps, and its only session."""

    told: dict[str, Any]
    engine: Any = field(default_factory=lambda: scripted("a"))
    session: Any = None

    @property
    def calls(self):
        return self.engine.calls

    async def open(self, problem, source):
        self.session = await self.engine.open(problem, source)
        return self

    async def propose(self, request):
        return replace(await self.session.propose(request), **self.told)


async def decided(policy, problem=PROBLEM, draft=None, **values):
    """What a policy decides on one step, and which models it woke."""
    pair = Pair(draft=draft or scripted("a"), target=scripted("b"))
    turn = Turn(History(problem, pair), setting(**values), 16)
    decision = await policy.decide(turn)
    return decision, {source for source in Source if pair.engine(source).calls}


@pytest.mark.parametrize(
    ("policy", "source", "woken", "score"),
    [
        (DraftOnly(), DRAFT, set(), None),
        (TargetOnly(), TARGET, set(), None),
        (RSD(scorer(0.71), 0.7), DRAFT, {DRAFT}, 0.71),
        (RSD(scorer(0.7), 0.7), TARGET, {DRAFT}, 0.7),
        (RSD(scorer(0.0), 0.0), TARGET, {DRAFT}, 0.0),
        (RSD(scorer(1.0), 1.0), TARGET, {DRAFT}, 1.0),
        (RouterPolicy(scorer(0.49), 0.5), DRAFT, {DRAFT}, 0.49),
        (RouterPolicy(scorer(0.5), 0.5), DRAFT, {DRAFT}, 0.5),
        (RouterPolicy(scorer(0.51), 0.5), TARGET, {DRAFT}, 0.51),
        (RouterPolicy(scorer(1.0), 1.0), DRAFT, {DRAFT}, 1.0),
        (RouterPolicy(scorer(0.0), 0.0), DRAFT, {DRAFT}, 0.0),
        (Judge(scorer(0.51), 0.5), DRAFT, {DRAFT}, 0.51),
        (Judge(scorer(0.5), 0.5), DRAFT, {DRAFT}, 0.5),
        (Judge(scorer(0.49), 0.5), TARGET, {DRAFT}, 0.49),
        (Judge(scorer(0.0), 0.0), DRAFT, {DRAFT}, 0.0),
        (Oracle(scorer(0.25, 0.75), 0.25), TARGET, {DRAFT, TARGET}, 0.5),
        (Oracle(scorer(0.25, 0.5), 0.25), DRAFT, {DRAFT, TARGET}, 0.25),
        (Oracle(scorer(0.5, 0.5), 0.0), DRAFT, {DRAFT, TARGET}, 0.0),
        (Oracle(scorer(0.75, 0.25), 0.0), DRAFT, {DRAFT, TARGET}, -0.5),
        (RandomEscalation(0.0), DRAFT, {DRAFT}, None),
        (RandomEscalation(1.0), TARGET, {DRAFT}, None),
    ],
    ids=lambda value: getattr(value, "name", None),
)
async def test_decision_table(policy, source, woken, score):
    decision, calls = await decided(policy)
    assert decision.source is source
    assert calls == woken
    if score is not None:
        assert decision.score == score


@pytest.mark.parametrize(("s_t", "measured"), [(0.9, {"prm"}), (0.1, {"prm", "target"})])
async def test_oracle_tags_what_a_perfect_router_would_not_run(s_t, measured):
    decision, _ = await decided(Oracle(scorer(0.5, s_t), 0.0))
    assert decision.measured == measured


@pytest.mark.parametrize(
    ("logprobs", "threshold", "source", "confidence"),
    [
        ((math.log(0.5), math.log(0.125)), 0.25, DRAFT, 0.25),
        ((math.log(0.5), math.log(0.125)), 0.26, TARGET, 0.25),
        ((math.log(0.5),), 0.25, DRAFT, 0.5),
        ((0.0,), 1.0, DRAFT, 1.0),
        ((-1e9,), 0.0, DRAFT, 0.0),
        ((), 1.0, DRAFT, 1.0),
    ],
)
async def test_confidence_is_the_geometric_mean_of_the_probabilities(logprobs, threshold, source, confidence):
    decision, woken = await decided(Confidence(threshold), draft=Telling({"logprobs": logprobs}))
    assert (decision.source, woken) == (source, {DRAFT})
    assert decision.score == pytest.approx(confidence)


@pytest.mark.parametrize(
    ("entropy", "threshold", "source", "doubt"),
    [
        (0.0, 0.0, DRAFT, 0.0),
        (-1e-9, 0.0, DRAFT, 0.0),
        (math.log(2), 0.51, DRAFT, 0.5),
        (math.log(2), 0.49, TARGET, 0.5),
        (math.log(4), 0.74, TARGET, 0.75),
        (1e3, 1.0, DRAFT, 1.0),
    ],
)
async def test_entropy_is_one_minus_its_exponential(entropy, threshold, source, doubt):
    decision, woken = await decided(FirstEntropy(threshold), draft=Telling({"first_entropy": entropy}))
    assert (decision.source, woken) == (source, {DRAFT})
    assert decision.score == pytest.approx(doubt)


@pytest.mark.parametrize(
    ("policy", "told", "what"),
    [
        (Confidence(0.5), {"logprobs": None}, "log-probabilities; the policy 'confidence'"),
        (FirstEntropy(0.5), {"first_entropy": None}, "first-token entropy; the policy 'entropy'"),
    ],
)
async def test_a_gate_names_what_the_engine_does_not_tell(policy, told, what):
    with pytest.raises(EngineError, match=f"returns no {what} needs them"):
        await decided(policy, draft=Telling(told))


@pytest.mark.parametrize("threshold", [-0.01, 1.01, math.nan])
@pytest.mark.parametrize(
    "build",
    [
        lambda t: RSD(scorer(0), t),
        lambda t: RouterPolicy(scorer(0), t),
        lambda t: Judge(scorer(0), t),
        Confidence,
        FirstEntropy,
    ],
)
def test_a_threshold_out_of_range_is_refused(build, threshold):
    with pytest.raises(ConfigError, match=rf"threshold must be in \[0, 1\], got {threshold}"):
        build(threshold)


def test_a_probability_out_of_range_is_refused_by_its_name():
    with pytest.raises(ConfigError, match=r"probability must be in \[0, 1\], got 2"):
        RandomEscalation(2)


async def test_random_escalation_does_not_depend_on_order():
    problems = [Problem(id=f"p{i}", question="?") for i in range(12)]
    policy = RandomEscalation(0.5)
    ordered = {p.id: (await decided(policy, p))[0] for p in problems}
    shuffled = random.Random(0).sample(problems, len(problems))
    assert {p.id: (await decided(policy, p))[0] for p in shuffled} == ordered
    assert {p.id: (await decided(policy, p, seed=1))[0] for p in problems} != ordered


@pytest.mark.parametrize("rate", [0.25, 0.75])
async def test_random_escalation_keeps_its_rate(rate):
    words = [f"s{i}" for i in range(300)]
    pair = Pair(draft=scripted(*words), target=scripted(*words))
    trace = await solve(PROBLEM, pair, RandomEscalation(rate), setting(max_steps=300))
    assert len(trace.steps) == 300
    assert 1 - trace.acceptance_rate == pytest.approx(rate, abs=0.08)
