import itertools
import random

import numpy as np
import pytest

from arbitrage.core.errors import RowError
from arbitrage.policies import RouterPolicy
from arbitrage.scorers.scripted import ScriptedScorer
from arbitrage.training.judge import judge, reliability, router_scores
from arbitrage.training.replay import BASELINES, baseline, gain_share, gain_shares_at, replay
from helpers import row

ROWS = [row(0.9, 0.5, problem="a"), row(0.2, 0.8, problem="b"), row(0.5, 0.7, problem="c"), row(0.1, 0.1, problem="d")]


def test_a_replay_by_hand():
    made = replay(ROWS, np.array([0.1, 0.9, 0.9, 0.0]))
    assert made.score == pytest.approx([1.7 / 4, 2.3 / 4, 2.5 / 4, 2.1 / 4, 2.1 / 4])
    assert made.escalation_rate == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert made.waste[1:] == pytest.approx([0, 0, 1 / 3, 2 / 4])
    assert np.isnan(made.waste[0])
    assert made.target_token_share == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    # Between the two equal scores no threshold cuts; else the next score does.
    assert made.thresholds[[0, 2, 3]] == pytest.approx([0.9, 0.1, 0.0])
    assert np.isnan(made.thresholds[1])
    assert made.thresholds[4] == -np.inf


@pytest.mark.parametrize("seed", range(5))
def test_a_threshold_of_the_replay_does_what_the_policy_does(seed):
    rng = random.Random(seed)
    rows = [row(rng.random(), rng.random(), problem=str(i)) for i in range(30)]
    scores = np.array([rng.randint(0, 9) / 10 for _ in rows])
    made = replay(rows, scores)
    for count, threshold in enumerate(made.thresholds):
        if 0.0 <= threshold <= 1.0:
            RouterPolicy(ScriptedScorer(value=lambda *_: 0.0), float(threshold))  # A legal threshold.
            escalated = scores > threshold
            assert escalated.sum() == count
            realised = np.mean([r.draft.score + a * r.advantage for r, a in zip(rows, escalated, strict=True)])
            assert made.score[count] == pytest.approx(realised)


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
    gain = baseline(rows, "oracle")
    assert gain_share(gain, gain) == pytest.approx(1.0)
    assert abs(gain_share(gain, baseline(rows, "random"))) < 0.2
    assert gain_share(gain, -gain) < -0.9
    assert gain_shares_at(gain, gain, (0.1, 0.5)) == pytest.approx({0.1: 1.0, 0.5: 1.0})
    assert gain_share(np.array([0.0, 4.0]), np.array([1.0, 0.0])) == pytest.approx(-1.0)
    assert np.isnan(gain_share(np.ones(3), np.arange(3.0)))


def test_a_replay_of_nothing_is_refused():
    with pytest.raises(RowError, match="needs rows"):
        replay([], np.array([]))


def test_baselines_read_what_they_say():
    made = row(0.25, 0.5, text="two words", logprobs=(-1.0, -3.0), first_entropy=0.7, step=3)
    values = {name: rule(made) for name, rule in BASELINES.items()}
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
    """Rows whose target samples scatter, and scores that see the true advantage through noise."""
    rng = np.random.default_rng(seed)
    rows, scores = [], []
    for i in range(num):
        draft, gain = rng.uniform(0.2, 0.5), rng.choice([0.0, 0.4])
        rows.append(row(draft, *(draft + gain + rng.normal(0, 0.05, size=4)), problem=str(i // 3), step=i % 3))
        scores.append(1 / (1 + np.exp(-(gain - 0.2) * 10 - rng.normal(0, noise))))
    return rows, np.array(scores)


def test_a_judgement_ranks_a_good_router_above_chance_and_below_the_oracle():
    rows, scores = noisy(300, 1.0)
    made = judge(rows, scores, name="mine", margin=0.2, resamples=100)
    by_name = {verdict.name: verdict for verdict in (made.router, *made.baselines)}
    assert (made.num_rows, made.num_problems) == (300, 100)
    assert made.gain_rate == pytest.approx(0.5, abs=0.1)
    assert by_name["random"].auc < by_name["mine"].auc < by_name["oracle"].auc == 1.0
    assert by_name["random"].rho.value < 0.2 < by_name["mine"].rho.value < made.ceiling.value < 1.0
    assert by_name["oracle"].gain_share.value == pytest.approx(1.0)
    assert made.router.gain_share.low < made.router.gain_share.value < made.router.gain_share.high < 1.0
    assert 0.0 < made.lead.low < made.lead.value
    assert made.lead.value == pytest.approx(by_name["mine"].gain_share.value - by_name["rsd (−s_d)"].gain_share.value)
    assert min(made.accuracy.values()) > 0.8


def test_reliability_and_calibration_error_by_hand():
    scores, gains = np.array([0.05, 0.05, 0.95, 1.0]), np.array([0, 1, 1, 1])
    assert reliability(scores, gains) == [(0.05, 0.5, 2), (pytest.approx(0.975), 1.0, 2)]
    rows = [row(0.5, 0.5 + g / 10, problem=str(i)) for i, g in enumerate(gains)]
    assert judge(rows, scores, name="r", resamples=2).calibration_error == pytest.approx((0.45 + 0.025) / 2)


def test_one_sample_has_no_ceiling():
    assert judge([row(0.5, 0.4, problem="a"), row(0.5, 0.6)], np.ones(2), name="r", resamples=2).ceiling is None


def test_rows_of_one_kind_cannot_be_judged():
    with pytest.raises(RowError, match="with and without gain, got 2 of one kind"):
        judge([row(0.5, 0.6, problem=p) for p in "ab"], np.ones(2), name="r")


async def test_a_router_is_asked_step_by_step_with_its_cache():
    rows = [row(0.5, 0.6, problem=p, step=s, history=("x\n\n",) * s) for p in "ab" for s in range(3)]
    scorer = ScriptedScorer(value=lambda i, c: i / 10 + len(c.text) / 1000)
    shuffled = random.Random(0).sample(rows, len(rows))
    scores = await router_scores(scorer, shuffled)
    assert scores == pytest.approx([r.step / 10 + len(r.draft.text) / 1000 for r in shuffled])
    assert scorer.num_calls == 6
