"""Translation between vendors: pairs that lie on each other, nulls that do what their name says, and patients scanned again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import discs

from cmri_lib.cohort.case import Case, Volume
from cmri_lib.cohort.paired_scans import translated, vendor_pairs
from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.config.study import Study, open_study
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.experiments import plan
from cmri_lib.experiments import vendor_pairs as again
from cmri_lib.experiments.translation import Truth, histogram_matched, of_another_patient, recognised
from cmri_lib.phantom.cohort import SEED, virtual_patient
from cmri_lib.systems.system import Run
from cmri_lib.systems.translation import ACROSS_VENDORS, CONTRACTION
from cmri_lib.systems.vendors import WAY_FLOW

OPTIONS = {"seed": 0, "resamples": 30}


def scanned_twice(patients: int = 4, split: str = "test") -> Slices:
    """Discs by A, and by B as bright as a curve says, two pixels down and one to the left."""
    first = discs(patients, 4, split=split)
    first = first.with_columns(vendor="A", scan=first.table["patient"] + "A", height=np.arange(len(first)) % 4 / 3)
    bent = 2 * ((first.images + 1) / 2)**1.6 - 1
    second = Slices(translated(bent, (2, -1)), translated(first.masks, (2, -1)), first.table.assign(
        vendor="B", scan=first.table["patient"] + "B"))
    return concatenate([first, second])


def test_pairs_are_one_anatomy_laid_onto_the_target() -> None:
    both = scanned_twice()
    pairs = vendor_pairs(both.take(np.random.default_rng(0).permutation(len(both))), "A", "B")
    assert set(pairs.table["vendor"]) == {"B"} and len(pairs) == len(both) // 2
    inside = np.s_[..., 4:-4, 4:-4]
    np.testing.assert_allclose(pairs.images[inside], (2 * ((pairs.partners + 1) / 2)**1.6 - 1)[inside], atol=1e-5)
    back = vendor_pairs(both, "B", "A")
    assert set(back.table["vendor"]) == {"A"}
    with pytest.raises(DataError, match="several vendors"):
        vendor_pairs(both, "A", "C")


def test_matched_histograms_undo_a_curve_of_grey_values_and_nothing_else() -> None:
    pairs = vendor_pairs(scanned_twice(), "A", "B")
    matched = histogram_matched(pairs, pairs)
    before, after = (float(np.abs(images - pairs.images).mean()) for images in (pairs.partners, matched.images))
    assert after < 0.25 * before and matched.images.min() >= -1 and matched.images.max() <= 1
    order = np.argsort(pairs.partners[:4].ravel(), kind="stable")  # one scan: what was brighter stays so
    assert (np.diff(matched.images[:4].ravel()[order]) >= -1e-4).all()
    same = histogram_matched(replace(pairs, partners=pairs.images), pairs.take(pairs.patients == pairs.patients[0]))
    own = pairs.patients == pairs.patients[0]
    np.testing.assert_allclose(same.images[own], pairs.images[own], atol=0.03)
    with pytest.raises(DataError, match="no image"):
        histogram_matched(pairs, pairs.take([]))


def test_another_patient_is_another_one_at_the_same_phase_and_height() -> None:
    pairs = vendor_pairs(scanned_twice(), "A", "B")
    other = of_another_patient(pairs)
    number = {image.tobytes(): row for row, image in enumerate(pairs.images)}
    rows = np.array([number[image.tobytes()] for image in other.images])
    assert (pairs.patients[rows] != pairs.patients).all() and other.table.equals(pairs.table)
    for column in ("phase", "height"):
        assert (pairs.table[column].to_numpy()[rows] == pairs.table[column].to_numpy()).all()
    with pytest.raises(DataError, match="no other patient"):
        of_another_patient(pairs.take(pairs.patients == pairs.patients[0]))


def test_a_translation_is_taken_for_the_vendor_whose_it_looks() -> None:
    pairs = vendor_pairs(scanned_twice(), "A", "B")

    class Reader:
        """Knows B by the brightness of the true scans."""

        words = ("A", "B", "C")

        def __call__(self, images: np.ndarray, among: tuple[str, ...]) -> np.ndarray:
            true = {image.tobytes() for image in pairs.images}
            return np.array(["B" if image.tobytes() in true else "A" for image in images], object)

    truth = Truth(pairs, lambda images: np.zeros(images[:, 0].shape, np.uint8), OPTIONS)
    half = replace(pairs, images=np.where(np.arange(len(pairs))[:, None, None, None] % 2 == 0, pairs.images, pairs.partners))
    for made, share in ((pairs, 1.0), (truth.copied, 0.0), (half, 0.5)):
        row = recognised(truth, made, Reader())
        assert (row["value"], row["ceiling"]) == (share, 1.0) and row["floor"] == pytest.approx(1 / 3)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    params = open_study("smoke", "phantom").params
    asked = replace(params.translation, vendors=replace(params.translation.vendors, train=2, validation=1))
    return Study(tmp_path, replace(params, workers=1, translation=asked, preprocess=replace(params.preprocess, crop="centre")))


@pytest.fixture(scope="module")
def cohort() -> Slices:
    """Three training patients, two others, and a test patient, with the names and the ages of the phantom's."""
    some, numbers = [], {"train": (1, 2, 3), "validation": (4, 5), "test": (121,)}
    for split, whose in numbers.items():
        part = discs(len(whose), 4, split=split)
        number = np.repeat(whose, 4)
        some.append(part.with_columns(patient=[f"P{n:03d}" for n in number], age=[
            float(virtual_patient(SEED, int(n)).person.age) for n in number]))
    return concatenate(some)


