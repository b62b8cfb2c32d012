import pytest

from arbitrage.core.interpolation import interpolated

POINTS = [(1, 2.0), (2, 3.0), (4, 7.0)]


@pytest.mark.parametrize(("x", "value"), [(0, 2.0), (1, 2.0), (1.5, 2.5), (2, 3.0), (3, 5.0), (4, 7.0)])
@pytest.mark.parametrize("slope", [None, 0.0, 5.0])
def test_values_lie_on_the_lines_between_points(x, value, slope):
    assert interpolated(POINTS, x, slope=slope) == value


@pytest.mark.parametrize(("slope", "value"), [(None, 11.0), (0.0, 7.0), (0.5, 8.0)])
def test_the_line_beyond_the_last_point_has_the_slope(slope, value):
    assert interpolated(POINTS, 6, slope=slope) == value


def test_one_point_is_flat_unless_a_slope_is_given():
    assert [interpolated([(2, 3.0)], 9, slope=slope) for slope in (None, 0.0, 1.0)] == [3.0, 3.0, 10.0]


def test_a_step_has_the_value_of_its_first_point():
    assert interpolated([(1, 2.0), (1, 5.0), (2, 6.0)], 1) == 2.0
