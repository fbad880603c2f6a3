"""The detector: trained for seconds on bright rings in noise, then held to what the study needs of it."""

from __future__ import annotations

import copy
import dataclasses
import gc

import numpy as np
import pytest

from cmri_lib.cohort.case import Case, Volume
from cmri_lib.cohort.preprocessing.heart_detector import SURE, VIEW_SIZE, Detector, HeartNet, train_detector
from cmri_lib.cohort.preprocessing.pipeline import PreprocessSettings, crop_report, crop_window, preprocess
from cmri_lib.cohort.preprocessing.resample import middle
from cmri_lib.errors import DataError, SplitError
from cmri_lib.training import TrainSettings

TRAINING = TrainSettings(steps=60, batch=8, learning_rate=3.0e-3, ema=0.98, weight_decay=1.0e-4)


def scan(seed: int, shape: tuple[int, int] = (110, 130), spacing: tuple[float, float] = (2.4, 2.2),
         shift: tuple[int, int] = (0, 0), gain: float = 1.0) -> Case:
    """A ring of 35 mm in noise with a few smaller bright discs around it, `shift` (row, column) pixels off centre."""
    rng = np.random.default_rng(seed)
    centre = (np.array(shape) - 1) / 2 + rng.uniform(-6, 6, 2)
    image, mask = rng.normal(100, 15, (2, 5, *shape)), np.zeros((2, 5, *shape), np.uint8)
    r, c = (np.arange(n)[:, None] * s for n, s in zip(shape, spacing, strict=True))
    for angle in rng.uniform(0, 2 * np.pi, 3):
        off = centre * spacing + 85 * np.array([np.cos(angle), np.sin(angle)])
        image[..., np.hypot(r - off[0], c.T - off[1]) < 10] += 250
    radius = np.hypot(r - centre[0] * spacing[0], c.T - centre[1] * spacing[1])
    for value, inside in ((2, radius < 35), (1, radius < 22)):
        mask[..., inside] = value
    image = np.roll(image + 150 * (mask > 0) + 150 * (mask == 1), shift, axis=(-2, -1)).astype(np.float32) * gain
    mask = np.roll(mask, shift, axis=(-2, -1))
    return Case(f"p{seed}", f"p{seed}", {phase: Volume(image[i], mask[i]) for i, phase in enumerate(("ED", "ES"))},
                (8.0, *spacing), np.eye(4), dataset="toy")


def without_truth(case: Case) -> Case:
    """The same images with the masks replaced by a block in a corner."""
    corner = np.zeros_like(case.volumes["ED"].mask)
    corner[:, :5, :5] = 3
    return dataclasses.replace(case, volumes={p: Volume(v.image, corner) for p, v in case.volumes.items()})


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    trained = train_detector([scan(seed) for seed in range(12)], tmp_path_factory.mktemp("detector"), TRAINING)
    trained.sure = 0.0  # seconds of training suffice to find the ring, not to darken the rest of the map
    return trained


def test_finds_the_heart_of_unseen_scans(detector):
    report = crop_report([scan(seed) for seed in range(100, 108)], PreprocessSettings(field_of_view=120.0), detector)
    assert report["error_mm"].max() < 12 and (report["lost"] == 0).all()


def test_finds_it_at_another_spacing_shape_and_gain(detector):
    others = [scan(101, shape=(90, 150), spacing=(3.0, 1.6), gain=0.01),
              scan(102, shape=(200, 180), spacing=(1.3, 1.4))]
    assert crop_report(others, PreprocessSettings(field_of_view=120.0), detector)["error_mm"].max() < 15


def test_never_reads_a_mask(detector):
    case = scan(103)
    assert detector.centre(case) == detector.centre(without_truth(case))
    settings, split = PreprocessSettings(jobs=1), {"p103": "test"}
    true = preprocess([case], settings, split=split, detector=detector)
    seen = preprocess([without_truth(case)], dataclasses.replace(settings, field_of_view=400.0), split=split,
                      detector=detector)
    assert len(true) == len(seen) == 10 and (seen.masks[:, 32, 32] == 0).all() and (true.masks[:, 32, 32] > 0).all()


@pytest.mark.parametrize("shift", [(12, -10), (-9, 14)])
def test_moving_the_heart_moves_the_crop(detector, shift):
    here, there = np.array(detector.centre(scan(104))), np.array(detector.centre(scan(104, shift=shift)))
    assert np.abs(there - here - shift).max() <= 3


