"""Bootstrap over patients: coverage on simulated patients, pairing, and the draws themselves."""

import numpy as np
import pytest

from cmri_lib.measures.fidelity.distances import frechet_from_moments, moments
from cmri_lib.measures.statistics.bootstrap import (Score, bootstrap, exact_at_an_end, mean_score, paired_difference,
                                                    patient_draws)

PATIENTS, SLICES = 30, 10
TRIALS = 150


def clustered(rng: np.random.Generator, dimension: int = 1) -> np.ndarray:
    """Patients of ten slices with correlation 0.5 within a patient; mean 0, variance 1."""
    common = rng.standard_normal((PATIENTS, 1, dimension))
    return ((common + rng.standard_normal((PATIENTS, SLICES, dimension))) / np.sqrt(2)).reshape(-1, dimension)


def test_patient_bootstrap_covers_and_slice_bootstrap_does_not():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(PATIENTS), SLICES)
    covered = {"patients": 0, "slices": 0}
    for trial in range(TRIALS):
        values = clustered(rng)[:, 0]
        for name, units in (("patients", patients), ("slices", np.arange(len(values)))):
            score = mean_score(values, units, resamples=200, seed=trial)
            covered[name] += score.low <= 0 <= score.high
    # Binomial standard error at 0.95 is 0.018; percentile intervals of 30 patients fall a little short of 0.95.
    assert 0.88 <= covered["patients"] / TRIALS <= 1.0
    assert covered["slices"] / TRIALS < 0.75


def test_centred_interval_of_the_frechet_distance_covers_its_expectation_and_the_plain_one_does_not():
    rng = np.random.default_rng(1)
    dimension, trials = 16, 40
    patients = [np.char.add(side, np.repeat(np.arange(PATIENTS), SLICES).astype(str)) for side in "ab"]
    scores = {True: [], False: []}
    for trial in range(trials):
        x, y = clustered(rng, dimension), clustered(rng, dimension) + 0.25
        for centred, kept in scores.items():
            kept.append(bootstrap(lambda u, v: frechet_from_moments(moments(x, u), moments(y, v)), *patients,
                                  resamples=60, seed=trial, centred=centred))
    expectation = np.mean([s.value for s in scores[True]])
    covered = {c: np.mean([s.low <= expectation <= s.high for s in kept]) for c, kept in scores.items()}
    assert covered[True] >= 0.85
    assert covered[False] <= 0.75


def test_interval_of_a_mean_agrees_with_the_normal_one():
    values = np.random.default_rng(2).standard_normal(400)
    score = mean_score(values, np.arange(400), resamples=4000)
    half = 1.96 * values.std() / 20
    assert score.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert score.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_draws_keep_patients_whole_and_pair_shared_ones():
    first = np.array(["a", "a", "b", "c", "c", "c"])
    second = np.array(["c", "b", "x", "y", "x"])
    for one, two in patient_draws([first, second], 50, seed=0):
        drawn = dict(zip(first, one))
        assert all(drawn[p] == k for p, k in zip(first, one))
        assert two[0] == drawn["c"] and two[1] == drawn["b"], "a shared patient is drawn once for both sets"
        assert two[2] == two[4] and two[2] + two[3] == 2


def test_paired_difference_is_narrower_than_its_parts():
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(PATIENTS), SLICES)
    first = clustered(rng)[:, 0]
    second = first - 0.1 + 0.01 * rng.standard_normal(len(first))
    score = paired_difference(first, second, patients)
    assert 0 < score.low < 0.1 < score.high + 0.005
    assert score.high - score.low < 0.1 * (mean_score(first, patients).high - mean_score(first, patients).low)


def test_same_seed_same_interval_and_nan_is_left_out():
    values = np.array([1.0, 2.0, np.nan, 4.0, 3.0])
    first, again = (mean_score(values, np.arange(5), seed=4) for _ in range(2))
    assert first == again and first.value == 2.5 and first.n == 5


def test_a_difference_the_other_way_round_has_the_other_sign_and_the_same_interval():
    rng = np.random.default_rng(3)
    first, second = rng.standard_normal((2, 40)) + np.array([[0.4], [0.0]])
    patients = np.repeat(np.arange(10), 4)
    one, other = (paired_difference(a, b, patients, resamples=500, seed=1) for a, b in ((first, second), (second, first)))
    turned = -one
    assert turned.value == pytest.approx(other.value) and turned.low <= turned.value <= turned.high
    assert (turned.low, turned.high) == pytest.approx((other.low, other.high), abs=1e-12)
    assert ((-turned).value, (-turned).low, (-turned).high) == (one.value, one.low, one.high)


@pytest.mark.parametrize(("value", "low", "high"), [(1.0, 0.025 ** (1 / 24), 1.0), (0.0, 0.0, 1 - 0.025 ** (1 / 24))])
def test_a_share_without_exceptions_has_an_exact_interval(value, low, high):
    found = exact_at_an_end(Score(value, value, value, 24, floor=0.5))
    assert (found.value, found.n, found.floor) == (value, 24, 0.5)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    other = Score(value, 0.2, 0.8, 24)
    assert exact_at_an_end(other) is other and exact_at_an_end(Score(0.5, 0.5, 0.5, 24)).low == 0.5
