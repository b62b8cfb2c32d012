import json
import random
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from arbitrage.cli.main import app
from arbitrage.core.errors import CheckpointError, ConfigError, TraceError
from arbitrage.core.trace import Trace
from arbitrage.core.types import Candidate, Cost, Decision, Finish, Problem, Source, Step
from arbitrage.evaluation.calibration import ROUTER, calibrate_router
from arbitrage.evaluation.figures.calibrate import Budget, Outcome, calibrate, outcomes_of, upper_bound
from arbitrage.evaluation.running.entry import TARGET
from arbitrage.scorers.format import InputFormat


def outcomes(shares, *, seconds=1.0, right=None):
    right = [True] * len(shares) if right is None else right
    return [
        Outcome(problem=f"p{i}", target_token_share=share, seconds=seconds, is_correct=is_right)
        for i, (share, is_right) in enumerate(zip(shares, right, strict=True))
    ]


@pytest.mark.parametrize("mean", [0.02, 0.3, 0.7])
def test_the_bound_is_above_the_mean_as_often_as_it_promises(mean):
    rng = np.random.default_rng(0)
    too_low = np.mean([upper_bound(rng.random(60) < mean, 0.1) < mean for _ in range(100)])
    assert too_low <= 0.1


def test_the_bound_comes_nearer_with_more_problems_and_with_less_spread():
    rng = np.random.default_rng(0)
    coins = rng.permutation(np.arange(400) < 120).astype(float)
    calm = np.full(400, 0.3)
    assert 0.3 < upper_bound(calm, 0.1) < upper_bound(coins, 0.1) < upper_bound(coins[:50], 0.1) < 1.0


def test_a_budget_of_tokens_takes_the_lowest_threshold_that_keeps_it():
    rng = random.Random(0)
    found = {t: outcomes([rng.uniform(0, 2 * (1 - t)) for _ in range(200)]) for t in (0.5, 0.7, 0.8, 0.9)}
    chosen = calibrate(found, [], Budget.parse("target-tokens<=0.3"))
    assert chosen.threshold == 0.8
    assert [test.is_certified for test in chosen.tested] == [True, True, False]


def test_thresholds_behind_the_first_failure_are_not_tried():
    found = {0.9: outcomes([0.1] * 200), 0.5: outcomes([0.9] * 200), 0.1: outcomes([0.1] * 200)}
    assert calibrate(found, [], Budget.parse("target-tokens<=0.3")).threshold == 0.9


def test_a_budget_of_accuracy_takes_the_highest_threshold_that_keeps_it():
    def right(num_wrong):
        return [i >= num_wrong for i in range(400)]

    found = {t: outcomes([0.5] * 400, right=right(wrong)) for t, wrong in ((0.1, 0), (0.3, 4), (0.5, 60))}
    chosen = calibrate(found, outcomes([1.0] * 400), Budget.parse("accuracy-loss<=0.05"))
    assert chosen.threshold == 0.3
    assert chosen.tested[1].mean == pytest.approx(0.01)


def test_a_budget_of_seconds_lets_a_tenth_be_late():
    slow = [replace(outcome, seconds=3.0 if i < 20 else 0.5) for i, outcome in enumerate(outcomes([0.5] * 400))]
    late = [replace(outcome, seconds=3.0 if i < 60 else 0.5) for i, outcome in enumerate(outcomes([0.5] * 400))]
    assert calibrate({0.5: slow, 0.1: late}, [], Budget.parse("seconds<=1")).threshold == 0.5


def test_a_kept_budget_holds_on_problems_that_were_not_looked_at():
    rng = np.random.default_rng(1)
    share = {t: rng.beta(2, 2 / (1 - t), size=2000) for t in np.linspace(0.05, 0.95, 19)}
    budget, missed = Budget.parse("target-tokens<=0.3"), 0
    for _ in range(30):
        order = rng.permutation(2000)
        found = {t: outcomes(values[order[:150]]) for t, values in share.items()}
        missed += share[calibrate(found, [], budget).threshold][order[150:]].mean() > 0.3
    assert missed <= 3


def test_an_impossible_budget_names_the_safest_threshold():
    with pytest.raises(
        ConfigError,
        match=r"keeps target-tokens<=0.05 .* the safest threshold, 0.9, has a mean of 0.2 with",
    ):
        calibrate({0.9: outcomes([0.2] * 50)}, [], Budget.parse("target-tokens<=0.05"))


@pytest.mark.parametrize(
    "text", ["tokens<=0.3", "target-tokens<=", "target-tokens<=1.5", "seconds<=0", "target-tokens>0.3", "seconds<=e"]
)
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(ConfigError, match=r"(budget|limit)"):
        Budget.parse(text)


