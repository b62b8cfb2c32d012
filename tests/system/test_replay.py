import itertools
import random

import numpy as np
import pytest

from arbitrage.core.errors import RowError
from arbitrage.policies import RouterPolicy
from arbitrage.scorers.scripted import ScriptedScorer
from arbitrage.training.replay import BASELINES, baseline, oracle_gain_share, oracle_gain_shares_at, replay
from arbitrage.training.router_quality import measure_router_quality, reliability
from arbitrage.training.row_scores import score_rows
from helpers import row

ROWS = [row(0.9, 0.5, problem="a"), row(0.2, 0.8, problem="b"), row(0.5, 0.7, problem="c"), row(0.1, 0.1, problem="d")]


def test_a_replay_by_hand():
    result = replay(ROWS, np.array([0.1, 0.9, 0.9, 0.0]))
    assert result.score == pytest.approx([1.7 / 4, 2.3 / 4, 2.5 / 4, 2.1 / 4, 2.1 / 4])
    assert result.escalation_rate == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert result.waste[1:] == pytest.approx([0, 0, 1 / 3, 2 / 4])
    assert np.isnan(result.waste[0])
    assert result.target_token_share == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    # Between the two equal scores no threshold cuts; else the next score does.
    assert result.thresholds[[0, 2, 3]] == pytest.approx([0.9, 0.1, 0.0])
    assert np.isnan(result.thresholds[1])
    assert result.thresholds[4] == -np.inf


@pytest.mark.parametrize("seed", range(5))
def test_a_threshold_of_the_replay_does_what_the_policy_does(seed):
    rng = random.Random(seed)
    rows = [row(rng.random(), rng.random(), problem=str(i)) for i in range(30)]
    scores = np.array([rng.randint(0, 9) / 10 for _ in rows])
    result = replay(rows, scores)
    for count, threshold in enumerate(result.thresholds):
        if 0.0 <= threshold <= 1.0:
            RouterPolicy(ScriptedScorer(value=lambda *_: 0.0), float(threshold))  # A legal threshold.
            escalated = scores > threshold
            assert escalated.sum() == count
            realised = np.mean([r.draft.score + a * r.advantage for r, a in zip(rows, escalated, strict=True)])
            assert result.score[count] == pytest.approx(realised)


def test_no_choice_of_rows_beats_the_oracle_at_an_equal_number_of_escalations():
    """The budget theorem, over all 2^9 choices."""
    rng = random.Random(0)
    rows = [row(rng.random(), rng.random(), problem=str(i)) for i in range(9)]
    oracle = replay(rows, baseline(rows, "oracle"))
    for choice in itertools.product((0, 1), repeat=len(rows)):
        realised = np.mean([r.draft.score + a * r.advantage for r, a in zip(rows, choice, strict=True)])
        assert realised <= oracle.score[sum(choice)] + 1e-12
    assert oracle.waste[1] == 0.0


def test_gain_shares_of_oracle_chance_and_its_opposite():
    rng = random.Random(1)
    rows = [row(rng.random(), rng.random(), problem=str(i)) for i in range(400)]
    advantage = baseline(rows, "oracle")
    assert oracle_gain_share(advantage, advantage) == pytest.approx(1.0)
    assert abs(oracle_gain_share(advantage, baseline(rows, "random"))) < 0.2
    assert oracle_gain_share(advantage, -advantage) < -0.9
    assert oracle_gain_shares_at(advantage, advantage, (0.1, 0.5)) == pytest.approx({0.1: 1.0, 0.5: 1.0})
    assert oracle_gain_share(np.array([0.0, 4.0]), np.array([1.0, 0.0])) == pytest.approx(-1.0)
    assert np.isnan(oracle_gain_share(np.ones(3), np.arange(3.0)))


def test_a_replay_without_rows_is_refused():
    with pytest.raises(RowError, match="needs at least 1 row, got 0"):
        replay([], np.array([]))


def test_each_baseline_reads_its_own_field_of_a_row():
    logged = row(0.25, 0.5, text="two words", logprobs=(-1.0, -3.0), first_entropy=0.7, step=3)
    values = {name: rule(logged) for name, rule in BASELINES.items()}
    assert list(values) == [
        *("rsd (−s_d)", "draft confidence (−mean log p)", "first-token entropy", "step length", "position"),
        *("random", "oracle"),
    ]
    assert values["rsd (−s_d)"] == -0.25
    assert values["draft confidence (−mean log p)"] == 2.0
    assert values["first-token entropy"] == 0.7
    assert values["position"] == 3.0
    assert values["oracle"] == 0.25


