"""Speed at matched accuracy, on frontiers drawn by hand."""

import math
import re
from dataclasses import replace

import pytest
from scipy.special import betaincinv

from arbitrage.core.types import Finish
from arbitrage.evaluation.figures.frontier import mean_gap, pareto, seconds_at
from arbitrage.evaluation.figures.matched import beside, fastest_matched, fastest_noninferior, matched_speedup
from arbitrage.evaluation.figures.metrics import all_figures
from arbitrage.evaluation.figures.paired import Paired
from arbitrage.evaluation.figures.summary import Comparison, evidence_of, summary_of
from arbitrage.evaluation.running.entry import TARGET
from arbitrage.report.highlights import headline
from arbitrage.report.report import speed_section
from arbitrage.report.words import interpolated_line, summary_lines
from helpers import entry_of, group


def entry_group(entry, num_right, seconds, num=100):
    return group(*((i < num_right, seconds) for i in range(num)), policy=entry.policy, threshold=entry.threshold)


def sweep(**points):
    """Solutions by entry: ``router=[(threshold, number right of 100, seconds), …]``."""
    entries = {entry_of(p, t): (right, seconds) for p, found in points.items() for t, right, seconds in found}
    return {entry: entry_group(entry, *point) for entry, point in entries.items()}


ONE = entry_of("router", 0.5)
ROUTER = [(0.2, 85, 3.0), (0.5, 79, 2.0), (0.9, 70, 1.0)]


def test_a_frontier_holds_the_points_that_no_other_beats():
    points = [(3.0, 0.8), (1.0, 0.5), (2.0, 0.4), (2.0, 0.7), (4.0, 0.8), (5.0, 0.6)]
    assert pareto(points) == [(1.0, 0.5), (2.0, 0.7), (3.0, 0.8)]
    assert pareto([]) == []


def test_seconds_are_interpolated_along_the_frontier():
    frontier = [(1.0, 0.5), (2.0, 0.7), (4.0, 0.8)]
    assert seconds_at(frontier, 0.6) == pytest.approx(1.5)
    assert seconds_at(frontier, 0.775) == pytest.approx(3.5)
    assert seconds_at(frontier, 0.7) == pytest.approx(2.0)
    assert seconds_at(frontier, 0.1) == 1.0  # Nothing is faster than the fastest.
    assert seconds_at(frontier, 0.81) is None
    assert seconds_at([], 0.5) is None


def test_the_gap_between_frontiers_is_a_mean_over_the_seconds_that_both_cover():
    upper, lower = [(0.0, 0.5), (2.0, 0.9)], [(1.0, 0.4), (3.0, 0.8)]
    assert mean_gap(upper, lower) == pytest.approx(0.3)
    assert mean_gap(lower, upper) == pytest.approx(-0.3)
    assert mean_gap([(0.0, 0.5)], lower) is None


def test_the_fastest_threshold_at_matched_accuracy_is_compared():
    paired = Paired(sweep(target=[(None, 80, 4.0)], router=ROUTER))
    entry = fastest_matched(paired, entry_of("router"), margin=0.015)
    assert entry == ONE
    matched = beside(paired, entry, TARGET)
    assert matched.speedup.value == pytest.approx(2.0)
    assert matched.gap.value == pytest.approx(-0.01)
    assert matched.speedup.interval.low == pytest.approx(2.0)
    assert matched.p_value == 1.0  # One problem differs.
    assert fastest_matched(paired, entry_of("rsd")) is None


def test_an_accuracy_of_exactly_the_margin_less_is_matched():
    paired = Paired(sweep(target=[(None, 83, 4.0)], router=[(0.5, 80, 2.0)]))
    assert fastest_matched(paired, entry_of("router"), margin=0.03) is not None
    assert fastest_matched(paired, entry_of("router"), margin=0.02) is None


