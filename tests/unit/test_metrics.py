"""Figures, intervals and comparisons, on traces written by hand."""

from dataclasses import replace

import pytest

from arbitrage.core.trace import Trace
from arbitrage.core.types import Candidate, Cost, Decision, Finish, Problem, Score, Source, Step
from arbitrage.evaluation.figures.curves import common_means, gain_share, waste_ratio
from arbitrage.evaluation.figures.metrics import (
    MethodFigures,
    figures_of,
    role_seconds,
    throughput,
)
from arbitrage.evaluation.figures.rates import Rates
from arbitrage.evaluation.running.solutions import Fates, StepFacts, TracePosition, condense
from arbitrage.grading import is_correct
from arbitrage.report.export import flat
from helpers import entry_of, group, score, solved, written
from helpers import step as made_of

D, T = Source.DRAFT, Source.TARGET


def figures_from(policy, threshold, traces, target_s):
    entry = entry_of(policy, threshold)
    return figures_of(entry, [condense(trace, TracePosition(entry=entry)) for trace in traces], target_s)


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


@pytest.mark.parametrize(
    ("said", "gold", "verdict"),
    [
        (r"\boxed{7}", "7", True),
        (r"\boxed{7} no, \boxed{8}", "7", False),
        (r"\boxed{7.0}", "7", True),
        (r"\boxed{1,200}", "1200", True),
        (r"\boxed{0.5}", "1/2", True),
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
    row = figures_from("router", 0.5, [first, second, failed], 6.0)
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
    row = figures_from("router", 0.5, [trace(measured, wall_s=4.5)], None)
    assert row.seconds_per_problem == pytest.approx(2.5)
    assert row.overhead_share == pytest.approx(0.2)
    assert row.speedup_vs_target is None


def test_waste_needs_both_scores():
    unknown = (step(T, scores={D: 0.5}), step(D, scores={D: 0.1}))
    assert [StepFacts.of(one).is_wasted for one in unknown] == [None, None]
    audited = (step(T, scores={D: 0.5, T: 0.4}), step(T, scores={D: 0.5, T: 0.6}))
    assert [StepFacts.of(one).is_wasted for one in audited] == [True, False]


def test_ungraded_problems_give_no_accuracy():
    row = figures_from("draft", None, [trace(step(D), gold=None)], None)
    assert (row.accuracy, row.accuracy_low, row.wasted_escalation_rate) == (None, None, None)


def row(policy, acceptance, accuracy, waste=None, threshold=0.5):
    return MethodFigures(
        entry=entry_of(policy, threshold),
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


POSITION = TracePosition(entry=entry_of("router", 0.5))


def condensed(*steps, position=POSITION, **values):
    return condense(solved(*steps, **values), position)


def escalated(draft, target, *scores, num=(3, 5), reused=0, measured=()):
    """A step by the target with the draft's step that it replaced."""
    kept = written(T, num[1], 0.5, reused=reused)
    scored = (score("audit", D, draft), score("audit", T, target)) if draft is not None else ()
    decision = Decision(source=T, score=0.8, measured=frozenset({"audit", *measured}))
    return made_of(kept, written(D, num[0], 0.25), decision=decision, scores=(*scores, *scored))


def test_tokens_are_sorted_by_what_became_of_them():
    solution = condensed(made_of(written(D, 7)), escalated(0.1, 0.9, num=(3, 5), reused=2))
    assert solution.fates == Fates(draft_accepted=7, draft_discarded=3, target_kept=5, target_discarded=0, reused=2)
    assert solution.num_tokens == 12


def test_a_targets_step_that_lost_is_discarded_unless_it_was_made_only_to_measure():
    draft, target = written(D, 4), written(T, 6, reused=1)
    lost = made_of(draft, target, decision=Decision(source=D))
    seen = made_of(draft, target, decision=Decision(source=D, measured=frozenset({"target"})))
    assert condensed(lost).fates == Fates(draft_accepted=4, target_discarded=6, reused=1)
    assert condensed(seen).fates == Fates(draft_accepted=4)


def test_only_the_targets_tokens_are_reused_ones():
    assert condensed(made_of(written(D, 4, reused=3))).fates == Fates(draft_accepted=4)


def test_shares_of_tokens_are_of_the_kept_ones():
    solutions = [condensed(made_of(written(D, 7)), escalated(0.1, 0.9, num=(20, 3)))]
    row = figures_of(entry_of("x"), solutions, None)
    assert (row.token_acceptance_rate, row.target_token_share) == (0.7, 0.3)


def test_fates_add_up_one_by_one():
    one = Fates(draft_accepted=1, draft_discarded=2, target_kept=3, target_discarded=4, reused=5)
    assert one + one == Fates(draft_accepted=2, draft_discarded=4, target_kept=6, target_discarded=8, reused=10)


def test_an_advantage_is_read_from_one_scorer_the_auditor_before_others():
    """The router has seen the draft only; the PRM of the policy and the auditor have seen both."""
    others = (score("prm", T, 0.4), score("prm", D, 0.6), score("router", D, 0.99))
    (facts,) = condensed(escalated(0.25, 0.75, *others)).steps
    assert (facts.draft_score, facts.target_score, facts.advantage, facts.is_wasted) == (0.25, 0.75, 0.5, False)
    (alone,) = condensed(escalated(None, None, *others)).steps
    assert alone.advantage == pytest.approx(-0.2)
    assert alone.is_wasted is True
    (half,) = condensed(escalated(None, None, score("router", D, 0.99), score("prm", T, 0.4))).steps
    assert (half.advantage, half.is_wasted) == (None, None)


def test_several_candidates_of_one_author_count_by_their_mean():
    scores = (score("audit", D, 0.2), score("audit", T, 0.1), score("audit", T, 0.5))
    assert condensed(escalated(None, None, *scores)).steps[0].advantage == pytest.approx(0.1)


def test_waste_is_counted_among_audited_escalations_only():
    kept = made_of(written(D, 10), scores=(score("audit", D, 0.9), score("audit", T, 0.1)))
    solutions = [
        condensed(kept, escalated(0.5, 0.5, num=(1, 6)), escalated(0.2, 0.8, num=(1, 2)), escalated(None, None)),
    ]
    row = figures_of(entry_of("router", 0.5), solutions, None)
    assert row.num_audited == 2
    assert row.wasted_escalation_rate == 0.5
    assert row.target_better_rate == 0.5
    assert row.mean_advantage == pytest.approx(0.3)
    assert row.wasted_token_share == 0.75  # 6 of 8 tokens.
    assert row.wasted_step_share == pytest.approx(0.5 * 3 / 4)  # Three of four steps were escalated.


def test_p_target_better_is_not_one_half_by_chance():
    row = figures_of(entry_of("x"), [condensed(escalated(0.1, 0.9), escalated(0.1, 0.9), escalated(0.9, 0.1))], None)
    assert row.target_better_rate == pytest.approx(2 / 3)
    assert row.wasted_escalation_rate == pytest.approx(1 / 3)


def test_seconds_have_a_mean_a_median_and_a_tail():
    row = figures_of(entry_of("x"), group(*((True, float(i)) for i in range(1, 21)), (True, 100.0)), None)
    assert row.seconds.mean == pytest.approx((210 + 100) / 21)
    assert row.seconds.p50 == 11.0
    assert row.seconds.p95 == 20.0
    assert figures_of(entry_of("x"), [], None).seconds is None


def test_seconds_by_role_leave_measurement_out_and_count_absence_as_nothing():
    first = condensed(escalated(0.1, 0.9, score("router", D, 0.8, seconds=0.125)), wall_s=2.0)
    second = condensed(made_of(written(D, 3, 0.5)), wall_s=1.0)
    found = role_seconds([first, second])
    assert {role: spread.mean for role, spread in found.items()} == pytest.approx(
        {"target": 0.25, "draft": 0.375, "router": 0.0625, "outside": (2.0 - 0.875 + 0.5) / 2}
    )
    assert found["target"].p50 == pytest.approx(0.25)
    assert role_seconds([]) == {}
    guessed = replace(first, usage={"target": Cost(seconds=0.5, guessing_s=0.2)})
    split = role_seconds([guessed])
    assert (split["target"].mean, split["guessing"].mean) == (pytest.approx(0.3), 0.2)


def test_overhead_is_the_share_of_seconds_outside_models():
    row = figures_of(entry_of("x"), [condensed(made_of(written(D, 3, 0.5)), wall_s=2.0)], None)
    assert row.overhead_share == 0.75


def test_what_only_measures_is_not_in_the_seconds():
    audit = (score("audit", D, 0.1, seconds=0.25), score("audit", T, 0.9, seconds=0.25))
    decision = Decision(source=T, measured=frozenset({"audit"}))
    solution = condensed(made_of(written(T, 2, 1.0), decision=decision, scores=audit), wall_s=2.0)
    assert (solution.seconds, solution.measured_s, solution.outside_s) == (1.5, 0.5, 0.5)


def test_tokens_per_second_are_kept_tokens_over_seconds():
    row = figures_of(entry_of("x"), [condensed(escalated(0.1, 0.9, num=(30, 5)), wall_s=2.0)], None)
    assert row.tokens_per_second == 2.5
    assert (row.token_acceptance_rate, row.target_token_share) == (0.0, 1.0)


def began(at, wall_s, session=0):
    return condensed(
        answer="7", wall_s=wall_s, position=TracePosition(entry=entry_of("x"), began_s=at, session=session)
    )


def test_throughput_counts_the_time_in_which_something_was_in_flight():
    overlapping = [began(0.0, 4.0), began(1.0, 2.0), began(3.0, 2.0), began(10.0, 1.0)]
    assert throughput(overlapping) == pytest.approx(4 / 6.0)
    assert throughput([began(0.0, 4.0), began(1.0, 2.0, session=1)]) == pytest.approx(2 / 6.0)
    assert throughput([]) is None
    assert throughput([condensed(answer="7")]) is None
    audited = condensed(
        made_of(
            written(T, 2),
            decision=Decision(source=T, measured=frozenset({"audit"})),
            scores=(score("audit", T, 0.9, seconds=0.25),),
        ),
        position=TracePosition(entry=entry_of("x"), began_s=0.0),
    )
    assert throughput([audited]) is None


def test_accuracy_is_the_mean_over_attempts_then_problems():
    """p1 is right in one of two attempts, p2 in both; one attempt at p3 counts as much as two at others."""
    solutions = [
        *(condensed(answer=answer, problem="p1") for answer in ("7", "8")),
        *(condensed(answer="7", problem="p2") for _ in range(2)),
        condensed(answer="8", problem="p3"),
        condensed(answer="8", problem="p4", gold=None),
    ]
    row = figures_of(entry_of("x"), solutions, None)
    assert row.accuracy == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert (row.num_problems, row.num_solutions, row.num_ungraded) == (4, 6, 1)
    assert row.accuracy_low < 0.5 < row.accuracy_high


def test_several_attempts_at_one_problem_are_not_counted_as_independent():
    once = figures_of(entry_of("x"), [condensed(answer=a, problem=str(i)) for i, a in enumerate("78" * 8)], None)
    often = figures_of(
        entry_of("x"), [condensed(answer=a, problem=str(i)) for i, a in enumerate("78" * 8) for _ in range(20)], None
    )
    assert often.accuracy == once.accuracy == 0.5
    assert often.accuracy_high - often.accuracy_low > 0.4


def test_a_failure_is_wrong_and_in_no_other_figure():
    right = condensed(made_of(written(D, 4, 0.5)), answer="7", wall_s=1.0)
    failed = condensed(made_of(written(T, 9, 8.0)), answer="7", problem="q", wall_s=9.0, finish=Finish.FAILED)
    row = figures_of(entry_of("x"), [right, failed], 2.0)
    assert (row.accuracy, row.num_failed, row.seconds_per_problem, row.speedup_vs_target) == (0.5, 1, 1.0, 2.0)
    assert row.tokens.target_kept == 0
    assert "target" not in row.role_s


def test_energy_is_absent_unless_known_of_all():
    known = [
        condensed(answer="7", position=TracePosition(entry=entry_of("x"), energy_j=joules)) for joules in (2.0, 4.0)
    ]
    assert figures_of(entry_of("x"), known, None).energy_j_per_problem == 3.0
    assert figures_of(entry_of("x"), [*known, condensed(answer="7")], None).energy_j_per_problem is None


def test_flops_and_cost_need_every_model_that_ran():
    solution = condensed(escalated(None, None, num=(3, 5)))
    rates = Rates.parse("draft=10,target=100", "draft=1:2,target=10:20")
    row = figures_of(entry_of("x"), [solution], None, rates)
    assert row.flops_per_problem == 2 * (10 * 3 + 100 * 5)
    assert row.cost_per_problem == pytest.approx((3 * 2 + 5 * 20) / 1e6)
    row = figures_of(entry_of("x"), [solution], None, Rates.parse("draft=10", "target=1:2"))
    assert (row.flops_per_problem, row.cost_per_problem) == (None, None)


def test_a_row_is_one_level_of_columns():
    columns = flat(figures_of(entry_of("router", 0.5), [condensed(escalated(0.1, 0.9), wall_s=1.0)], None))
    assert (columns["tokens.target_kept"], columns["role_s.target.mean"], columns["seconds.p95"]) == (5, 0.5, 1.0)
    assert columns["threshold"] == 0.5
