"""Sampling from arrays, held to transformers' definitions."""

import math
import random

import pytest

from arbitrage.core.types import Sampling

np = pytest.importorskip("numpy")
from arbitrage.engines.logits import entropy, log_normaliser, logprobs, picker, weights  # noqa: E402

ROWS = np.random.default_rng(0).normal(scale=3.0, size=(20, 200)).astype(np.float32)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"top_k": 1},
        {"top_k": 7},
        {"top_k": 999},
        {"top_p": 0.9},
        {"top_p": 1e-6},
        {"min_p": 0.1},
        {"min_p": 1.0},
        {"top_k": 50, "top_p": 0.8, "min_p": 0.05},
    ],
    ids=str,
)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_weights_are_those_of_transformers(values, temperature):
    torch = pytest.importorskip("torch")
    hf = pytest.importorskip("arbitrage.engines.hf")
    sampling = Sampling(temperature=temperature, **values)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "multinomial", lambda made, *_, **__: seen.append(made[0]) or torch.tensor([0]))
        pick = hf._picker(sampling, 0, torch.device("cpu"))
        for row in ROWS:
            pick(torch.tensor(row))
            assert weights(row, sampling) == pytest.approx(seen.pop().numpy(), abs=1e-5)


def test_ties_at_the_border_of_top_k_are_all_kept():
    assert (weights(np.float32([2, 1, 1, 1, 0]), Sampling(temperature=1.0, top_k=2)) > 0).sum() == 4


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.999])
def test_the_nucleus_is_what_sorting_everything_gives(top_p):
    for row in ROWS:
        whole = np.exp(row.astype(float)) / np.exp(row.astype(float)).sum()
        order = whole.argsort()[::-1]
        length = int(np.searchsorted(whole[order].cumsum(), top_p)) + 1
        kept = np.flatnonzero(weights(row, Sampling(temperature=1.0, top_p=top_p)))
        assert set(kept) == set(order[:length])


def test_draws_follow_the_weights_and_their_seed():
    row, sampling = np.float32([0.0, math.log(3), math.log(6), -1e9]), Sampling(temperature=1.0)
    drawn = [picker(sampling, seed)(row)[0] for seed in range(3000)]
    assert [drawn.count(token) / 3000 for token in range(4)] == pytest.approx([0.1, 0.3, 0.6, 0.0], abs=0.03)
    assert drawn == [picker(sampling, seed)(row)[0] for seed in range(3000)]


def test_what_is_left_out_is_never_drawn(monkeypatch):
    monkeypatch.setattr("arbitrage.engines.logits.random.Random.random", lambda self: 1 - 2**-53)
    for row in ROWS:
        token, _ = picker(Sampling(temperature=0.3, top_p=0.5), 0)(row)
        assert weights(row, Sampling(temperature=0.3, top_p=0.5))[token] > 0


def test_log_probabilities_are_at_temperature_1_whatever_is_drawn():
    for row in ROWS:
        for sampling in (Sampling(), Sampling(temperature=0.3, top_k=3)):
            token, logprob = picker(sampling, 1)(row)
            assert logprob == pytest.approx(math.log(np.exp(row[token]) / np.exp(row.astype(float)).sum()), abs=1e-5)
        assert picker(Sampling(), 0)(row)[0] == row.argmax()
    assert logprobs(ROWS, [5, 6]) == pytest.approx([ROWS[i, 5 + i] - log_normaliser(ROWS[i]) for i in range(2)])
    assert logprobs(ROWS, []) == ()


def test_entropy_is_in_nats_and_survives_what_never_comes():
    assert entropy(np.zeros(8, np.float32)) == pytest.approx(math.log(8), abs=1e-6)
    assert entropy(np.float32([0.0, -1e4, -1e30])) == pytest.approx(0.0, abs=1e-6)


def test_draws_do_not_follow_those_of_a_rule_with_the_same_seed():
    """``random`` escalates where the first number of a seed is small: the target's first token must be any."""
    row, sampling = np.zeros(4, np.float32), Sampling(temperature=1.0)
    escalated = [seed for seed in range(4000) if random.Random(seed).random() < 0.25]
    drawn = [picker(sampling, seed)(row)[0] for seed in escalated]
    assert [drawn.count(token) / len(drawn) for token in range(4)] == pytest.approx([0.25] * 4, abs=0.06)
