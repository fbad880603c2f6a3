"""Rank correlations over systems: against SciPy and in closed form, with an interval that covers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cmri_lib.errors import DataError
from cmri_lib.measures.statistics.ranks import rank_correlation


def test_rank_correlation_is_one_for_one_order_and_minus_one_for_the_reverse() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    same, reverse = rank_correlation(values, np.exp(values)), rank_correlation(values, -values)
    assert (same.value, same.low, same.high) == pytest.approx((1, 1, 1)), "ranks alone count"
    assert reverse.value == pytest.approx(-1) and (same.floor, same.ceiling, same.n) == (0, 1, 5)
    # Spearman: 1 − 6 Σd² / (n (n² − 1)); two neighbours that change places give Σd² = 2.
    assert rank_correlation(values, values[[1, 0, 2, 3, 4]]).value == pytest.approx(1 - 6 * 2 / (5 * 24))


def test_it_is_scipy_s_and_leaves_out_what_lacks_a_value() -> None:
    draws = np.random.default_rng(0)
    first = draws.normal(size=30).round(1)  # with ties
    second = first + draws.normal(size=30)
    score = rank_correlation(first, second, resamples=50)
    assert score.value == pytest.approx(stats.spearmanr(first, second).statistic) and score.low <= score.value <= score.high
    lacking = rank_correlation(np.append(first, [np.nan, 99.0]), np.append(second, [0.0, np.nan]), resamples=50)
    assert lacking == score


def test_the_interval_covers_the_correlation_of_the_population() -> None:
    r = 0.6
    true = 6 / math.pi * math.asin(r / 2)  # of a bivariate normal distribution
    draws, hits = np.random.default_rng(1), 0
    for trial in range(100):
        pairs = draws.multivariate_normal([0, 0], [[1, r], [r, 1]], size=28)
        score = rank_correlation(*pairs.T, seed=trial, resamples=200)
        hits += score.low <= true <= score.high
    assert 85 <= hits <= 100


def test_a_measure_that_is_the_same_for_all_has_no_order() -> None:
    assert math.isnan(rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).value)


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match="one value per system"):
        rank_correlation([1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="no system has both"):
        rank_correlation([1.0, np.nan], [np.nan, 1.0])
