"""How many tokens are guessed, from scripted costs and scripted luck."""

import random

import pytest

from arbitrage.core.errors import ConfigError
from arbitrage.engines.guess_count import (
    IN_STEP,
    MAX_GUESSES,
    PRIOR_WEIGHT,
    PROBE_EVERY,
    PROBE_SHARE,
    PROBE_TOKENS,
    WINDOW,
    AdaptiveCount,
    Costs,
    FixedCount,
    RunningMean,
)

WIDTHS = (1, 2, 4, 8, 16)
FLAT = dict.fromkeys(WIDTHS, 1.0)
"""A device that computes sixteen tokens as fast as one."""
LINEAR = {width: float(width) for width in WIDTHS}
"""One on which each token costs the same."""


def count_of(costs, acceptance=0.85, weight=PRIOR_WEIGHT):
    count = AdaptiveCount(default=6, acceptance=RunningMean(acceptance, weight, WINDOW))
    count.set_costs(costs)
    return count


def play(count, num_tokens, acceptance, *, seed=0, prompt=0):
    """Write tokens with guesses of this acceptance.

    Returns:
        The seconds that the scripted costs say, and the numbers that were chosen.
    """
    rng, written, missing, seconds, chosen = random.Random(seed), 0, prompt + 1, 0.0, []
    while written < num_tokens:
        number = count.choose(missing)
        chosen.append(number)
        seconds += count.costs.verify_s(1 + number) + number * count.costs.guess_s
        if number:
            count.read(missing)
            seconds += (missing if missing > IN_STEP else 0) * count.costs.read_s
            missing = 0
        num_right = 0
        while num_right < number:
            is_right = rng.random() < acceptance
            count.learn(is_right)
            if not is_right:
                break
            num_right += 1
        written += num_right + 1
        missing += 1
    return seconds / written, chosen


def test_a_fixed_number_stays():
    count = FixedCount(6)
    count.learn(False)
    count.read(100)
    assert {count.choose(0), count.choose(1000)} == {6}


@pytest.mark.parametrize("number", [0, -1])
def test_a_fixed_number_is_positive(number):
    with pytest.raises(ConfigError, match=f"guessed tokens must be at least 1, got {number}"):
        FixedCount(number)


def test_costs_between_measured_numbers_are_interpolated():
    costs = Costs(target_s={1: 1.0, 2: 2.0, 4: 3.0, 8: 11.0})
    assert [costs.verify_s(n) for n in (1, 2, 3, 4, 6, 8)] == [1.0, 2.0, 2.5, 3.0, 7.0, 11.0]


@pytest.mark.parametrize(
    ("costs", "acceptance", "best"),
    [
        (Costs(target_s=FLAT, guess_s=1.0), 1.0, 0),
        (Costs(target_s=FLAT, guess_s=0.5), 0.4, 0),
        (Costs(target_s=FLAT, guess_s=0.2), 0.8, 4),
        (Costs(target_s=FLAT, guess_s=0.0), 0.1, MAX_GUESSES),
        (Costs(target_s=LINEAR, guess_s=0.0), 0.99, 0),
        (Costs(target_s=LINEAR, guess_s=0.1), 0.9, 0),
        (Costs(target_s=FLAT, guess_s=0.05), 0.0, 0),
    ],
    ids=["as dear as the target", "often wrong", "cheap", "free", "no parallel gain", "dear verifying", "always wrong"],
)
def test_the_best_number_follows_from_the_formula(costs, acceptance, best):
    assert costs.best_count(acceptance) == best


@pytest.mark.parametrize("acceptance", [0.3, 0.6, 0.9])
def test_the_best_number_has_the_least_time_per_token_of_the_paper(acceptance):
    costs = Costs(target_s={1: 1.0, 2: 1.1, 4: 1.3, 8: 1.7, 16: 2.5}, guess_s=0.15)

    def per_token(k):
        mean = (1 - acceptance ** (k + 1)) / (1 - acceptance)
        return (costs.verify_s(k + 1) + k * costs.guess_s) / mean

    assert costs.best_count(acceptance) == min(range(MAX_GUESSES + 1), key=per_token)


def test_a_saving_below_the_margin_is_none():
    assert Costs(target_s=FLAT, guess_s=0.69).best_count(0.7) == 0
    assert Costs(target_s=FLAT, guess_s=0.60).best_count(0.7) == 1


