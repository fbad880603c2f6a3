"""Simulated scans beside real ones: who is in which training set, and that no real patient slips in who may not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import discs

from cmri_lib.cohort.data_sets import PHANTOM
from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.config.study import Study, open_study
from cmri_lib.errors import DataError, SplitError
from cmri_lib.experiments.simulation import (APPEARANCE, BOTH, REAL, RESTYLED, SCANS, TrainingSet, lacks, simulated_scans,
                                             sizes, train_students, training_sets)
from cmri_lib.experiments.utility import dice_tables
from cmri_lib.experiments.vendor_arms import with_own_training
from cmri_lib.measures.utility.volumetric import mean_dice


def of_cohort(some: Slices, name: str) -> Slices:
    """The same slices as patients of another cohort."""
    return some.with_columns(patient=[f"{name} {p}" for p in some.patients], scan=[f"{name} {s}" for s in some.table["scan"]],
                             dataset=name)


@pytest.fixture(scope="module")
def real() -> Slices:
    parts = [discs(count, 4, seed=k, split=split) for k, (split, count) in enumerate(
        {"train": 6, "validation": 2, "test": 4, "holdout": 2}.items())]
    return of_cohort(concatenate(parts), "hospital")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study of a real cohort, beside a simulated one of which notebook 01 has saved eight patients."""
    params = open_study("smoke", "phantom").params
    own = replace(params.cross_vendor, training=replace(params.cross_vendor.training, steps=30, log_every=10, batch=8))
    flow = replace(params.flow, training=replace(params.flow.training, steps=3, batch=4))
    found = with_own_training(Study(tmp_path, replace(params, dataset="hospital", cross_vendor=own, flow=flow)))
    scans = of_cohort(concatenate([discs(6, 4, seed=7), discs(2, 4, seed=8, split="test")]), "phantom")
    scans.save(tmp_path / "work" / "phantom" / "smoke" / "slices")
    return found


def test_the_sets_hold_who_they_say(study: Study, real: Slices) -> None:
    sets = {one.name: one for one in training_sets(study, real)}
    assert list(sets) == [REAL, SCANS, RESTYLED, BOTH[SCANS], BOTH[RESTYLED]]
    patients = set(real.where(split="train").patients)
    simulated = {f"phantom {p}" for p in discs(6, 4, seed=7).patients}
    assert set(sets[REAL].slices.patients) == patients and set(sets[SCANS].slices.patients) == simulated
    assert set(sets[BOTH[SCANS]].slices.patients) == patients | simulated
    # The generator of the appearance has learnt from real patients: they have left a trace where none of their slices is.
    assert set(sets[RESTYLED].slices.patients) == simulated and sets[RESTYLED].seen == patients | simulated
    assert set(sets[RESTYLED].slices.table["source"]) == {APPEARANCE} and sets[RESTYLED].family == "flow"
    masks = simulated_scans(study, real).masks
    assert np.array_equal(sets[RESTYLED].slices.masks, masks[masks.any(axis=(1, 2))])
    counts = sizes(list(sets.values()))
    assert counts[SCANS]["of them samples"] == 0
    assert counts[BOTH[RESTYLED]]["of them samples"] == counts[RESTYLED]["slices"]


def test_a_student_of_simulated_hearts_finds_real_ones_that_look_the_same(study: Study, real: Slices) -> None:
    """Both cohorts are the same discs, so students of either agree; one of discs without labels in their place does not."""
    scans = simulated_scans(study, real)
    moved = Slices(scans.images, np.roll(scans.masks, 16, axis=1), scans.table)
    sets = [TrainingSet(REAL, real.where(split="train"), frozenset(real.where(split="train").patients)),
            TrainingSet(SCANS, scans, frozenset(scans.patients)),
            TrainingSet("moved", moved, frozenset(moved.patients))]
    students = train_students(study, sets, real, [0])
    found = {name: mean_dice(dice_tables(some, real.where(split="test")), seed=0, resamples=100).value
             for name, some in students.items()}
    assert found["moved"] < 0.5 * found[SCANS] and abs(found[SCANS] - found[REAL]) < 0.2, found


def test_no_test_patient_is_learnt_from(study: Study, real: Slices) -> None:
    leaky = TrainingSet("leaky", real.where(split="test").with_columns(split="train"), frozenset())
    with pytest.raises(SplitError, match="may not learn from"):
        train_students(study, [leaky], real, [0])
    assert not list(study.root.rglob("weights.safetensors"))


def test_what_is_lacking_is_said(study: Study, real: Slices, tmp_path: Path) -> None:
    assert lacks(study) == ""
    for name in (PHANTOM, f"{PHANTOM}-large"):
        virtual = replace(study, params=replace(study.params, dataset=name))
        assert "simulated itself" in lacks(virtual)
    alone = replace(study, root=tmp_path / "elsewhere")
    assert "no such file" in lacks(alone) and "cmri_lib.run 01 --profile smoke --dataset phantom" in lacks(alone)
    with pytest.raises(DataError, match="in both cohorts"):
        simulated_scans(study, concatenate([real, of_cohort(discs(1, 4, seed=7), "phantom")]))


def test_other_pixels_are_refused(study: Study, real: Slices) -> None:
    half = Slices(real.images[..., ::2, ::2].copy(), real.masks[..., ::2, ::2].copy(), real.table)
    with pytest.raises(DataError, match="pixels"):
        simulated_scans(study, half)