@pytest.mark.parametrize(("num_lost", "num"), [(0, 100), (0, 300), (1, 300), (3, 1000)])
def test_the_bound_without_gains_is_the_exact_one(num_lost, num):
    """Clopper and Pearson's one-sided 97.5 % bound of a proportion, by the beta distribution."""
    found = {TARGET: entry_group(TARGET, num, 4.0, num), ONE: entry_group(ONE, num - num_lost, 2.0, num)}
    exact = betaincinv(num_lost + 1, num - num_lost, 0.975)
    assert -Paired(found).lowest_gap(ONE, TARGET) == pytest.approx(exact, rel=0.02)


def test_no_loss_among_few_problems_shows_nothing():
    few, many = ({TARGET: entry_group(TARGET, n, 4.0, n), ONE: entry_group(ONE, n, 2.0, n)} for n in (20, 400))
    assert fastest_noninferior(Paired(few), entry_of("router"), margin=0.015) is None
    assert fastest_noninferior(Paired(many), entry_of("router"), margin=0.015) == ONE


def test_thresholds_are_shown_from_the_slowest_on_until_one_is_not():
    """400 problems; 0.9 would be shown alone, but 0.5, which is slower, is not."""
    points = {None: (320, 4.0), 0.2: (320, 3.0), 0.5: (312, 2.0), 0.9: (320, 1.0)}
    entries = {entry_of("router" if t else "target", t): point for t, point in points.items()}
    paired = Paired({entry: entry_group(entry, *point, num=400) for entry, point in entries.items()})
    assert fastest_noninferior(paired, entry_of("router"), margin=0.015) == entry_of("router", 0.2)
    assert fastest_noninferior(paired, entry_of("router"), margin=0.05) == entry_of("router", 0.9)
    assert fastest_noninferior(paired, entry_of("rsd"), margin=0.015) is None


def test_a_target_that_always_failed_leaves_words_for_the_rest():
    failed = group(*((False, 4.0) for _ in range(400)), policy="target", threshold=None)
    found = {entry: entry_group(entry, 300, 1.0, num=400) for entry in (ONE, entry_of("confidence", 0.1))}
    found[TARGET] = [replace(solution, finish=Finish.FAILED) for solution in failed]
    summary = evidence_of(found).summary
    assert [summary.of(method).noninferior for method in summary.methods] == [None, None]
    assert [method.policy for method in summary.methods] == ["router", "confidence"]
    assert summary_lines(summary)


def test_a_summary_says_of_routers_what_is_shown_and_what_is_not():
    points = {
        TARGET: (320, 4.0),
        entry_of("router", 0.5): (320, 2.0),
        entry_of("router+ngram", 0.5): (300, 1.0),
        entry_of("rsd", 0.9): (320, 3.0),
        entry_of("rsd", 0.5): (290, 1.0),
        entry_of("oracle", 0.0): (330, 1.0),
    }
    summary = evidence_of({entry: entry_group(entry, *point, num=400) for entry, point in points.items()}).summary
    shown = {
        (method.policy, reference.policy): one.noninferior.speedup.value
        for (method, reference), one in summary.comparisons.items()
        if one.noninferior
    }
    assert shown == {
        ("router", "target"): 2.0,
        ("router", "rsd"): 1.5,
        ("router", "oracle"): 0.5,
        ("rsd", "target"): pytest.approx(4 / 3),
        ("rsd", "router"): pytest.approx(2 / 3),
        ("rsd", "oracle"): pytest.approx(1 / 3),
        ("oracle", "target"): 4.0,
    }
    lines = summary_lines(summary)
    assert any(line.startswith("router@0.5 is shown to be less than 1.5 points below") for line in lines)
    assert any(
        "2.00× [2.00, 2.00] as fast as target-only, 1.50× [1.50, 1.50] as fast as rsd@0.9" in line for line in lines
    )
    assert any(line.startswith("router+ngram: no threshold is shown") for line in lines)
    assert not any(line.startswith(("rsd@0.9 is shown", "rsd: no")) for line in lines)
    cells = re.findall(r"<td>(.*?)</td>", speed_section(summary))
    assert [cells[cells.index(policy) + 8] for policy in ("router", "rsd")] == [
        "0.5: 2.00×, gap ≥ -0.9",
        "0.9: 1.33×, gap ≥ -0.9",
    ]
    assert cells[cells.index("router over rsd") + 2 :] == ["1.50× [1.50, 1.50]", "router@0.5 over rsd@0.9"]


