"""What measures a published cohort is published with it: whoever draws the cohort again measures with the same networks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from cohort.layout_writers import random_case
from conftest import discs
from systems.test_conditional import quick

from cmri_lib.cohort.slices import concatenate
from cmri_lib.config.study import Study, open_study
from cmri_lib.experiments import instruments
from cmri_lib.experiments.plan import measuring_networks
from cmri_lib.experiments.privacy_audit import PrivacyAudit
from cmri_lib.experiments.published import publish

SLICES = concatenate([discs(8, 2), discs(2, 2, seed=3, split="validation"), discs(3, 2, seed=4, split="holdout"),
                      discs(3, 2, seed=5, split="test")]).with_columns(vendor="GE", disease="NOR")


def answers(study: Study) -> list[np.ndarray]:
    """What both segmenters, the study's features and the copy detector make of some slices."""
    spaces = instruments.feature_spaces(study, SLICES)[0], PrivacyAudit(study, SLICES).spaces[1]
    return [instruments.segmenter(study, SLICES)(SLICES.images), instruments.second_segmenter(study, SLICES)(SLICES.images),
            *(space(SLICES.images) for space in spaces)]


def clone_of(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """The same study where nothing but the published trainings is, and nothing can be trained."""
    clone = quick(open_study("smoke", "phantom"), tmp_path / "clone")
    shutil.copytree(study.root / "trainings", clone.root / "trainings")
    monkeypatch.setattr("cmri_lib.training.loop.Training.go", lambda self: pytest.fail("trained again"))
    return clone


def test_published_instruments_are_loaded_in_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = quick(open_study("smoke", "phantom"), tmp_path / "first")
    before = answers(study)
    shipped, _ = publish(study, measuring_networks(study))
    assert {place.name for place in shipped} == {"segmenter", "second_segmenter", "features", "copy_detector"}
    assert {place.name for place in measuring_networks(study)} - {place.name for place in shipped} == {"detector"}
    clone = clone_of(study, tmp_path, monkeypatch)
    assert all(np.array_equal(one, other) for one, other in zip(before, answers(clone), strict=True))


def test_a_published_detector_finds_the_same_hearts_in_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, case = quick(open_study("smoke", "phantom"), tmp_path / "first"), random_case()
    found = instruments.detector(study, [case]).find(case)
    publish(study, measuring_networks(study))
    clone = clone_of(study, tmp_path, monkeypatch)
    assert instruments.detector(clone, [case]).find(case) == found
