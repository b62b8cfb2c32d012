"""Figures, intervals and comparisons, on traces written by hand."""

import random

import pytest

from arbitrage.core.trace import Trace
from arbitrage.core.types import Candidate, Cost, Decision, Finish, Problem, Score, Source, Step
from arbitrage.evaluation.curves import common_means, gain_share, waste_ratio
from arbitrage.evaluation.grading import is_correct
from arbitrage.evaluation.matched import fastest_matched
from arbitrage.evaluation.metrics import Row, bootstrap, summarize, wasted_escalations, wilson
from arbitrage.evaluation.run import Entry
from arbitrage.evaluation.summary import summary_of

D, T = Source.DRAFT, Source.TARGET


def candidate(source, text="x", num_tokens=2, seconds=0.0):
    cost = Cost(num_calls=1, num_generated=num_tokens, seconds=seconds)
    ids = tuple(range(num_tokens))
    return Candidate(source=source, text=text, token_ids=ids, finish=Finish.STEP_END, cost=cost)


def step(source, *, scores=None, text="x", num_tokens=2, seconds=0.0, measured=()):
    made = [candidate(D, text, num_tokens, seconds)]
    if source is T:
        made.append(candidate(T, text, num_tokens, seconds))
    return Step(
        candidate=made[-1],
        decision=Decision(source=source, measured=frozenset(measured)),
        finish=Finish.STEP_END,
        candidates=tuple(made),
        scores=tuple(
            Score(scorer="audit", source=author, value=value, cost=Cost(seconds=seconds))
            for author, value in (scores or {}).items()
        ),
    )


def trace(*steps, gold="7", wall_s=1.0, finish=Finish.END_OF_SEQUENCE):
    return Trace(
        problem=Problem(id="p", question="?", answer=gold), policy="x", steps=steps, finish=finish, wall_s=wall_s
    )


def solved(is_right, wall_s):
    return trace(step(D, text=r"\boxed{7}" if is_right else r"\boxed{8}"), wall_s=wall_s)


@pytest.mark.parametrize(
    ("said", "gold", "verdict"),
    [
        (r"\boxed{7}", "7", True),
        (r"\boxed{7} no, \boxed{8}", "7", False),
        (r"\boxed{7.0}", "7", True),
        (r"\boxed{1,200}", "1200", True),
        (r"\boxed{0.5}", "1/2", True),
        (r"\boxed{x + 1}", "x+1", True),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", True),
        ("7", "7", False),
        (r"\boxed{7}", None, None),
    ],
)
def test_grading(said, gold, verdict):
    assert is_correct(trace(step(D, text=said), gold=gold)) is verdict


def test_a_row_counts_steps_tokens_waste_and_failures():
    first = trace(
        step(D, num_tokens=6),
        step(T, scores={D: 0.2, T: 0.9}, num_tokens=2, text=r"\boxed{7}"),
        wall_s=2.0,
    )
    second = trace(
        step(T, scores={D: 0.5, T: 0.5}, num_tokens=2, text=r"\boxed{8}"),
        step(D, num_tokens=6),
        wall_s=4.0,
    )
    failed = trace(finish=Finish.FAILED, wall_s=100.0)
    row = summarize("router", 0.5, [first, second, failed], target_s=6.0)
    assert row.accuracy == pytest.approx(1 / 3)
    assert row.acceptance_rate == 0.5
    assert row.token_acceptance_rate == 0.75
    assert row.target_token_share == 0.25
    assert row.wasted_escalation_rate == 0.5
    assert row.seconds_per_problem == 3.0
    assert row.speedup_vs_target == 2.0
    assert row.num_failed == 1


def test_overhead_is_what_model_calls_do_not_explain_and_measuring_is_not_counted():
    measured = step(T, scores={D: 0.1, T: 0.2}, seconds=1.0, measured={"audit"})
    row = summarize("router", 0.5, [trace(measured, wall_s=4.5)], target_s=None)
    assert row.seconds_per_problem == pytest.approx(2.5)
    assert row.overhead_share == pytest.approx(0.2)
    assert row.speedup_vs_target is None


def test_waste_needs_both_scores():
    assert wasted_escalations(trace(step(T, scores={D: 0.5}), step(D, scores={D: 0.1}))) == []
    assert wasted_escalations(trace(step(T, scores={D: 0.5, T: 0.4}), step(T, scores={D: 0.5, T: 0.6}))) == [
        True,
        False,
    ]