def test_reading_must_pay_too():
    costs = Costs(target_s=FLAT, guess_s=0.2, read_s=0.1)
    assert costs.best_count(0.8) == costs.best_count(0.8, 4.0) == 4
    assert costs.best_count(0.8, 10.0) == 0


def test_until_costs_are_measured_the_default_is_used():
    count = AdaptiveCount(default=6, acceptance=RunningMean(0.7, PRIOR_WEIGHT, WINDOW))
    assert (count.choose(100), count.is_measured) == (6, False)
    count.set_costs(None)
    assert (count.choose(0), count.is_measured) == (6, True)


@pytest.mark.parametrize(("acceptance", "low", "high"), [(0.95, 8, 15), (0.7, 2, 5), (0.1, 0, 0)])
def test_the_number_follows_the_acceptance(acceptance, low, high):
    _, chosen = play(count_of(Costs(target_s=FLAT, guess_s=0.2)), 2000, acceptance)
    usual = sorted(chosen[50:])[len(chosen[50:]) // 2]
    assert low <= usual <= high


@pytest.mark.parametrize("guess_s", [0.05, 0.3, 0.6, 0.9, 1.2])
@pytest.mark.parametrize("acceptance", [0.0, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("target_s", [FLAT, LINEAR, {1: 1.0, 2: 1.4, 4: 2.0, 8: 3.0, 16: 4.0}])
def test_it_never_loses_two_percent(guess_s, acceptance, target_s):
    count = count_of(Costs(target_s=target_s, guess_s=guess_s, read_s=guess_s / 8))
    seconds, _ = play(count, 2000, acceptance, prompt=100)
    assert seconds <= 1.02


def test_a_draft_as_dear_as_the_target_never_guesses():
    _, chosen = play(count_of(Costs(target_s=FLAT, guess_s=1.0)), 2000, 1.0)
    assert set(chosen) == {0}


@pytest.mark.parametrize("acceptance", [0.5, 0.7, 0.85])
def test_a_few_wrong_guesses_end_guessing_where_verifying_is_dear(acceptance):
    """Costs of a quantised model on a CPU."""
    count = count_of(Costs(target_s={1: 0.126, 2: 0.211, 4: 0.260, 8: 0.791, 16: 0.867}), acceptance)
    chosen = []
    for _ in range(20):
        chosen.append(count.choose(1))
        if chosen[-1]:
            count.learn(False)
    assert chosen[12:] == [0] * 8


def test_a_look_up_that_is_wrong_stops_and_recovers():
    count = count_of(Costs(target_s={1: 1.0, 2: 1.2, 4: 1.6, 8: 2.4, 16: 4.0}))
    seconds, chosen = play(count, 3000, 0.05)
    assert chosen[-1] == 0
    assert seconds <= 1.02
    assert PROBE_TOKENS in chosen[-200:]
    seconds, chosen = play(count, 3000, 0.95, seed=1)
    assert min(chosen[-100:]) > 0
    assert seconds < 0.7


def test_probes_are_rare_and_cost_a_hundredth():
    costs = Costs(target_s=FLAT, guess_s=0.3, read_s=0.05)
    count = count_of(costs, 0.0, WINDOW)
    missing, last, spent = 0, -PROBE_EVERY, 0.0
    for number in range(5000):
        missing = missing if number % 150 else 100  # The prompt of the next problem.
        if guesses := count.choose(missing):
            assert guesses == PROBE_TOKENS
            assert number - last >= PROBE_EVERY
            spent += costs.probe_s(missing)
            count.learn(False)
            missing, last = 0, number
        missing += 1
    assert 0.5 * PROBE_SHARE * 5000 < spent <= PROBE_SHARE * 5000


def test_a_guesser_that_follows_goes_on_where_one_that_must_read_does_not_begin():
    count = count_of(Costs(target_s=FLAT, guess_s=0.3, read_s=0.1))
    assert count.choose(1) > 0
    assert count.choose(1000) == 0
    assert count.choose(2) > 0


def test_long_answers_make_reading_pay():
    count = count_of(Costs(target_s=FLAT, guess_s=0.3, read_s=0.1))
    assert count.choose(300) == 0
    for _ in range(8):
        for _ in range(500):
            count.choose(1)
        count.read(300)
    assert count.num_written.mean > 300
    assert count.choose(300) > 0


def test_a_running_mean_forgets():
    mean = RunningMean(0.0, 1.0, 4.0)
    for _ in range(20):
        mean.add(1.0)
    assert 0.99 < mean.mean <= 1.0
    mean.add(0.0)
    assert mean.mean == pytest.approx(0.75, abs=0.01)
