"""The lines that docs/scale.md extrapolates: least relative error, no part below 0, and a size that was not fitted."""

import pytest

from tests.benchmarks.scale import FITTED, HELD_OUT, Line, fit


def test_a_fixed_part_and_a_slope_are_found_again():
    line = fit([(n, 12.0 + 0.25 * n) for n in FITTED])
    assert (line.fixed, line.each) == pytest.approx((12.0, 0.25))
    assert line.at(HELD_OUT) == pytest.approx(17.0)


@pytest.mark.parametrize(
    ("points", "line"),
    [
        ([(1, 0.8), (10, 10.0), (40, 41.0)], Line(0.0, 0.918)),  # the free line starts below 0
        ([(1, 8.0), (10, 7.9), (40, 7.8)], Line(7.899, 0.0)),  # the free line falls
        ([(1, 0.0), (10, 0.0)], Line(0.0, 0.0)),
        ([(1, 0.0), (10, 5.0), (20, 10.0)], Line(0.0, 0.5)),
    ],
)
def test_no_part_is_below_zero(points, line):
    found = fit(points)
    assert (found.fixed, found.each) == pytest.approx((line.fixed, line.each), rel=0.01)


def test_all_sizes_count_alike():
    """The largest is off by a tenth of itself, which in seconds is more than all the others are."""
    line = fit([(1, 11.0), (3, 13.0), (10, 20.0), (40, 55.0)])
    assert line.at(1) == pytest.approx(11.0, rel=0.05) and line.at(3) == pytest.approx(13.0, rel=0.05)
