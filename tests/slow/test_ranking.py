"""The shipped models rank as their model card says."""

import pytest

import arbitrage as arb
from arbitrage.datasets.named import problems
from arbitrage.evaluation.figures.metrics import all_figures
from arbitrage.evaluation.running.plan import Plan
from arbitrage.evaluation.running.solutions import graded
from helpers import entry_of, swept

pytestmark = pytest.mark.integration


async def test_the_policies_rank_as_they_should():
    """Floors with room for 60 problems; the exact figures stand in the model card."""
    pair = arb.load("tiny")
    compared = {entry_of(name): pair.method(name) for name in ("draft", "target", "router", "likelihood")}
    plan = Plan(problems=problems("tiny:test", 60), entries=list(compared), setting=arb.Setting(), num_warmup=0)
    results = await swept(plan, compared)
    rows = {one.entry.policy: one for one in all_figures(graded(results))}
    assert rows["target"].accuracy >= 0.7
    assert 0.15 <= rows["draft"].accuracy <= 0.6
    assert rows["router"].accuracy >= rows["target"].accuracy - 0.1
    assert rows["router"].target_token_share < 0.8
    assert rows["likelihood"].accuracy >= rows["target"].accuracy - 0.1
    assert rows["likelihood"].target_token_share < 0.65
    assert rows["router"].accuracy >= rows["draft"].accuracy + 0.15
    assert rows["router"].num_failed == 0
    assert all(trace.finish is arb.Finish.END_OF_SEQUENCE for trace in results[entry_of("draft")][:10])
