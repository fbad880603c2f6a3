"""Ways to preprocess: one thing differs, the test stays whole, and nothing is learnt from whom the group does not hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import discs

from cmri_lib.cohort.case import Case, Volume
from cmri_lib.cohort.preprocessing.pipeline import preprocess
from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.config.study import Study, open_study
from cmri_lib.errors import ParameterError
from cmri_lib.experiments import preprocessing_ways as ways
from cmri_lib.experiments.arms import Group
from cmri_lib.experiments.vendor_arms import with_own_training


@pytest.fixture
def study(tmp_path: Path) -> Study:
    params = open_study("smoke", "phantom").params
    own = replace(params.cross_vendor, training=replace(params.cross_vendor.training, steps=2, log_every=1, batch=4),
                  ways=tuple(ways.WAYS))
    cropped = replace(params.preprocess, crop="centre")
    return with_own_training(Study(tmp_path, replace(params, cross_vendor=own, preprocess=cropped)))


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """Eight scans of two structures on noise, each with a gain of its own."""
    y, x = np.mgrid[:64, :60]
    mask = np.zeros((4, 64, 60), np.uint8)
    mask[1:, np.hypot(y - 31, x - 29) < 14], mask[1:, np.hypot(y - 31, x - 29) < 8] = 2, 1
    found = []
    for k in range(8):
        image = ((1 + k) * np.array([20.0, 300.0, 90.0])[mask] + np.random.default_rng(k).random(mask.shape)).astype(np.float32)
        volumes = {"ED": Volume(image, mask), "ES": Volume(0.9 * image, mask)}
        found.append(Case(f"p{k}", f"p{k}", volumes, (10.0, 3.0, 3.0), np.eye(4), vendor="AB"[k % 2]))
    return found


@pytest.fixture(scope="module")
def cohort() -> Slices:
    return concatenate([discs(4, 6, seed=k, split=split) for k, split in enumerate(("train", "validation", "test"))])


def test_ways_that_are_the_study_s_own_are_left_out(study: Study, cohort: Slices) -> None:
    names = [way.name for way in ways.ways(study, cohort)]
    assert ("min–max" not in names and "crop around the centre" not in names
            and {ways.ONE_SCALE, ways.NO_CROP, ways.ED} <= set(names))
    one_phase = cohort.where(phase="ED")
    assert not {ways.ED, ways.ES, ways.HALF} & {way.name for way in ways.ways(study, one_phase)}
    assert not {ways.MID, ways.THIRD} & {way.name for way in ways.ways(study, cohort.where(level="mid"))}
    with pytest.raises(ParameterError, match="unknown way 'N4'"):
        ways.way("N4")


@pytest.mark.parametrize(("name", "partner", "column", "value"), [
    (ways.ED, ways.HALF, "phase", "ED"), (ways.MID, ways.THIRD, "level", "mid")])
def test_what_is_left_out_of_the_training_stays_in_the_test(study: Study, cohort: Slices, name: str, partner: str, column: str,
                                                            value: str) -> None:
    group = Group("half", tuple(sorted(set(cohort.where(split="train").patients))[:2]))
    made = {which: ways.Preprocessor(study, cohort, group).slices(ways.way(which)) for which in (name, partner)}
    for some in made.values():
        assert some.where(split="test").table.equals(cohort.where(split="test").table)
        assert set(some.where(split="train").patients) <= set(group.patients)
        assert not len(some.where(split="validation"))
    only, mixed = (some.where(split="train") for some in made.values())
    assert set(only.table[column]) == {value} and len(set(mixed.table[column])) > 1
    assert len(only) == len(mixed) and len(only) == len(cohort.where(split="train", patient=group.patients, **{column: value}))


def test_one_scale_is_one_line_learnt_on_training_slices() -> None:
    rng = np.random.default_rng(0)
    both = concatenate([discs(3, 4, split="train"), discs(3, 4, seed=1, split="test")])
    raw = (100 * rng.random((len(both), 1, 32, 32))).astype(np.float32)
    made = ways.one_scale(Slices(raw, both.masks, both.table))
    low, high = np.percentile(raw[(both.table["split"] == "train").to_numpy()], ways.SCALE)
    assert np.allclose(made.images, np.clip(2 * (raw - low) / (high - low) - 1, -1, 1), atol=1e-5)
    louder = raw * np.where(both.table["split"] == "test", 2.0, 1.0)[:, None, None, None].astype(np.float32)
    again = ways.one_scale(Slices(louder, both.masks, both.table))
    assert np.array_equal(again.where(split="train").images, made.where(split="train").images), "test images move no scale"
    assert again.where(split="test").images.mean() > made.where(split="test").images.mean(), "a gain of the scanner stays"
    flat = ways.one_scale(Slices(np.ones_like(raw), both.masks, both.table))
    assert np.isfinite(flat.images).all()


def test_scans_are_read_once_and_by_whom_they_concern(study: Study, cases, monkeypatch: pytest.MonkeyPatch) -> None:
    split = dict(zip([case.patient for case in cases],
                     ("train", "test", "train", "holdout", "train", "test", "validation", "test")))
    cohort = preprocess(cases, replace(study.params.preprocess, jobs=1), split=split)
    group = Group("some", tuple(sorted(p for p, s in split.items() if s == "train")[:2]))
    asked: list[set[str]] = []

    def read(folder: Path, *, on_bad_case: str, patients: set[str]) -> object:
        asked.append(patients)
        return type("Read", (), {"cases": [case for case in cases if case.patient in patients]})

    monkeypatch.setattr(ways, "read_dataset", read)
    prepared = ways.Preprocessor(study, cohort, group)
    made = {name: prepared.slices(ways.way(name))
            for name in (ways.ONE_SCALE, "z-score", ways.NO_CROP, "Nyúl's standard scale")}
    test = cohort.where(split="test")
    assert asked == [{*group.patients, *test.patients}]
    for name, some in made.items():
        assert (set(some.where(split="train").patients) == set(group.patients)
                and some.images.min() >= -1 and some.images.max() <= 1)
        if name != ways.NO_CROP:
            assert np.array_equal(some.where(split="test").masks, test.masks)
            assert not np.allclose(some.where(split="test").images, test.images)
    found = ways.train_ways(study, {"z-score": made["z-score"]}, group, [1, 2])
    assert [student.seed for student in found["z-score"]] == [1, 2] and found["z-score"][0].patients == set(group.patients)
    assert found["z-score"][0].id == "some, z-score: real"


def test_a_covariate_is_read_in_any_spelling_and_missing_ones_are_none(study: Study, cohort: Slices, cases: list[Case]) -> None:
    told = [replace(cases[0], covariates={"Field": 1.5}), replace(cases[1], covariates={"FIELD": ""}), cases[2]]
    prepared = ways.Preprocessor(study, cohort, Group("all", ()))
    prepared._read = told, None
    assert prepared.covariate("field") == {"p0": 1.5} and prepared.covariate("scanner") == {}
