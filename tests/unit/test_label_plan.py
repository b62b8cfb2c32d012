from dataclasses import replace

import pytest

from arbitrage.core.errors import ConfigError, RowError
from arbitrage.core.types import Finish, Limits, Problem, Source
from arbitrage.runtime.store import GroupLog
from arbitrage.training.label_runs import LabelOptions, plan_labelling, ungraded_line
from helpers import row

GREEDY = LabelOptions(num_continuations=1, temperature=0.0, limits=Limits(max_tokens=100))


def solution(problem, answer="7"):
    """Two steps: the first is the same by both models; the target's second one ends the solution."""
    rows = [row(0.5, 0.5, problem=problem, step=0), row(0.5, 0.5, problem=problem, step=1, history=("two words\n\n",))]
    rows = [replace(one, problem=Problem(id=problem, question="?", answer=answer)) for one in rows]
    first, last = (replace(one, draft=replace(one.draft, num_tokens=3, seconds=0.6)) for one in rows)
    ending = replace(last.targets[0], text=r"\boxed{7}", finish=Finish.END_OF_SEQUENCE, num_tokens=8, seconds=3.9)
    return [first, replace(last, targets=(ending,), kept=Source.TARGET, is_last=True)]


def written(folder, *solutions):
    with GroupLog(folder, {}, id_field="problem_id") as log:
        for rows in solutions:
            log.append([one.to_json() for one in rows])
    return folder


def test_the_cost_is_that_of_the_texts_that_need_a_continuation(tmp_path):
    rows = written(tmp_path / "rows", solution("a"), solution("b"))
    plan = plan_labelling(rows, tmp_path / "out", GREEDY, limit=None)
    assert (plan.problems, plan.num_done, plan.num_rows) == (["a", "b"], 0, 4)
    assert (plan.num_continuations, plan.max_tokens) == (4, 400)  # The first step once, and the draft's second one.
    assert plan.expected_tokens == 2 * (8 + (3 + 8) / 2)
    assert plan.seconds_per_token == pytest.approx((0.1 + 3.9) / 10)
    assert plan.expected_s == pytest.approx(plan.expected_tokens * 0.4)
    by_draft = plan_labelling(rows, tmp_path / "out", replace(GREEDY, policy="draft"), limit=1)
    assert by_draft.seconds_per_token == pytest.approx(0.2)
    assert plan_labelling(rows, tmp_path / "out", LabelOptions(), limit=1).num_continuations == 8


def test_what_an_earlier_run_scored_costs_nothing(tmp_path):
    rows = written(tmp_path / "rows", solution("a"), solution("b"))
    written(tmp_path / "out", solution("a"))
    plan = plan_labelling(rows, tmp_path / "out", GREEDY, limit=None)
    assert (plan.num_done, plan.num_rows, plan.num_continuations) == (1, 2, 2)
    assert len(plan.rows) == 4


def test_rows_without_seconds_have_no_estimate(tmp_path):
    timeless = [
        replace(one, targets=tuple(replace(sample, seconds=0.0) for sample in one.targets)) for one in solution("a")
    ]
    plan = plan_labelling(written(tmp_path / "rows", timeless), tmp_path / "out", GREEDY, limit=None)
    assert (plan.seconds_per_token, plan.expected_s) == (None, None)


def test_answers_that_cannot_be_graded_are_left_out_and_named(tmp_path):
    rows = written(tmp_path / "rows", solution("a", "$$"), solution("b"))
    plan = plan_labelling(rows, tmp_path / "out", GREEDY, limit=None)
    assert plan.problems == ["b"]
    assert ungraded_line(plan) == "1 problems left out: their gold answers cannot be graded, first '$$' of problem 'a'"
    with pytest.raises(RowError, match=r"the gold answers of these rows cannot be graded, first '\$\$' of problem 'a'"):
        plan_labelling(rows, tmp_path / "out", GREEDY, limit=1)


def test_bad_input_is_refused_before_a_model_is_loaded(tmp_path):
    rows = written(tmp_path / "rows", solution("a"))
    with pytest.raises(ConfigError, match="telepathy"):
        plan_labelling(rows, tmp_path / "out", replace(GREEDY, policy="telepathy"), limit=None)
    with pytest.raises(RowError, match="num_target_samples is 2"):
        plan_labelling(rows, tmp_path / "out", replace(GREEDY, num_target_samples=2), limit=None)
    with pytest.raises(RowError, match="problem 'a' has no gold answer"):
        plan_labelling(written(tmp_path / "bare", solution("a", None)), tmp_path / "out", GREEDY, limit=None)