def test_ungraded_problems_give_no_accuracy():
    row = summarize("draft", None, [trace(step(D), gold=None)], None)
    assert (row.accuracy, row.accuracy_low, row.wasted_escalation_rate) == (None, None, None)


def test_wilson_against_a_published_value():
    """81 of 263: 0.2553 to 0.3662 (Newcombe 1998, method 3)."""
    interval = wilson(81, 263)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 10).low == 0.0
    assert wilson(10, 10).high == pytest.approx(1.0)


def test_bootstrap_covers_the_mean_and_is_reproducible():
    values = [float(i % 10) for i in range(200)]

    def mean(indices):
        return sum(values[i] for i in indices) / len(indices)

    interval = bootstrap(mean, 200, rng=random.Random(0), resamples=400)
    assert interval == bootstrap(mean, 200, rng=random.Random(0), resamples=400)
    assert interval.low < 4.5 < interval.high
    assert 0.6 < interval.high - interval.low < 1.0


def row(policy, acceptance, accuracy, waste=None, threshold=0.5):
    return Row(
        policy=policy,
        threshold=threshold,
        accuracy=accuracy,
        accuracy_low=None,
        accuracy_high=None,
        acceptance_rate=acceptance,
        token_acceptance_rate=None,
        target_token_share=None,
        wasted_escalation_rate=waste,
        seconds_per_problem=None,
        speedup_vs_target=None,
        overhead_share=None,
        num_failed=0,
    )


def test_gain_share_of_a_router_half_way_is_one_half():
    chance = [row("draft", 1.0, 0.2), row("target", 0.0, 0.8)]
    oracle = [row("oracle", 0.5, 0.9), row("oracle", 1.0, 0.6)]
    router = [row("router", 0.5, 0.7), row("router", 1.0, 0.4)]
    assert gain_share(router, oracle, chance) == pytest.approx(0.5)
    assert gain_share(router, oracle, []) is None
    assert gain_share(router, chance, chance) is None


def test_waste_is_compared_at_equal_acceptance():
    router = [row("router", 0.2, 0, waste=0.2), row("router", 0.8, 0, waste=0.2)]
    rsd = [row("rsd", 0.4, 0, waste=0.4), row("rsd", 0.9, 0, waste=0.4)]
    assert waste_ratio(router, rsd) == pytest.approx(0.5)
    assert waste_ratio(router, [row("rsd", 0.9, 0, waste=0.4)]) is None


def test_curves_are_interpolated_between_points():
    assert common_means([[(0.0, 0.0), (1.0, 1.0)], [(0.5, 3.0), (1.0, 3.0)]]) == pytest.approx([0.75, 3.0])


def test_the_fastest_threshold_at_matched_accuracy_is_compared():
    results = {
        Entry("target"): [solved(i < 80, 4.0) for i in range(100)],
        Entry("router", 0.2): [solved(i < 85, 3.0) for i in range(100)],
        Entry("router", 0.5): [solved(i < 79, 2.0) for i in range(100)],
        Entry("router", 0.9): [solved(i < 70, 1.0) for i in range(100)],
    }
    found = fastest_matched(results, "router", Entry("target"), margin=0.015, rng=random.Random(0))
    assert found is not None
    assert found.entry.threshold == 0.5
    assert found.speedup == pytest.approx(2.0)
    assert found.accuracy_gap == pytest.approx(-0.01)
    assert found.interval.low == pytest.approx(2.0)
    assert fastest_matched(results, "rsd", Entry("target"), rng=random.Random(0)) is None


def test_a_summary_without_target_only_claims_no_speed():
    summary = summary_of({Entry("router", 0.5): [solved(True, 1.0)]}, [row("router", 0.5, 1.0)])
    assert summary.vs_target == {}
    assert summary.gain_share is None


def test_a_summary_compares_every_policy_that_reaches_the_target():
    speeds = {Entry("target"): 4.0, Entry("random", 0.5): 1.0, Entry("rsd", 0.5): 3.0, Entry("router:b", 0.5): 2.0}
    results = {entry: [solved(True, seconds)] * 10 for entry, seconds in speeds.items()}
    results[Entry("router", 0.5)] = [solved(False, 1.0)] * 10
    found = summary_of(results, []).vs_target
    assert {policy: matched.speedup for policy, matched in found.items()} == {"rsd": 4 / 3, "router:b": 2.0}