def test_training_patients_are_scanned_again_and_kept(study: Study, cohort: Slices, monkeypatch: pytest.MonkeyPatch) -> None:
    scans: list[tuple[int, str]] = []

    def scan(number: int, key: str) -> Case:
        scans.append((number, key))
        y, x = np.mgrid[:64, :60]
        mask = np.zeros((4, 64, 60), np.uint8)
        mask[:, np.hypot(y - 31, x - 29) < 14], mask[:, np.hypot(y - 31, x - 29) < 8] = 2, 1
        image = (np.array([20.0, 300.0, 90.0])[mask] + np.random.default_rng(ord(key)).random(mask.shape)).astype(np.float32)
        volumes = {"ED": Volume(image, mask), "ES": Volume(0.9 * image, mask)}
        return Case(f"P{number:03d}", f"P{number:03d}{key}", volumes, (10.0, 3.0, 3.0), np.eye(4), vendor=f"Phantom {key}")

    monkeypatch.setattr(again, "_scan", scan)
    pairs = again.training_pairs(study, cohort)
    assert len(scans) == 6 and {key for _, key in scans} == {"A", "C"}
    whose = pairs.table.groupby("split")["patient"].nunique().to_dict()
    assert whose == {"train": 2, "validation": 1} and set(pairs.table["vendor"]) == {"Phantom C"}
    assert pairs.partners is not None and not set(pairs.patients) & set(cohort.where(split="test").patients)
    assert np.array_equal(again.training_pairs(study, cohort).images, pairs.images) and len(scans) == 6, "scanned again"
    given = {}
    monkeypatch.setattr(plan, "train_or_load_any", lambda study, run, slices: given.update({run.id: slices}))
    monkeypatch.setattr(plan, "slices_of_run", lambda study, run, slices: "preprocessed anew")
    for system in (*ACROSS_VENDORS.values(), CONTRACTION["C17 Pix2Pix"], WAY_FLOW):
        plan.train_planned(study, Run(replace(system)), cohort)  # a copy, as a run has that went to another process
    assert given.pop("C17 Pix2Pix") is cohort and given.pop(WAY_FLOW.id) == "preprocessed anew"
    assert len(given) == 4 and all(len(some) == len(pairs) and some.partners is not None for some in given.values())


def test_whoever_cannot_be_scanned_again_is_refused(study: Study, cohort: Slices) -> None:
    real = replace(study, params=replace(study.params, dataset="acdc"))
    with pytest.raises(DataError, match="cannot be scanned again"):
        again.training_pairs(real, cohort)
    with pytest.raises(DataError, match="not those of the phantom"):
        again.training_pairs(study, cohort.with_columns(age=cohort.table["age"] + 1))
    with pytest.raises(DataError, match="no patients to scan"):
        again.training_pairs(study, cohort.where(split="test"))
    with pytest.raises(ParameterError, match="both source and target"):
        replace(study.params.translation.vendors, source="C")
