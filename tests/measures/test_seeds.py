"""Intervals over patients and trainings: closed forms of their variance, coverage, and what one training says."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import discs
from scipy import stats

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError
from cmri_lib.measures.anatomy.adherence import adherence_difference
from cmri_lib.measures.fidelity.distances import distances
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.statistics.bootstrap import bootstrap, mean_score
from cmri_lib.measures.statistics.comparison import SHARE, Measure, Metric, compare, differences
from cmri_lib.measures.statistics.seeds import bootstrap_seeds, mean_over_seeds, satterthwaite


def table(rng: np.random.Generator, trainings: int, patients: int, seeds: float, residual: float = 0.5) -> np.ndarray:
    """(S, P) scores around 0: patients vary by 1, trainings by `seeds`."""
    return (rng.normal(0, seeds, (trainings, 1)) + rng.normal(0, 1, (1, patients))
            + rng.normal(0, residual, (trainings, patients)))


def half_width(scores: np.ndarray, resamples: int = 4000) -> float:
    score = mean_over_seeds(list(scores), np.arange(scores.shape[1]), resamples=resamples)
    return (score.high - score.low) / 2


def variance(scores: np.ndarray) -> float:
    """Of the bootstrapped mean w'Yv, exactly, from the moments of multinomial weights: E (w'Yv)² = ⟨M_w Y M_v, Y⟩; the part
    of the trainings is enlarged by S / (S − 1)."""
    (s, p), mean = scores.shape, scores.mean()
    moments = [(np.eye(n) - np.ones((n, n)) / n) / n**2 for n in (s, p)]
    within = moments[1] + np.ones((p, p)) / p**2
    between = s / (s - 1) * moments[0]
    return float(np.sum((between + np.ones((s, s)) / s**2) @ scores @ within * scores) - mean**2)


def test_width_is_that_of_the_exact_bootstrap_variance() -> None:
    scores = table(np.random.default_rng(0), 12, 40, seeds=0.5)
    over = [scores.mean(1).var(ddof=1) / 12, scores.mean(0).var() / 40]  # of the patients, as a bootstrap has it
    wanted = stats.t.ppf(0.975, satterthwaite(over, [11, 39])) * np.sqrt(variance(scores))
    assert half_width(scores) == pytest.approx(wanted, rel=0.06)  # the spread of a percentile of 4000 draws is 2–3 %


@pytest.mark.parametrize(("trainings", "seeds", "residual"), [(8, 1.5, 0.5), (8, 0.0, 0.5), (16, 0.3, 3.0)])
def test_intervals_are_on_average_as_wide_as_a_crossed_random_effects_mean_asks(
        trainings: int, seeds: float, residual: float) -> None:
    """The variance that the interval stands for, over many tables of 20 patients: σ_a²/S, σ_b²/P (1 − 1/P) of patients drawn
    with replacement, and of the residuals, which are drawn by both levels, σ²/SP (3 − 2/P)."""
    rng, found, patients = np.random.default_rng(1), [], 20
    for trial in range(150):
        means = [lambda counts, row=row: row @ counts / patients for row in table(rng, trainings, patients, seeds, residual)]
        score = bootstrap_seeds(means, np.arange(patients), resamples=200, seed=trial)
        found.append(((score.high - score.low) / 2 / stats.t.ppf(0.975, score.df)) ** 2)
    wanted = (seeds**2 / trainings + 1 / patients * (1 - 1 / patients)
              + residual**2 / (trainings * patients) * (3 - 2 / patients))
    assert np.mean(found) == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize("seeds", [0.0, 0.3, 1.0])
def test_three_trainings_cover_where_patients_alone_do_not(seeds: float) -> None:
    rng, trials, patients = np.random.default_rng(2), 200, 18
    both = alone = 0
    for trial in range(trials):
        means = [lambda counts, row=row: row @ counts / patients for row in table(rng, 3, patients, seeds)]
        score = bootstrap_seeds(means, np.arange(patients), resamples=150, seed=trial)
        both += score.low <= 0 <= score.high
        score = bootstrap(lambda counts: np.mean([mean(counts) for mean in means]), np.arange(patients),
                          resamples=150, seed=trial)
        alone += score.low <= 0 <= score.high
    assert both / trials >= 0.89  # 0.95 less three standard errors of 200 trials, and 1 % that few patients cost
    if seeds == 1.0:
        assert alone / trials < 0.65


def test_one_training_is_the_bootstrap_over_patients_and_equal_ones_are_nearly() -> None:
    values = np.random.default_rng(3).normal(size=30)
    plain = mean_score(values, np.arange(30), resamples=300, seed=5)
    assert mean_over_seeds([values], np.arange(30), resamples=300, seed=5) == plain
    equal = mean_over_seeds([values] * 3, np.arange(30), resamples=300, seed=5)
    widened = stats.t.ppf(0.975, 29) / stats.norm.ppf(0.975)
    assert equal.seeds == 3 and equal.df == pytest.approx(29)
    assert np.allclose([equal.low - equal.value, equal.high - equal.value],
                       widened * np.array([plain.low - plain.value, plain.high - plain.value]))


def test_two_trainings_far_apart_say_little() -> None:
    values = np.random.default_rng(4).normal(size=20)
    score = mean_over_seeds([values - 3, values + 3], np.arange(20), resamples=300)
    assert score.df < 1.1 and score.high - score.low > 20


def test_degrees_of_freedom_are_those_of_the_one_that_varies_and_add_up_where_all_do() -> None:
    assert satterthwaite([2.0, 0.0], [2, 9]) == pytest.approx(2) and satterthwaite([1.0, 1.0], [4, 4]) == pytest.approx(8)
    assert satterthwaite([0.0, 0.0], [2, 9]) == float("inf")


def test_few_patients_have_a_value_without_an_interval() -> None:
    with pytest.warns(UserWarning, match="2 patients"):
        score = mean_over_seeds([np.ones(2), 3 * np.ones(2)], np.arange(2))
    assert score.value == 2 and np.isnan(score.low) and score.seeds == 2


def test_centring_takes_away_what_repeated_patients_add() -> None:
    # A draw of P patients has E (mean*)² = mean² + σ²/P: the limits move down by σ²/P, and are widened from the value.
    values = np.arange(12.0) - 5.5
    squares = [lambda counts, shift=s: float(np.average(values, weights=counts) + shift) ** 2 for s in (0.0, 0.1, 0.2)]
    plain, centred = (bootstrap_seeds(squares, np.arange(12), centred=c, resamples=2000) for c in (False, True))
    widened = stats.t.ppf(0.975, plain.df) / stats.norm.ppf(0.975)
    assert plain.value == centred.value == pytest.approx(0.05 / 3) and plain.df == centred.df
    assert centred.high - plain.high == pytest.approx(-widened * values.var() / 12, rel=0.1)
    assert centred.low < plain.low


def test_a_centred_interval_covers_what_a_biased_statistic_has_at_this_size() -> None:
    rng, trials, (p, d) = np.random.default_rng(5), 100, (15, 16)
    mean, seeds, residual = 0.3, 0.1, 0.3
    truth = d * (mean**2 + seeds**2 + (1 + residual**2) / p)  # E |mean of p patients|² in d dimensions
    covered = {False: 0, True: 0}
    for trial in range(trials):
        patients = mean + rng.normal(0, 1, (p, d))
        rows = [patients + rng.normal(0, seeds, d) + rng.normal(0, residual, (p, d)) for _ in range(3)]
        norms = [lambda counts, row=row: float(((counts @ row / p) ** 2).sum()) for row in rows]
        for centred in covered:
            score = bootstrap_seeds(norms, np.arange(p), resamples=100, seed=trial, centred=centred)
            covered[centred] += score.low <= truth <= score.high
    assert covered[True] / trials >= 0.9 and covered[False] / trials < 0.88, covered


def test_banks_of_several_trainings_are_scored_by_their_mean() -> None:
    measure, options = distances(ClassicalFeatures()), {"seed": 1, "resamples": 40}
    real, banks = discs(6, 4, seed=0, split="test"), [discs(6, 4, seed=k, split="made") for k in (1, 2, 3)]
    single = [{r["metric"]: r["value"] for r in compare(real, bank, measure, repeats=2, **options)} for bank in banks]
    rows = compare(real, banks, measure, repeats=2, **options)
    for row in rows:
        assert row["value"] == pytest.approx(np.mean([values[row["metric"]] for values in single]))
        assert row["seeds"] == 3 and row["low"] <= row["value"] <= row["high"]
    same = differences(real, banks, banks, measure, **options)
    assert all(score.value == score.low == score.high == 0 for score in same.values())
    with pytest.raises(DataError, match="3 trainings of the first system, 1 of the second"):
        differences(real, banks, banks[0], measure, **options)


def test_an_interval_of_few_trainings_ends_where_the_scale_does() -> None:
    def share_of(scale: tuple[float, float]) -> Measure:
        """The mean of the samples, here a share of each training."""
        return Measure((Metric("share", "higher", scale=scale),), lambda slices: slices.images.mean((1, 2, 3))[:, None],
                       lambda x, y: (lambda u, v: float(np.average(y.values[:, 0], weights=v)),))

    real, made = discs(6, 2, split="test"), discs(6, 2, seed=1, split="made")
    banks = [Slices(np.full_like(made.images, share), made.masks, made.table) for share in (0.7, 0.75, 0.95)]
    scales = Metric("", "lower").scale, SHARE
    (free,), (cut,) = (compare(real, banks, share_of(scale), resamples=40, repeats=2) for scale in scales)
    assert free["high"] > 1 and free["low"] > 0, "Student's t of two degrees of freedom is wide"
    assert cut["high"] == 1 and {k: v for k, v in cut.items() if k != "high"} == {k: v for k, v in free.items() if k != "high"}


def test_adherence_of_trainings_is_paired_volume_by_volume() -> None:
    def segment(images: np.ndarray) -> np.ndarray:
        return np.select([images[:, 0] > 0.2, images[:, 0] > -0.55], [1, 2], 0).astype(np.uint8)

    made = discs(6, 4, seed=1, split="test")
    spoilt = [Slices(np.where(np.random.default_rng(k).random(made.images.shape) < 0.1, -1, made.images).astype(np.float32),
                     made.masks, made.table) for k in range(3)]
    single = [adherence_difference(made, bank, segment, resamples=50).value for bank in spoilt]
    score = adherence_difference([made] * 3, spoilt, segment, resamples=50)
    assert score.value == pytest.approx(np.mean(single)) and score.low > 0 and score.seeds == 3
