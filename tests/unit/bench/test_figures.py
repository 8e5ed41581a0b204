from __future__ import annotations

import pytest

from bench.figures import figure, fit, paired_ratio


def test_a_figure_is_the_median_and_the_extremes() -> None:
    found = figure([9.0, 1.0, 2.0])
    assert (found.median, found.least, found.most, found.spread) == (2.0, 1.0, 9.0, 4.0)


def test_no_runs_have_no_figure() -> None:
    with pytest.raises(ValueError, match="no run"):
        figure([])


def test_a_ratio_is_taken_within_each_pair() -> None:
    """A machine that was three times slower during the second pair changes nothing."""
    found = paired_ratio([1.0, 3.0, 1.2], [2.0, 6.0, 2.0])
    assert (found.median, found.least, found.most) == (0.5, 0.5, 0.6)


def test_a_run_without_its_partner_is_no_pair() -> None:
    with pytest.raises(ValueError, match="2 runs beside 1"):
        paired_ratio([1.0, 2.0], [1.0])


def test_a_line_through_points_on_a_line() -> None:
    line = fit([10, 100, 1000], [3 + 0.02 * amount for amount in (10, 100, 1000)])
    assert line.start == pytest.approx(3)
    assert line.slope == pytest.approx(0.02)
    assert line.worst == pytest.approx(0, abs=1e-9)
    assert line.at(500) == pytest.approx(13)


def test_points_on_a_curve_lie_far_from_their_line() -> None:
    amounts = [1e4, 1e5, 1e6]
    assert fit(amounts, [(amount / 1e4) ** 1.5 for amount in amounts]).worst > 0.3
