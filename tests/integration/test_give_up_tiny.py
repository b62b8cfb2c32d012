"""Giving up changes no decision and no text on real models, and the draft writes less."""

from dataclasses import replace

import pytest

import arbitrage as arb
from arbitrage.core.turn import Setting
from arbitrage.core.types import Finish
from arbitrage.datasets.named import problems
from arbitrage.policies import Repair, RouterPolicy

pytestmark = pytest.mark.integration
FLOOR = ((0.025, -0.66), (0.055, -1.0))
"""As `arbitrage calibrate --floor 0.95` chose it on 120 problems of tiny:validation."""


@pytest.fixture(scope="module")
def pair():
    return arb.load("tiny", policies=["repair"])


@pytest.mark.parametrize(
    "rule", [lambda r: RouterPolicy(r, 0.02), lambda r: Repair(r, 0.02, 0.15)], ids=["router", "repair"]
)
def test_giving_up_changes_no_decision_and_no_text(pair, rule, monkeypatch):
    router = pair.models.required_router()
    monkeypatch.setattr(router, "head", replace(router.head, floor=FLOOR))
    policy, given_up, drafted = rule(router), 0, {True: 0, False: 0}
    for problem in problems("tiny:test", 8):
        essences = []
        for gives_up in (True, False):
            trace = pair.solve(problem, policy=policy, setting=Setting(gives_up=gives_up))
            essences.append([(s.text, s.source, s.finish, s.candidate.token_ids) for s in trace.steps])
            drafted[gives_up] += trace.usage["draft"].num_generated
            given_up += sum(c.finish is Finish.GIVEN_UP for s in trace.steps for c in s.candidates)
        assert essences[0] == essences[1]
    assert given_up
    assert drafted[True] < drafted[False]
