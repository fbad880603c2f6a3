"""Learners from samples: what they refuse, what a perfect and a blind one score, and the paired difference of two."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import discs

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.errors import DataError, SplitError
from cmri_lib.measures.anatomy.adherence import agreement
from cmri_lib.measures.utility.downstream import pseudo_label, train_student, tstr, tstr_difference
from cmri_lib.training import TrainSettings


def true_labels(slices):
    """A segmenter that knows these images by heart."""
    known = {image.tobytes(): mask for image, mask in zip(slices.images, slices.masks)}
    return lambda images: np.stack([known[image.tobytes()] for image in images])


def without_rv(slices):
    exact = true_labels(slices)
    return lambda images: np.where(exact(images) == 3, 0, exact(images)).astype(np.uint8)


def test_every_contrast_of_a_scan_is_a_volume_and_what_is_found_in_vain_is_not_missed() -> None:
    real = discs(5, 4, split="test")
    dark = Slices(real.images - 0.05, real.masks, real.table)
    both = concatenate([real, dark])
    exact, partial = true_labels(both), without_rv(both)
    bright = {image.tobytes() for image in real.images}

    def of_bright_ones(images):  # finds no RV in dark images
        return np.where([[[image.tobytes() in bright]] for image in images], exact(images), partial(images))

    rows = {r["metric"]: r["value"] for r in tstr(both, of_bright_ones, exact, resamples=20)}
    assert rows["downstream_dice"] == pytest.approx((1 + 2 / 3) / 2) and rows["downstream_missed"] == pytest.approx(1 / 6)
    assert tstr_difference(both, exact, of_bright_ones, "RV", resamples=20).value == pytest.approx(0.5)
    no_rv = Slices(real.images, partial(real.images), real.table)
    assert next(r["value"] for r in tstr(no_rv, exact, exact, resamples=20) if r["metric"] == "downstream_missed") == 0


def test_a_perfect_student_scores_one_and_a_partial_one_two_thirds() -> None:
    real = discs(5, 4, split="test")
    rows = {r["metric"]: r for r in tstr(real, true_labels(real), true_labels(real), resamples=50)}
    assert rows["downstream_dice"]["value"] == 1 == rows["downstream_dice"]["ceiling"]
    assert rows["downstream_hd95_mm"]["value"] == 0
    partial = {r["metric"]: r for r in tstr(real, without_rv(real), true_labels(real), resamples=50)}
    assert partial["downstream_dice"]["value"] == pytest.approx(2 / 3) and partial["downstream_dice"]["n"] == 5
    assert partial["downstream_missed"]["value"] == pytest.approx(1 / 3) and rows["downstream_missed"]["value"] == 0
    assert partial["downstream_hd95_mm"]["value"] == 0, "there is no distance to what is missed"
    gain = tstr_difference(real, true_labels(real), without_rv(real), resamples=50)
    assert (gain.value, gain.low, gain.high) == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_students_of_several_trainings_count_by_their_mean_and_widen_the_interval() -> None:
    real = discs(5, 4, split="test")
    exact, partial = true_labels(real), without_rv(real)
    mixed = next(r for r in tstr(real, [exact, partial, exact], exact, resamples=200) if r["metric"] == "downstream_dice")
    assert mixed["value"] == pytest.approx(8 / 9) and mixed["low"] < mixed["value"] < mixed["high"] and mixed["n"] == 5
    gain = tstr_difference(real, [exact, partial, exact], [partial, partial, partial], resamples=200)
    assert gain.value == pytest.approx(2 / 9) and gain.low < gain.value < gain.high, "trainings differ, patients do not"


def test_a_student_learns_from_training_masks_alone(tmp_path) -> None:
    settings = TrainSettings(steps=40, batch=8, learning_rate=5e-3, log_every=20, warmup=5)
    with pytest.raises(SplitError, match="test"):
        train_student(discs(4, 2, split="test"), settings, tmp_path / "a")
    blank = discs(4, 2)
    with pytest.raises(DataError, match="label"):
        train_student(type(blank)(blank.images, 0 * blank.masks, blank.table), settings, tmp_path / "b")
    some, unseen = discs(8, 4), discs(6, 4, seed=5, split="test")
    student = train_student(some, settings, tmp_path / "c")
    found = agreement(student(unseen.images), unseen.masks, unseen.table)["dice_mean"].mean()
    assert found > 0.5, "forty steps tell a disc from its ring"
    assert np.array_equal(pseudo_label(student, unseen).masks, student(unseen.images))