def test_thresholds_are_interpolated_to_the_accuracy_minus_the_margin():
    """78.5 lies between 70 at one second and 79 at two: 1 + 8.5/9 seconds."""
    paired = Paired(sweep(target=[(None, 80, 4.0)], router=ROUTER))
    found = matched_speedup(paired, entry_of("router"), entry_of("target"), margin=0.015)
    assert found.accuracy == pytest.approx(0.785)
    assert found.seconds == pytest.approx(1 + 8.5 / 9)
    assert found.reference_seconds == 4.0
    assert found.speedup.value == pytest.approx(4.0 / (1 + 8.5 / 9))
    assert found.speedup.interval.low < found.speedup.value < found.speedup.interval.high
    # One problem parts router from target there, so the speed lies near, and never above that at 70 of 100.
    assert found.speedup.interval.high < 4.0
    assert found.reached_share == 1.0
    assert matched_speedup(paired, entry_of("rsd"), entry_of("target")) is None


def test_a_rival_is_compared_on_its_own_frontier_at_the_same_accuracy():
    """RSD reaches 78.5 between 75 at two seconds and 82 at three: 2.5."""
    paired = Paired(sweep(target=[(None, 80, 4.0)], router=ROUTER, rsd=[(0.5, 75, 2.0), (0.9, 82, 3.0)]))
    found = matched_speedup(paired, entry_of("router"), entry_of("rsd"), margin=0.015)
    assert found.reference_seconds == pytest.approx(2.5)
    assert found.speedup.value == pytest.approx(2.5 / (1 + 8.5 / 9))
    back = matched_speedup(paired, entry_of("rsd"), entry_of("router"), margin=0.015)
    assert back.speedup.value == pytest.approx(1 / found.speedup.value)


def test_a_resample_that_misses_the_accuracy_is_counted_not_dropped():
    """The right problems are other ones, so that many draws put the policy below the target."""
    router = group(*((i >= 20, 2.0) for i in range(100)))
    paired = Paired({TARGET: entry_group(TARGET, 80, 4.0), entry_of("router", 0.5): router})
    found = matched_speedup(paired, entry_of("router"), entry_of("target"), margin=0.015)
    assert found.speedup.value == 2.0
    assert 0.4 < found.reached_share < 0.8
    assert found.speedup.interval.low == 0.0
    assert found.speedup.interval.high == 2.0
    line = interpolated_line(Comparison(method=entry_of("router"), reference=TARGET, interpolated=found), 0.015)
    assert "[not reached, 2.00]" in line
    assert f"{1 - found.reached_share:.0%} of resamples miss" in line
    rival = matched_speedup(paired, entry_of("target"), entry_of("router"), margin=0.015)
    assert math.isinf(rival.speedup.interval.high)
    back = Comparison(method=TARGET, reference=entry_of("router"), interpolated=rival)
    assert "no limit]" in interpolated_line(back, 0.015)


def test_an_interval_of_seconds_is_paired():
    """A policy twice as fast on every problem is so in every draw, however much problems differ."""
    seconds = [float(1 + i % 17) for i in range(60)]
    solutions = {
        TARGET: group(*((True, s) for s in seconds), policy="target", threshold=None),
        entry_of("router", 0.5): group(*((True, s / 2) for s in seconds)),
    }
    found = matched_speedup(Paired(solutions), entry_of("router"), entry_of("target"))
    assert (found.speedup.interval.low, found.speedup.interval.high) == pytest.approx((2.0, 2.0))


def test_what_cannot_be_paired_is_left_out():
    target = group((True, 4.0), (None, 4.0), (False, 4.0), (True, 4.0), policy="target", threshold=None)
    router = group((True, 1.0), (None, 9.0), (True, 3.0))
    paired = Paired({TARGET: target, entry_of("router", 0.5): router})
    assert paired.problems == ["p0", "p2"]
    assert (paired.accuracy(TARGET), paired.seconds(entry_of("router", 0.5))) == (0.5, 2.0)
    assert paired.differences(entry_of("router", 0.5), TARGET) == [0, 1]


