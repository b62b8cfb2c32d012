"""Values between measured points."""

from collections.abc import Sequence
from itertools import pairwise


def interpolated(points: Sequence[tuple[float, float]], x: float, *, slope: float | None = 0.0) -> float:
    """The value at ``x`` on the straight lines between points.

    Args:
        points: At least one, by increasing x.
        x: Before the first point, the value is the first one's.
        slope: Of the line beyond the last point; None for that of the last two.
    """
    if x <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1:
            return y0 if x1 == x0 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    last_x, last_y = points[-1]
    if slope is None:
        x0, y0 = points[-2] if len(points) > 1 else (last_x - 1.0, last_y)
        slope = (last_y - y0) / (last_x - x0)
    return last_y + slope * (x - last_x)