def test_jobs_do_not_change_a_bit(detector):
    cases = [scan(seed) for seed in range(105, 109)]
    one, two = (preprocess(cases, PreprocessSettings(jobs=jobs), split={c.patient: "test" for c in cases},
                           detector=copy.copy(detector)) for jobs in (1, 2))
    assert (one.images == two.images).all() and (one.masks == two.masks).all()


def test_training_again_loads_the_same_weights(detector, tmp_path):
    cases = [scan(seed) for seed in range(2)]
    short = dataclasses.replace(TRAINING, steps=2)
    first, again = train_detector(cases, tmp_path, short), train_detector(cases, tmp_path, short)
    assert all((a == b).all() for a, b in zip(first.network.parameters(), again.network.parameters(), strict=True))
    assert first.patients == ("p0", "p1")


def test_a_detector_that_saw_a_test_patient_is_refused(detector):
    with pytest.raises(SplitError, match="detector learnt"):
        preprocess([scan(0)], PreprocessSettings(), split={"p0": "test"}, detector=detector)


def test_no_scan_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no scan"):
        train_detector([], tmp_path, TRAINING)


class Seeing(Detector):
    """A detector with a given map."""

    def __init__(self, share: np.ndarray):
        super().__init__(HeartNet(), ())
        self.share, self.looks = share, 0

    def heart_map(self, case: Case) -> np.ndarray:
        self.looks += 1
        return self.share


def blobs(*places: tuple[int, int, float]) -> np.ndarray:
    """A map of squares of 4 × 4 pixels: row, column, probability."""
    share = np.zeros((VIEW_SIZE, VIEW_SIZE))
    for row, column, value in places:
        share[row:row + 4, column:column + 4] = value
    return share


@pytest.mark.parametrize(("places", "confidence"), [
    ([(10, 40, 0.9)], 0.9), ([(10, 40, 0.2)], 0.2), ([(10, 40, 0.9), (40, 10, 0.3)], 0.9 * 0.75),
    ([(10, 40, 0.8), (40, 10, 0.6), (40, 40, 0.6)], 0.8 * 0.4)])
def test_confidence_is_the_peak_times_the_share_of_the_map_that_is_the_answer(places, confidence):
    case, detector = scan(1), Seeing(blobs(*places))
    found = detector.find(case)
    assert found.confidence == pytest.approx(confidence)
    # The middle of the block lies at view pixel (11.5, 41.5), of 6 mm, about the middle of the stored image.
    expected = [m + (p - 31.5) * 6 / s for m, p, s in zip(middle((110, 130)), (11.5, 41.5), (2.4, 2.2), strict=True)]
    assert found.centre == pytest.approx(expected, abs=0.5)
    assert detector.centre(case) == (found.centre if confidence >= SURE else middle((110, 130)))


def test_a_detector_that_is_not_sure_leaves_the_crop_in_the_middle_and_the_report_says_so():
    case, sure, lost = scan(1), Seeing(blobs((30, 30, 0.9))), Seeing(0.2 + blobs((2, 2, 0.5)))
    settings = PreprocessSettings(field_of_view=120.0)
    rows = [crop_report([case], settings, detector).iloc[0] for detector in (sure, lost)]
    assert [row["placed_by"] for row in rows] == ["detector", "centre"]
    assert rows[0]["confidence"] == pytest.approx(0.9) and rows[1]["confidence"] < SURE
    assert crop_window(case, settings, lost) == crop_window(case, dataclasses.replace(settings, crop="centre"))
    plain = crop_report([case], dataclasses.replace(settings, crop="centre")).iloc[0]
    assert plain["placed_by"] == "centre" and np.isnan(plain["confidence"])


def test_a_scan_is_looked_at_once_by_each_copy_and_forgotten_with_it():
    detector, case = Seeing(blobs((30, 30, 0.9))), scan(1)
    other = dataclasses.replace(case)  # equal in all it holds, but another scan
    assert [detector.find(one) for one in (case, case, other)] == [detector.find(case)] * 3 and detector.looks == 2
    assert copy.copy(detector).find(case) == detector.find(case) and len(detector._found) == 2
    del other
    gc.collect()
    assert len(detector._found) == 1
    fresh = copy.copy(detector)
    assert not fresh._found and fresh.patients == detector.patients and fresh.sure == detector.sure
