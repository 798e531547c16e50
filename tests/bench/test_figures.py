"""Medians, spreads and percentiles of given values."""

import pytest

from bench.figures import Spread, number, percentile, spread


def test_a_spread_is_the_median_with_the_lowest_and_the_highest() -> None:
    """Order does not matter, and one value is a spread, too."""
    assert spread([3, 1, 2, 10]) == Spread(2.5, 1, 10)
    assert spread([7]) == Spread(7, 7, 7)


def test_nothing_measured_has_no_spread() -> None:
    """Silence would look like a figure."""
    with pytest.raises(ValueError, match="nothing was measured"):
        spread([])


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_a_measured_value_that_so_many_do_not_exceed(share: float, expected: float) -> None:
    """Nearest rank: nothing is interpolated that was never measured."""
    assert percentile([float(value) for value in range(100, 0, -1)], share) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0374, "0.037"),
        (0.0, "0.00"),
        (1.386, "1.39"),
        (42.44, "42.4"),
        (208.4, "208"),
        (8_370.2, "8,370"),
        (236_449, "236,000"),
    ],
)
def test_a_figure_has_three_digits(value: float, expected: str) -> None:
    """More would claim what a noisy machine cannot measure."""
    assert number(value) == expected
