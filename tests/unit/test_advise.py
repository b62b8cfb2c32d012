"""Whether a pair is worth it: outcomes and costs that are given, and scripted engines."""

import math
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from arbitrage.bench.advice import LIKELIHOOD, NO_SCORER
from arbitrage.bench.by_hand import ModelTable, read_costs
from arbitrage.bench.costs import PairCosts, Settings
from arbitrage.core.errors import ConfigError
from arbitrage.core.turn import Pair, Setting
from arbitrage.core.types import Problem
from arbitrage.engines.scripted import ScriptedEngine
from arbitrage.estimation.advise import draft_steps, measure_gap
from arbitrage.estimation.gap import DraftedStep, Gap, Outcome
from arbitrage.estimation.verdict import Machine, Verdict
from arbitrage.policies.basic import DraftOnly, TargetOnly
from arbitrage.policies.solvers import RuleSolver
from helpers import scripted

MARGIN = 0.015
H100 = Path(__file__).parents[2] / "benchmarks" / "costs" / "h100-qwen2.toml"


def outcome(number, draft_right, target_right, *doubts, rule=LIKELIHOOD):
    steps = [DraftedStep(num_tokens=10, doubt={rule: doubt}) for doubt in doubts]
    return Outcome(problem=f"p{number}", draft_right=draft_right, target_right=target_right, steps=steps)


def gap_of(num_fixable=2, num=20, **values):
    """The draft fails some problems, each at its one doubtful step of five."""
    easy = [outcome(i, True, True, 0.1, 0.1, 0.1, 0.1, 0.1, **values) for i in range(num - num_fixable)]
    return Gap([*easy, *(outcome(99 + i, False, True, 0.1, 0.1, 0.9, 0.1, 0.1, **values) for i in range(num_fixable))])


def costs_of(draft_ms, target_ms, *, reading_ms=0.0):
    """Costs by hand; a step of 32 tokens is read in the time of one token and of ``reading_ms`` for each."""
    tables = [ModelTable(generated_ms=ms, prompt_ms=reading_ms) for ms in (draft_ms, target_ms)]
    draft, target = (table.costs(name) for name, table in zip(("d", "t"), tables, strict=True))
    return PairCosts(pair="p", settings=Settings(), environment={}, draft=draft, target=target)


def verdict_of(gap, here, elsewhere=None):
    return Verdict(
        gap=gap,
        margin=MARGIN,
        here=Machine.of("here", here, gap, MARGIN),
        elsewhere=Machine.of("h100.toml", elsewhere, gap, MARGIN) if elsewhere else None,
    )


def test_a_gap_that_sits_in_few_steps_is_closed_by_them():
    gap = gap_of()
    assert (gap.draft.value, gap.target.value) == (0.9, 1.0)
    assert gap.difference.value == pytest.approx(0.1)
    needed = gap.needed(LIKELIHOOD, MARGIN)
    assert (needed.steps, needed.tokens, needed.accuracy) == pytest.approx((0.02, 0.02, 1.0))
    assert [point.accuracy for point in gap.curve(LIKELIHOOD)] == [0.9, 1.0, 1.0]
    assert [point.steps for point in gap.curve(LIKELIHOOD)] == pytest.approx([0.0, 0.02, 1.0])


def test_an_order_that_finds_no_error_needs_all_steps():
    wrong = [outcome(i, False, True, 0.1) for i in range(2)]
    gap = Gap([*(outcome(9 + i, True, True, 0.9) for i in range(8)), *wrong])
    assert gap.needed(LIKELIHOOD, MARGIN).steps == 1.0


def test_a_draft_as_accurate_as_its_target_needs_no_step():
    gap = Gap([outcome(i, True, i > 0, 0.5, 0.2) for i in range(10)])
    assert gap.needed(LIKELIHOOD, MARGIN).steps == 0.0
    assert verdict_of(gap, costs_of(1.0, 10.0)).shares == {}
    verdict = verdict_of(gap, costs_of(1.0, 10.0, reading_ms=0.1))
    assert "here the draft alone is 10.00×" in verdict.sentence
    assert verdict.here.best.speedup.value == pytest.approx(10.0)


def test_a_problem_without_a_step_is_the_targets_where_all_steps_are():
    gap = Gap([outcome(0, False, True), outcome(1, True, True, 0.3)])
    assert gap.curve(LIKELIHOOD)[0].accuracy == 0.5
    assert gap.needed(LIKELIHOOD, MARGIN).accuracy == 1.0
    assert len(gap.needed_in_resamples(LIKELIHOOD, MARGIN)) == 2000


def test_resamples_choose_their_own_threshold():
    points = gap_of(num_fixable=4).needed_in_resamples(LIKELIHOOD, MARGIN)
    assert len({point.steps for point in points}) > 3
    assert any(point.steps == 0.0 for point in points)  # No problem of the gap was drawn.


def test_a_cheap_draft_is_worth_it():
    verdict = verdict_of(gap_of(), costs_of(1.0, 10.0, reading_ms=0.1))
    assert verdict.answer == "worth it"
    best = verdict.here.best
    assert best.rule == LIKELIHOOD
    assert best.speedup.interval.low > 1.0
    assert best.worth_share == 1.0
    assert best.break_even == pytest.approx(verdict.here.advice.break_even(LIKELIHOOD))
    assert verdict.sentence.startswith("worth it: here likelihood is ")
    assert {share: point.steps for share, point in verdict.shares.items()} == pytest.approx(
        {0.5: 0.02, 0.8: 0.02, 1.0: 0.02}
    )


