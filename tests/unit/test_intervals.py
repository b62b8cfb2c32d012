"""Intervals, resamples and p-values, against published values and by hand."""

from fractions import Fraction
from math import comb

import pytest

from arbitrage.evaluation.figures.intervals import (
    Interval,
    Resamples,
    percentiles,
    quantile,
    randomization_p,
    wilson,
)


def test_wilson_against_a_published_value():
    """81 of 263: 0.2553 to 0.3662 (Newcombe 1998, method 3)."""
    interval = wilson(81, 263)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 10).low == 0.0
    assert wilson(10, 10).high == pytest.approx(1.0)


def test_the_bootstrap_covers_the_mean_and_is_reproducible():
    values = [float(i % 10) for i in range(200)]
    interval = percentiles(Resamples(200, seed=0, count=400).means(values))
    assert interval == percentiles(Resamples(200, seed=0, count=400).means(values))
    assert interval.low < 4.5 < interval.high
    assert 0.6 < interval.high - interval.low < 1.0


def test_percentiles_leave_out_a_fortieth_on_each_side():
    assert percentiles([float(i) for i in range(1000)]) == Interval(low=25.0, high=975.0)


def test_quantiles_are_interpolated():
    assert quantile([4.0, 1.0, 2.0, 3.0], 0.5) == 2.5
    assert quantile([1.0, 2.0, 3.0], 0.95) == pytest.approx(2.9)
    assert (quantile([5.0], 0.95), quantile([1.0, 2.0], 1.0), quantile([1.0, 2.0], 0.0)) == (5.0, 2.0, 1.0)


def test_resamples_are_the_same_for_every_figure():
    samples = Resamples(50, seed=3, count=200)
    values = [float(i) for i in range(50)]
    means = samples.means(values)
    assert samples.means([2.0 * value + 1.0 for value in values]) == pytest.approx([2.0 * mean + 1.0 for mean in means])
    assert means == Resamples(50, seed=3, count=200).means(values)
    assert means != Resamples(50, seed=4, count=200).means(values)
    # The spread of a mean of 50: the standard deviation of the values over the root of 50, 2.04.
    centre = sum(means) / 200
    assert 1.7 < (sum((mean - centre) ** 2 for mean in means) / 200) ** 0.5 < 2.4


def test_a_problem_without_the_figure_is_left_out_of_means():
    means = Resamples(20, count=100).means([None] * 10 + [3.0] * 10)
    assert set(means) <= {3.0, None}
    assert Resamples(2, count=5).means([None, None]) == [None] * 5


@pytest.mark.parametrize(("wins", "losses"), [(10, 2), (3, 3), (7, 0), (0, 1), (25, 11)])
def test_with_one_attempt_the_p_value_is_mcnemars_exact_one(wins, losses):
    differences = [Fraction(1)] * wins + [Fraction(-1)] * losses + [Fraction(0)] * 40
    num, fewer = wins + losses, min(wins, losses)
    exact = min(1.0, 2 * sum(comb(num, k) for k in range(fewer + 1)) / 2**num)
    assert randomization_p(differences) == pytest.approx(exact)


def test_the_p_value_weighs_differences_by_their_size():
    """Signs of 1/2, 1/3 and -1/3: of eight choices, ++- and +-+ reach 1/2 as does +++, and their mirrors."""
    assert randomization_p([Fraction(1, 2), Fraction(1, 3), Fraction(-1, 3)]) == 0.75
    assert randomization_p([Fraction(1, 2), Fraction(1, 2), Fraction(1, 2)]) == 0.25
    assert randomization_p([Fraction(0)] * 5) == 1.0
    assert randomization_p([]) == 1.0
