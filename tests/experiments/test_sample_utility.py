"""What samples teach: as much as the real slices that they are, less where their masks lie elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import split_cohort

from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study, open_study
from cmri_lib.errors import DataError
from cmri_lib.experiments.banks import sampling_conditions
from cmri_lib.experiments.evaluator import Evaluator
from cmri_lib.experiments.own_generator import Brought, judge
from cmri_lib.experiments.sample_report import write_report
from cmri_lib.experiments.sample_utility import DIFFERENCE, teach
from cmri_lib.measures.fidelity.distances import distances
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures

OURS, COUNT = Brought("mine", "mask"), 16


@pytest.fixture(scope="module")
def cohort() -> Slices:
    return split_cohort(train=6, validation=4, test=4, holdout=4)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    params = open_study("smoke", "phantom").params
    student = replace(params.conditional.student, steps=40)
    return Study(tmp_path, replace(params, conditional=replace(params.conditional, student=student)))


def own(slices: Slices, masks: np.ndarray | None = None) -> Slices:
    """The slices as somebody's samples."""
    names = [f"sample {i}" for i in range(len(slices))]
    return Slices.from_arrays(slices.images, slices.masks if masks is None else masks, names, value_range=(-1, 1),
                              spacing=3.0, slice_mm=10.0)


def taught(study: Study, cohort: Slices, samples: Slices):
    return teach(study, OURS, samples, cohort.where(split="train"), cohort.where(split="test"))


def test_samples_that_are_the_real_slices_teach_exactly_as_much(study: Study, cohort: Slices) -> None:
    """The same images in the same order, under the same seed: two trainings of one network."""
    real = sampling_conditions(cohort, COUNT, study.seed, split="train").take(np.arange(COUNT))
    found = taught(study, cohort, own(real))
    assert (found.slices, found.patients) == (COUNT, 4)
    assert (found.difference.value, found.difference.low, found.difference.high) == (0, 0, 0)
    score = next(row for row in found.rows if row["metric"] == "downstream_dice")
    assert score["value"] == pytest.approx(score["ceiling"]) and score["value"] > 0.3


def test_masks_beside_their_hearts_teach_less(study: Study, cohort: Slices) -> None:
    some = cohort.where(split="train").take(np.arange(COUNT))
    found = taught(study, cohort, own(some, np.roll(some.masks, some.size // 2, axis=2)))
    assert found.difference.high < 0


@pytest.mark.parametrize("change, message", [
    (lambda made, cohort: replace(made, masks=np.zeros_like(made.masks)), "(?s)utility.*no masks.*--utility"),
    (lambda made, cohort: own(cohort.where(split="test")), f"(?s)utility.*{COUNT} of {COUNT} masks are those of test patients"),
])
def test_what_cannot_teach_is_refused_before_anything_is_measured(study: Study, cohort: Slices, change, message: str,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Evaluator, "rows", lambda *of: pytest.fail("measured first"))
    with pytest.raises(DataError, match=message):
        judge(study, cohort, change(own(cohort.where(split="train")), cohort), "mine", utility=True)


def test_masks_that_training_patients_have_as_well_are_nobodys_secret(study: Study, cohort: Slices) -> None:
    shared = cohort.where(split="test").masks
    masks = cohort.masks.copy()
    masks[:len(shared)] = shared  # the first slices are of training patients
    assert taught(study, replace(cohort, masks=masks), own(cohort.where(split="test"))).slices == len(shared)


def test_a_cohort_without_labels_cannot_be_asked(study: Study, cohort: Slices) -> None:
    with pytest.raises(DataError, match="(?s)utility.*nobody has labelled this cohort's training patients"):
        taught(study, replace(cohort, masks=np.zeros_like(cohort.masks)), own(cohort.where(split="train")))


def test_the_report_tells_of_it_in_every_form(study: Study, cohort: Slices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                              ) -> None:
    monkeypatch.setattr(Evaluator, "spaces", [space := ClassicalFeatures()])
    for name in ("segmenter", "second_segmenter"):
        monkeypatch.setattr(Evaluator, name, staticmethod(lambda images: np.zeros(images[:, 0].shape, np.uint8)))
    found = judge(study, cohort, own(cohort.where(split="train")), "mine", measures=[distances(space)], utility=True)
    page = write_report(study, found, tmp_path / "report")
    for text in (page.read_text(), (tmp_path / "report" / "report.md").read_text()):
        assert "What do they teach?" in text and "24 samples and their masks alone" in text and "by as many real slices" in text
    facts = json.loads((tmp_path / "report" / "report.json").read_text())["utility"]
    table = pd.read_csv(tmp_path / "report" / "scores.csv").set_index("metric")["value"]
    assert table[DIFFERENCE] == pytest.approx(facts["difference"]["value"], rel=1e-5, abs=1e-9)
    assert {"downstream_dice", "downstream_missed", "downstream_hd95_mm"} <= set(table.index)