def test_a_summary_without_target_only_claims_no_speed():
    summary = summary_of(found := {entry_of("router", 0.5): group((True, 1.0))}, all_figures(found))
    assert (summary.comparisons, summary.methods, headline(summary)) == ({}, [], None)


def test_a_summary_of_what_cannot_be_graded_claims_nothing():
    found = {TARGET: group((None, 1.0), policy="target", threshold=None), entry_of("router", 0.5): group((None, 1.0))}
    summary = evidence_of(found).summary
    assert (summary.methods, summary_lines(summary)) == ([], [])


def test_a_summary_compares_every_policy_that_reaches_the_target():
    speeds = {TARGET: 4.0, entry_of("random", 0.5): 1.0, entry_of("rsd", 0.5): 3.0, entry_of("router:b", 0.5): 2.0}
    found = {entry: entry_group(entry, 10, seconds, num=10) for entry, seconds in speeds.items()}
    found[entry_of("router", 0.5)] = entry_group(entry_of("router", 0.5), 0, 1.0, num=10)
    summary = summary_of(found, all_figures(found))
    with_target = {method.policy: summary.of(method) for method in summary.methods}
    assert {policy: one.fastest.speedup.value for policy, one in with_target.items() if one.fastest} == {
        "rsd": 4 / 3,
        "router:b": 2.0,
    }
    assert {policy: one.interpolated.speedup.value for policy, one in with_target.items() if one.interpolated} == {
        "random": 4.0,
        "rsd": 4 / 3,
        "router:b": 2.0,
    }
    # Chance is not a product, and the router does not reach the accuracy.
    assert headline(summary) == entry_of("router:b")
    references = summary.references(entry_of("router"))
    assert references == [TARGET, entry_of("rsd"), entry_of("router:b")]
    assert not any(summary.of(entry_of("router"), reference).interpolated for reference in references)


def test_the_router_is_compared_with_every_rival_and_is_the_headline():
    found = sweep(target=[(None, 80, 4.0)], router=ROUTER, rsd=[(0.9, 80, 3.0)], speculative=[(None, 80, 2.5)])
    summary = evidence_of(found).summary
    router = entry_of("router")
    assert headline(summary) == router
    rivals = [reference for reference in summary.references(router) if reference != TARGET]
    assert {rival.policy: round(summary.of(router, rival).interpolated.reference_seconds, 2) for rival in rivals} == {
        "rsd": 3.0,
        "speculative": 2.5,
    }
    lines = summary_lines(summary)
    (line,) = (line for line in lines if re.match(r"router, .* as fast as target-only", line))
    assert line.startswith("router, its thresholds interpolated, is 2.06× [")
    assert any("as fast as speculative" in line for line in lines)


def test_any_method_is_compared_with_any_reference():
    """What holds for the router and RSD holds for two other methods, in both directions."""
    found = sweep(target=[(None, 80, 4.0)], confidence=ROUTER, entropy=[(0.5, 75, 2.0), (0.9, 82, 3.0)])
    summary = evidence_of(found).summary
    confidence, entropy = entry_of("confidence"), entry_of("entropy")
    there, back = summary.of(confidence, entropy), summary.of(entropy, confidence)
    assert there.interpolated.speedup.value == pytest.approx(2.5 / (1 + 8.5 / 9))
    assert back.interpolated.speedup.value == pytest.approx((1 + 8.5 / 9) / 2.5)
    assert (there.fastest.entry, there.fastest.reference) == (entry_of("confidence", 0.5), entry_of("entropy", 0.9))
    assert there.fastest.speedup.value == pytest.approx(1.5)
    assert there.mean_gap == pytest.approx(-back.mean_gap)
    assert there.mean_gap > 0.0
    assert (there.gain_share, there.is_empty) == (None, False)
    assert summary.of(TARGET, confidence).is_empty
    assert headline(summary) == confidence  # The faster one, where the router did not run.