def test_all_thresholds_need_the_same_problems():
    found = {0.5: outcomes([0.1] * 10), 0.9: outcomes([0.1] * 9)}
    with pytest.raises(TraceError, match="9 solutions"):
        calibrate(found, [], Budget.parse("target-tokens<=0.3"))
    with pytest.raises(TraceError, match="target-only has 0 solutions"):
        calibrate({0.5: outcomes([0.1])}, [], Budget.parse("accuracy-loss<=0.3"))
    with pytest.raises(TraceError, match="got none"):
        calibrate({}, [], Budget.parse("target-tokens<=0.3"))


def test_what_cannot_be_graded_promises_no_accuracy():
    """Seven of a hundred are lost; twice as many that cannot be graded make it no better."""
    right = [i % 100 >= 7 for i in range(400)]
    graded, target = outcomes([0.5] * 400, right=right), outcomes([0.5] * 400)
    unknown = outcomes([0.5] * 1200, right=[None] * 1200)[400:]
    budget = Budget.parse("accuracy-loss<=0.05")
    with pytest.raises(ConfigError, match=r"on 400 problems: the safest threshold, 0.5, has a mean of 0.07"):
        calibrate({0.5: [*graded, *unknown]}, [*target, *unknown], budget)
    with pytest.raises(TraceError, match=r"needs graded problems, got none \(solve problems with gold answers\)"):
        calibrate({0.5: unknown}, unknown, budget)
    assert calibrate({0.5: unknown}, unknown, Budget.parse("target-tokens<=0.6")).num_problems == 800


def test_attempts_at_a_problem_are_one_problem():
    rng = random.Random(0)
    shares = [rng.random() for _ in range(60)]
    once, thrice = outcomes(shares), [*outcomes(shares), *outcomes(shares), *outcomes(shares)]
    budget = Budget.parse("target-tokens<=0.7")
    assert calibrate({0.5: thrice}, [], budget) == calibrate({0.5: once}, [], budget)
    half_right = [*outcomes([0.5] * 300), *outcomes([0.5] * 300, right=[False] * 300)]
    target = outcomes([0.5] * 300) * 2
    tested = calibrate({0.5: half_right}, target, Budget.parse("accuracy-loss<=0.9")).tested
    assert (tested[0].mean, tested[0].is_certified) == (0.5, True)


def trace(number, policy, source, finish=Finish.END_OF_SEQUENCE):
    made = Candidate(
        source=source, text=r"\boxed{7}", token_ids=(1, 2), finish=Finish.END_OF_SEQUENCE, cost=Cost(seconds=0.1)
    )
    step = Step(candidate=made, decision=Decision(source=source), finish=made.finish, candidates=(made,))
    problem = Problem(id=f"p{number}", question="?", answer="7")
    return Trace(problem=problem, policy=policy, steps=(step,), finish=finish, wall_s=0.2)


def test_a_failed_problem_counts_as_the_worst():
    _, (failed,) = outcomes_of([(TARGET, trace(0, "target", Source.TARGET, Finish.FAILED))], ROUTER)
    assert (failed.target_token_share, failed.seconds, failed.is_correct) == (1.0, float("inf"), False)


@pytest.fixture
def traces(tmp_path):
    path = tmp_path / "traces.jsonl"
    records = [{"threshold": None, **trace(i, "target", Source.TARGET).to_json()} for i in range(200)]
    for threshold, by_target in ((0.9, 20), (0.5, 100)):
        for i in range(200):
            source = Source.TARGET if i < by_target else Source.DRAFT
            records.append({"threshold": threshold, **trace(i, "router", source).to_json()})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_the_command_writes_thresholds_into_the_checkpoint(traces, tmp_path):
    folder = tmp_path / "router"
    folder.mkdir()
    InputFormat(kind="router", thresholds={"default": 0.4}).save(folder)
    command = ["calibrate", str(traces), "--router", str(folder), "--json"]
    done = CliRunner().invoke(
        app, [*command, "--budget", "target-tokens<=0.3", "--budget", "accuracy-loss<=0.05"], catch_exceptions=False
    )
    wanted = {"default": 0.4, "target-tokens<=0.3": 0.9, "accuracy-loss<=0.05": 0.9}
    assert InputFormat.load(folder).thresholds == wanted
    record = json.loads(done.stdout.splitlines()[-1])
    assert [one["threshold"] for one in record["budgets"]] == [0.9, 0.9]
    assert set(json.loads((folder / "calibration.json").read_text())) == set(wanted) - {"default"}


def test_a_broken_report_is_one_clear_error_and_changes_nothing(traces, tmp_path):
    InputFormat(kind="router", thresholds={"default": 0.4}).save(tmp_path)
    (tmp_path / "calibration.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"calibration\.json: not a calibration report: .*remove the file"):
        calibrate_router(tmp_path, traces, ["target-tokens<=0.3"], confidence=0.9, seed=0)
    assert InputFormat.load(tmp_path).thresholds == {"default": 0.4}
