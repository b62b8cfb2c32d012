"""The audit: scores beside a finished solution, which stays as it was; with scripted models."""

import math

import pytest

from arbitrage.core.errors import ContextOverflow, EngineError
from arbitrage.core.solve import solve
from arbitrage.core.turn import Pair
from arbitrage.core.types import Cost, Finish, Score, Source
from arbitrage.evaluation.running.audit import audited
from arbitrage.policies import DraftOnly, RouterPolicy, TargetOnly
from arbitrage.scorers.scripted import ScriptedScorer
from helpers import PROBLEM, scripted

DRAFT, TARGET = Source.DRAFT, Source.TARGET


def by_source(draft, target=math.nan, name="audit"):
    return ScriptedScorer(value=lambda _, c: draft if c.source is DRAFT else target, name=name)


class Timed:
    """An auditor whose every score takes half a second, and which fails after so many."""

    name = "audit"

    def __init__(self, num_scores=100, error=None):
        self.left, self.error, self.num_open, self.committed = num_scores, error, 0, []

    async def open(self, solution):
        self.num_open += 1
        return self

    async def score(self, candidate):
        if not self.left:
            raise self.error
        self.left -= 1
        cost = Cost(num_calls=1, seconds=0.5)
        return Score(scorer=self.name, source=candidate.source, value=0.5, cost=cost)

    async def commit(self, candidate):
        self.committed.append(candidate)

    async def close(self):
        self.num_open -= 1


async def routed(gain):
    pair = Pair(draft=scripted("a", "b"), target=scripted("x", "y"))
    return await solve(PROBLEM, pair, RouterPolicy(by_source(gain, name="router"), 0.5))


async def test_an_audit_scores_every_candidate_and_leaves_the_solution_alone():
    plain = await routed(0.9)
    made = await audited(plain, by_source(0.3, 0.6))
    assert (made.text, made.policy, made.usage, made.finish) == (plain.text, plain.policy, plain.usage, plain.finish)
    assert [step.candidates for step in made.steps] == [step.candidates for step in plain.steps]
    scores = [(s.source, s.value) for step in made.steps for s in step.scores if s.scorer == "audit"]
    assert scores == [(DRAFT, 0.3), (TARGET, 0.6)] * 2
    assert made.measurement.keys() == {"audit"}


async def test_its_seconds_are_no_latency():
    plain, auditor = await routed(0.9), Timed()
    made = await audited(plain, auditor)
    assert made.wall_s == pytest.approx(plain.wall_s + 2.0)
    assert made.latency_s == pytest.approx(plain.latency_s)
    assert [candidate.text for candidate in auditor.committed] == [step.text for step in plain.steps]
    assert auditor.num_open == 0


@pytest.mark.parametrize("rule", [DraftOnly(), TargetOnly()])
async def test_where_one_model_wrote_all_there_is_nothing_to_compare(rule):
    plain = await solve(PROBLEM, Pair(draft=scripted("a"), target=scripted("x")), rule)
    assert await audited(plain, Timed(0, AssertionError())) is plain
    kept = await routed(0.1)
    assert await audited(kept, Timed(0, AssertionError())) is kept


@pytest.mark.parametrize("error", [ContextOverflow("9 tokens, room for 8"), EngineError("gone")])
async def test_an_auditor_that_fails_loses_no_solution(error):
    plain, auditor = await routed(0.9), Timed(3, error)
    made = await audited(plain, auditor)
    assert (made.text, made.finish) == (plain.text, Finish.END_OF_SEQUENCE)
    assert made.error == f"audit stopped at step 1: {error}"
    assert [len([s for s in step.scores if s.scorer == "audit"]) for step in made.steps] == [2, 0]
    assert made.steps[1] == plain.steps[1]
    assert auditor.num_open == 0
