"""A disease that shows in a heart's volumes is read from them, one that does not is not."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import discs

from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError, SplitError
from cmri_lib.measures.conditioning.volume_accuracy import (heart_volumes, train_volume_reader, volume_accuracy,
                                                            volume_accuracy_difference)


def hearts(count: int, seed: int, split: str, shift: float = 0.7) -> Slices:
    """Patients of four slices whose LV cavity is a square; those of DCM are larger by `shift` in the logarithm of the area,
    of which the standard deviation is 0.2."""
    rng = np.random.default_rng(seed)
    base = discs(count, 4, size=32, seed=seed, split=split)
    words = np.where(np.arange(count) % 2, "DCM", "healthy").astype(object)
    masks = np.full(base.masks.shape, LABELS["Myo"], np.uint8)
    masks[:, :, :4] = LABELS["RV"]
    for k in range(count):
        side = int(round(np.exp(0.5 * (4.8 + shift * (words[k] == "DCM") + 0.2 * rng.standard_normal()))))
        masks[4 * k:4 * k + 4, :side, 4:4 + side] = LABELS["LV"]
    images = (masks[:, None] / 3).astype(np.float32)
    return Slices(images, masks, base.table.assign(disease=np.repeat(words, 4), phase="ED",
                                                             index=np.tile(range(4), count), slice_mm=10.0, spacing=2.0))


def segment(images: np.ndarray) -> np.ndarray:
    return np.rint(3 * images[:, 0]).astype(np.uint8)


@pytest.fixture(scope="module")
def reader():
    return train_volume_reader(hearts(200, 0, "train"))


def test_volumes_are_sums_of_discs() -> None:
    some = hearts(2, 1, "test")
    found = heart_volumes(some.masks, some.table).set_index("patient")
    for patient in found.index:
        pixels = (some.masks[some.patients == patient] == LABELS["LV"]).sum()
        assert found.loc[patient, "LV"] == pytest.approx(pixels * 2.0**2 * 10.0 / 1000)
    twice = some.take(np.concatenate([np.arange(len(some))] * 2))
    assert len(heart_volumes(twice.masks, twice.table)) == 4, "two samples of a heart are two hearts"


def test_accuracy_of_two_lognormal_sizes_is_the_closed_form(reader) -> None:
    # Two normal variables 0.7 / 0.2 = 3.5 standard deviations apart, cut in the middle: Φ(1.75) = 0.960. Of 300 hearts the
    # standard error is 0.011; areas are squares of whole pixels.
    row = volume_accuracy(hearts(300, 2, "test"), hearts(300, 3, "test"), reader, segment, resamples=50)
    assert row["value"] == pytest.approx(0.960, abs=0.035) and row["ceiling"] == pytest.approx(0.960, abs=0.035)
    assert row["floor"] == 0.5 and row["n"] == 300 and row["low"] <= row["value"] <= row["high"]
    alike = volume_accuracy(hearts(300, 2, "test"), hearts(300, 4, "test", shift=0.0), reader, segment, resamples=50)
    assert alike["value"] == pytest.approx(0.5, abs=0.08)


def test_difference_is_paired_and_knows_its_conditions(reader) -> None:
    told, untold = hearts(60, 5, "test"), hearts(60, 5, "test", shift=0.0)
    score = volume_accuracy_difference(told, untold, reader, segment, resamples=100)
    single = [volume_accuracy(told, some, reader, segment, resamples=2)["value"] for some in (told, untold)]
    assert score.value == pytest.approx(single[0] - single[1]) and score.low > 0
    with pytest.raises(DataError, match="different conditions"):
        volume_accuracy_difference(told, told.with_columns(disease="DCM"), reader, segment)


def test_readers_learn_from_training_patients_of_several_diseases(reader) -> None:
    with pytest.raises(SplitError):
        train_volume_reader(hearts(4, 0, "test"))
    with pytest.raises(DataError, match="DCM"):
        train_volume_reader(hearts(4, 0, "train").with_columns(disease="DCM"))
    with pytest.raises(SplitError, match="learnt from"):
        volume_accuracy(hearts(200, 0, "train"), hearts(4, 1, "test"), reader, segment)