QWEN_CPU = """
[draft]
generated_ms = 16.3
prompt_ms = 3.17
verified_ms = { 2 = 40, 7 = 85, 16 = 87, 32 = 165 }
[target]
generated_ms = 30.6
prompt_ms = 5.95
verified_ms = { 2 = 46, 7 = 123, 16 = 148, 32 = 257 }
"""
"""Qwen2.5-Coder 0.5B and 1.5B, q4_k_m, by llama.cpp on two cores."""


def test_a_dear_draft_whose_steps_are_dear_to_read_is_not(tmp_path):
    """24 problems, of which the target solves 12 and the draft 4; half of the draft's steps must go."""
    file = tmp_path / "cpu.toml"
    file.write_text(QWEN_CPU)
    both = [outcome(i, True, True, 0.2, 0.2, 0.2, 0.2) for i in range(4)]
    lost = [outcome(4 + i, False, True, 0.2, 0.4, 0.8, 0.8) for i in range(8)]
    neither = [outcome(12 + i, False, False, 0.4, 0.8, 0.8, 0.8) for i in range(12)]
    verdict = verdict_of(Gap([*both, *lost, *neither]), read_costs(file), read_costs(H100, target="7B"))
    here, there = verdict.machines
    assert here.advice.draft == pytest.approx(0.53, abs=0.01)
    assert here.best.point.steps == pytest.approx(52 / 96)
    assert here.best.speedup.interval.high < 1.0
    assert here.best.worth_share == 0.0
    assert there.best.speedup.value > 1.2
    assert verdict.answer == "only with the costs in h100.toml"
    assert verdict_of(verdict.gap, read_costs(file)).answer == "not worth it here"
    assert "at least 1.05 in 0% of" in verdict.sentence


def test_costs_of_another_machine_may_turn_it():
    verdict = verdict_of(gap_of(), costs_of(16.0, 17.0, reading_ms=6.0), costs_of(1.0, 10.0, reading_ms=0.1))
    assert verdict.answer == "only with the costs in h100.toml"
    assert verdict.sentence.index("with the costs in h100.toml likelihood is") < verdict.sentence.index("here")
    neither = verdict_of(gap_of(), costs_of(16.0, 17.0, reading_ms=6.0), costs_of(9.9, 10.0, reading_ms=5.0))
    assert neither.answer == "not worth it here"
    record = neither.to_json()
    assert [machine["is_worth_it"] for machine in record["machines"]] == [False, False]
    assert record["machines"][1]["cost_ratio"] == pytest.approx(0.99)


def test_a_rule_without_its_numbers_is_left_out():
    gap = gap_of(rule=NO_SCORER)
    machine = Machine.of("here", costs_of(1.0, 10.0), gap, MARGIN)
    assert [prospect.rule for prospect in machine.prospects] == [NO_SCORER]
    assert verdict_of(gap, costs_of(1.0, 10.0)).order == NO_SCORER


async def test_each_step_of_the_draft_has_its_doubt():
    """The scripted target finds a token unlikely that its own script does not hold."""
    draft, target = scripted("a b", "c d", r"\boxed{7}"), scripted("a b", "c x", r"\boxed{8}")
    pair = Pair(draft=draft, target=target)
    trace = await RuleSolver(policy=DraftOnly(), pair=pair).solve(Problem(id="p", question="?"), Setting())
    steps = await draft_steps(trace, pair, is_read=True)
    assert [step.num_tokens for step in steps] == [candidate.candidate.num_tokens for candidate in trace.steps]
    doubts = [step.doubt[LIKELIHOOD] for step in steps]
    assert doubts[0] == 0.0
    assert doubts[1] == pytest.approx(-math.expm1(-0.2))
    assert [step.doubt[NO_SCORER] for step in steps] == [0.0, 0.0, 0.0]
    assert target.calls == []
    assert draft.open_sessions == target.open_sessions == 0
    assert all(LIKELIHOOD not in step.doubt for step in await draft_steps(trace, pair, is_read=False))


class Loaded(SimpleNamespace):
    """The part of a loaded pair that the run uses, on scripted engines."""

    def method(self, spec):
        if spec == LIKELIHOOD and not self.reads:
            raise ConfigError("no likelihoods")
        rule = DraftOnly() if str(spec) == "draft" else TargetOnly()
        return RuleSolver(policy=rule, pair=self.pair)


@contextmanager
def silent(*_):
    yield lambda *_: None


def engines():
    right = {f"p{i}": "So\n\n" + rf"\boxed{{{i}}}" for i in range(6)}
    return ScriptedEngine(script=right | {"p1": "Hm\n\n" + r"\boxed{8}"}), ScriptedEngine(script=right)


@pytest.mark.parametrize("reads", [True, False])
def test_a_short_run_gives_the_gap(reads):
    draft, target = engines()
    problems = [Problem(id=f"p{i}", question=f"What is {i}?", answer=str(i)) for i in range(6)]
    loaded = Loaded(pair=Pair(draft=draft, target=target), reads=reads)
    gap = measure_gap(loaded, problems, Setting(), solving=silent, reading=silent)
    assert (gap.num_problems, gap.draft.value, gap.target.value) == (6, pytest.approx(5 / 6), 1.0)
    assert gap.rules == ([NO_SCORER, LIKELIHOOD] if reads else [NO_SCORER])
    if reads:
        assert gap.needed(LIKELIHOOD, MARGIN).steps == pytest.approx(1 / 12)


def test_problems_without_answers_are_one_clear_error():
    draft, target = engines()
    loaded = Loaded(pair=Pair(draft=draft, target=target), reads=True)
    with pytest.raises(ConfigError, match="none of 1 problems has a gold answer that can be read"):
        measure_gap(loaded, [Problem(id="p1", question="?")], Setting(), solving=silent, reading=silent)
