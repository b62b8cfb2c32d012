import math

import pytest

from arbitrage.core.types import Finish
from arbitrage.scorers.step_features import NUM_STEP_FEATURES, low_quantile, numbers_in, step_features
from helpers import candidate


def test_the_numbers_of_a_step_by_hand():
    step = candidate("She has 3 + 4.50 = 7.5.\n\n", logprobs=(-1.0, -0.5, -0.25), first_entropy=0.75)
    values = step_features(step, 2, "Mia has 3 stamps. They cost $4.5 each.")
    assert values == pytest.approx(
        [math.log(2.75), -1.75 / 3, -1.0, -1.0, -1.0, -0.25, 0.75, 3.0, 2.0, 6 / 23, math.log(4), math.log(2), 0.0, 0.0]
    )
    assert len(values) == NUM_STEP_FEATURES


def test_a_box_and_the_end_of_the_solution_are_seen():
    last = candidate(r"\boxed{12}", finish=Finish.END_OF_SEQUENCE, logprobs=(), first_entropy=0.0)
    assert step_features(last, 0, "12 of 12")[-3:] == [0.0, 1.0, 1.0]
    assert all(map(math.isfinite, step_features(candidate("", logprobs=(), first_entropy=0.0), 0, "")))


def test_a_step_without_log_probabilities_or_entropy_has_none():
    assert step_features(candidate("a", first_entropy=0.5), 0, "") is None
    assert step_features(candidate("a", logprobs=(-1.0,)), 0, "") is None


def test_the_low_quantile_ignores_a_single_outlier_among_many():
    assert low_quantile([-9.0] + [-0.1] * 19) == -0.1
    assert low_quantile([-9.0, -8.0] + [-0.1] * 8) == -8.0
    assert low_quantile([-2.0, -1.0]) == -2.0
    assert low_quantile([]) == 0.0


def test_numbers_are_compared_by_value_as_far_as_they_are_written_alike():
    assert numbers_in("3,000 is 3000, 4.50 is 4.5, 5.0 is 5, 100. and x2") == [
        *("3000", "3000", "4.5", "4.5", "5", "5", "100", "2")
    ]
    assert numbers_in("no number") == []
