"""Students of a notebook: who learns from what, where their weights lie, and what they are compared with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import discs
from systems.test_conditional import quick

from cmri_lib.config.study import open_study
from cmri_lib.errors import SplitError
from cmri_lib.experiments.students import Students
from cmri_lib.measures.utility.baselines import NothingLabelled
from cmri_lib.training import TrainSettings

LEARN, TEST = discs(6, 2, seed=3), discs(3, 2, seed=5, split="test")


@pytest.fixture
def students(tmp_path: Path) -> Students:
    study = quick(open_study("smoke", "phantom"), tmp_path)
    short = replace(study.params.utility, training=TrainSettings(steps=2, batch=4))
    study = replace(study, params=replace(study.params, utility=short))
    return Students(study, "translation", LEARN, TEST, "from noise")


def test_a_student_is_scored_beside_one_of_real_slices(students: Students) -> None:
    samples = replace(LEARN, images=-LEARN.images).with_columns(source="U10 FM")
    student = students.taught("U10 FM", samples)
    rows = {row["metric"]: row for row in students.rows("U10 FM", student)}
    ceiling = {row["metric"]: row["value"] for row in students.rows("real slices", students.ceiling)}
    assert set(rows) == {"downstream_dice", "downstream_hd95_mm", "downstream_missed"}
    assert all(rows[name]["system"] == "U10 FM" and rows[name]["n"] == 3 for name in rows)
    assert rows["downstream_dice"]["ceiling"] == pytest.approx(ceiling["downstream_dice"])
    assert students.difference(student, student).value == 0
    assert students.difference(student, students.ceiling).value == pytest.approx(
        rows["downstream_dice"]["value"] - ceiling["downstream_dice"])


def test_weights_lie_with_their_task_and_are_loaded_again(students: Students, monkeypatch: pytest.MonkeyPatch) -> None:
    first = students.taught("a student", LEARN)(TEST.images)
    folder = students.study.work("translation") / "students" / "from-noise" / "a-student"
    assert (folder / "weights.safetensors").exists()
    monkeypatch.setattr("cmri_lib.training.loop.Training.go", lambda self: pytest.fail("trained again"))
    assert np.array_equal(students.taught("a student", LEARN)(TEST.images), first)


def test_masks_of_test_patients_and_no_masks_at_all_are_refused(students: Students) -> None:
    with pytest.raises(SplitError, match="test"):
        students.taught("a student", TEST)
    with pytest.raises(NothingLabelled):
        students.taught("a student", replace(LEARN, masks=np.zeros_like(LEARN.masks)))
