"""Recognition of what was asked for: two Gaussians first, whose best accuracy is known."""

import numpy as np
import pytest
from conftest import discs

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError, SplitError
from cmri_lib.measures.conditioning.condition_accuracy import (condition_accuracy, condition_accuracy_difference, lacking,
                                                                train_condition_classifier)


class Pixels:
    """The first two pixels of an image, in units of 1/20, as its features."""

    name, dimension = "pixels", 2

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return 20 * images[:, 0, 0, :2].astype(float)


PLACES = {"Phantom A": (0.0, 0.0), "Phantom B": (2.0, 0.0), "Phantom C": (1.0, 9.0)}


def coloured(words: np.ndarray, shown: np.ndarray, seed: int, split: str = "test", per_patient: int = 5) -> Slices:
    """Slices that were asked for vendor `words` and show vendor `shown`: a unit Gaussian around its place."""
    n = len(words)
    base = discs(-(-n // per_patient), per_patient, size=8, seed=seed, split=split).take(np.arange(n))
    images = np.zeros((n, 1, 8, 8), np.float32)
    images[:, 0, 0, :2] = (np.random.default_rng(seed).standard_normal((n, 2)) + [PLACES[w] for w in shown]) / 20
    return Slices(images, base.masks, base.table.assign(vendor=words))


def vendors(letters: str, n: int) -> np.ndarray:
    return np.array([f"Phantom {letters[i % len(letters)]}" for i in range(n)], object)


@pytest.fixture(scope="module")
def judge():
    words = vendors("ABC", 3000)
    return train_condition_classifier(coloured(words, words, 0, "train"), Pixels(), "vendor")


@pytest.fixture(scope="module")
def real():
    return coloured(vendors("AB", 2000), vendors("AB", 2000), 1)


def swapped(words: np.ndarray) -> np.ndarray:
    return np.where(words == "Phantom A", "Phantom B", "Phantom A").astype(object)


def test_accuracy_of_two_gaussians_is_the_closed_form(judge, real):
    words = vendors("AB", 2000)
    shuffled = np.random.default_rng(0).permutation(words)
    for shown, expected in ((words, 0.8413), (shuffled, 0.5), (swapped(words), 1 - 0.8413)):
        row = condition_accuracy(real, coloured(words, shown, 2, "made"), judge, resamples=50)
        assert row["value"] == pytest.approx(expected, abs=0.03) and row["low"] <= row["value"] <= row["high"]
        assert row["metric"] == "accuracy_vendor" and row["floor"] == 0.5 and row["n"] == 2000
        assert row["ceiling"] == pytest.approx(0.8413, abs=0.03), "Φ(1): two unit Gaussians 2 apart"


def test_it_chooses_among_the_classes_at_hand_only(judge, real):
    # All look like C, which no real test slice is: the judge must still say A or B, and half of them right.
    words = vendors("AB", 400)
    row = condition_accuracy(real, coloured(words, vendors("C", 400), 3, "made"), judge, resamples=20)
    assert row["value"] == pytest.approx(0.5, abs=0.06)
    images = coloured(words, vendors("C", 400), 3).images
    assert (judge(images, judge.words) == "Phantom C").mean() > 0.97
    assert set(judge(images, judge.words[:2])) == set(judge.words[:2])


def test_rare_classes_weigh_as_much_as_common_ones(judge, real):
    # Nine in ten were asked for A, and all show A most clearly: a plain accuracy would be 0.9.
    words = np.array(["Phantom A"] * 9 + ["Phantom B"], object)[np.arange(500) % 10]
    clear = coloured(words, vendors("A", 500), 4, "made")
    clear.images[:, 0, 0, :2] = (-3 / 20, 0)
    assert condition_accuracy(real, clear, judge, resamples=20)["value"] == 0.5


def test_unknown_words_are_left_out(judge, real):
    words = vendors("AB", 300)
    good = coloured(words, words, 5, "made")
    told = good.table["vendor"].where(np.arange(300) >= 100, np.resize(["unknown", "other", "Siemens"], 300))
    row = condition_accuracy(real, good.with_columns(vendor=told), judge, resamples=20)
    assert row["n"] == 200
    assert condition_accuracy(real, good.take(np.arange(100, 300)), judge, resamples=20) == row
    with pytest.raises(DataError, match="vendor.*common to all"):
        condition_accuracy(real, good.take(np.flatnonzero(words == "Phantom A")), judge)


def test_gain_is_the_difference_paired_over_patients(judge, real):
    words = vendors("AB", 600)
    good, bad = (coloured(words, shown, seed, "made") for shown, seed in ((words, 6), (vendors("A", 600), 7)))
    bad = bad.with_columns(patient=good.patients)
    gain = condition_accuracy_difference(good, bad, judge, resamples=100)
    values = [condition_accuracy(real, samples, judge, resamples=5)["value"] for samples in (good, bad)]
    assert gain.value == pytest.approx(values[0] - values[1]) and gain.low > 0.2 and gain.n == 600
    nought = condition_accuracy_difference(good, good, judge, resamples=20)
    assert nought.low == nought.value == nought.high == 0
    with pytest.raises(DataError, match="vendor.*different conditions"):
        condition_accuracy_difference(good, bad.with_columns(vendor=swapped(words)), judge)


def test_what_cannot_be_judged_is_refused(judge, real):
    words = vendors("AB", 60)
    training = coloured(words, words, 8, "train")
    with pytest.raises(DataError, match="vendor.*all training patients"):
        train_condition_classifier(training.with_columns(vendor="Phantom A"), Pixels(), "vendor")
    with pytest.raises(DataError, match="vendor.*all training patients"):
        train_condition_classifier(training.with_columns(vendor=np.resize(["Phantom A", "unknown", "other"], 60)),
                                   Pixels(), "vendor")
    with pytest.raises(DataError, match="age"):
        train_condition_classifier(training, Pixels(), "age")
    with pytest.raises(SplitError, match="split"):
        train_condition_classifier(real, Pixels(), "vendor")
    seen = train_condition_classifier(training, Pixels(), "vendor")
    with pytest.raises(SplitError, match="patient.*learnt from"):
        condition_accuracy(training.with_columns(split="test"), real, seen)


@pytest.mark.parametrize("words, reason", [
    (vendors("A", 20), "all of them have Phantom A in common, two categories are needed"),
    (vendors("ABABA", 10), "2 patients, 3 are needed"),
    (vendors("ABABA", 15), "")])
def test_what_cannot_be_scored_is_said_and_has_no_value_or_no_interval(judge, real, words, reason):
    samples = coloured(words, words, 3, "made")
    assert lacking(judge, real, samples) == reason
    if "in common" in reason:
        with pytest.raises(DataError):
            condition_accuracy(real, samples, judge, resamples=5)
    elif reason:
        with pytest.warns(UserWarning, match="no interval"):
            assert np.isnan(condition_accuracy(real, samples, judge, resamples=5)["low"])
    else:
        assert condition_accuracy(real, samples, judge, resamples=5)["n"] == len(words)