def noisy(num, noise, seed=0):
    """Rows with noise in the target samples, and scores that are the true advantage with noise."""
    rng = np.random.default_rng(seed)
    rows, scores = [], []
    for i in range(num):
        draft, gain = rng.uniform(0.2, 0.5), rng.choice([0.0, 0.4])
        rows.append(row(draft, *(draft + gain + rng.normal(0, 0.05, size=4)), problem=str(i // 3), step=i % 3))
        scores.append(1 / (1 + np.exp(-(gain - 0.2) * 10 - rng.normal(0, noise))))
    return rows, np.array(scores)


def test_a_good_router_ranks_above_chance_and_below_the_oracle():
    rows, scores = noisy(300, 1.0)
    quality = measure_router_quality(rows, scores, name="mine", margin=0.2, resamples=100)
    by_name = {ranking.name: ranking for ranking in (quality.router, *quality.baselines)}
    assert (quality.num_rows, quality.num_problems) == (300, 100)
    assert quality.gain_rate == pytest.approx(0.5, abs=0.1)
    assert by_name["random"].auc < by_name["mine"].auc < by_name["oracle"].auc == 1.0
    assert by_name["random"].rho.value < 0.2 < by_name["mine"].rho.value < quality.ceiling.value < 1.0
    assert by_name["oracle"].oracle_gain_share.value == pytest.approx(1.0)
    share = quality.router.oracle_gain_share
    assert share.low < share.value < share.high < 1.0
    assert 0.0 < quality.lead.low < quality.lead.value
    assert quality.lead.value == pytest.approx(share.value - by_name["rsd (−s_d)"].oracle_gain_share.value)
    assert min(quality.accuracy.values()) > 0.8


def test_the_json_form_has_the_promised_keys_in_their_order():
    rows, scores = noisy(30, 1.0)
    record = measure_router_quality(rows, scores, name="mine", resamples=2).to_json(rows="folder", margin=0.2)
    assert list(record) == [
        *("schema", "rows", "router", "margin", "num_rows", "num_problems", "gain_rate", "ceiling", "accuracy"),
        *("calibration_error", "baselines", "lead"),
    ]
    assert (record["schema"], record["rows"], record["margin"]) == (1, "folder", 0.2)
    for ranking in (record["router"], *record["baselines"]):
        assert list(ranking) == [
            *("name", "rho", "auc", "average_precision", "gain_share", "gain_shares_at", "waste_at")
        ]
    assert [list(record[name]) for name in ("ceiling", "lead")] == [["value", "low", "high"]] * 2


def test_reliability_and_calibration_error_by_hand():
    scores, has_gain = np.array([0.05, 0.05, 0.95, 1.0]), np.array([0, 1, 1, 1])
    assert reliability(scores, has_gain) == [(0.05, 0.5, 2), (pytest.approx(0.975), 1.0, 2)]
    rows = [row(0.5, 0.5 + g / 10, problem=str(i)) for i, g in enumerate(has_gain)]
    quality = measure_router_quality(rows, scores, name="r", resamples=2)
    assert quality.calibration_error == pytest.approx((0.45 + 0.025) / 2)


def test_one_sample_has_no_ceiling():
    rows = [row(0.5, 0.4, problem="a"), row(0.5, 0.6)]
    assert measure_router_quality(rows, np.ones(2), name="r", resamples=2).ceiling is None


def test_a_constant_score_has_no_correlation():
    rows, _ = noisy(30, 1.0)
    assert measure_router_quality(rows, np.ones(30), name="r", resamples=2).router.rho.value == 0.0


def test_rows_of_one_kind_are_refused():
    with pytest.raises(RowError, match=r"with and without gain .*got 2 of one kind"):
        measure_router_quality([row(0.5, 0.6, problem=p) for p in "ab"], np.ones(2), name="r")


async def test_a_router_scores_step_by_step_with_its_cache():
    rows = [row(0.5, 0.6, problem=p, step=s, history=("x\n\n",) * s) for p in "ab" for s in range(3)]
    scorer = ScriptedScorer(value=lambda i, c: i / 10 + len(c.text) / 1000)
    shuffled = random.Random(0).sample(rows, len(rows))
    scores = await score_rows(scorer, shuffled)
    assert scores == pytest.approx([r.step / 10 + len(r.draft.text) / 1000 for r in shuffled])
    assert scorer.num_calls == 6
