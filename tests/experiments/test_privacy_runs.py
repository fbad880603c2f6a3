"""The trainings of the audits: who learns from whom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cmri_lib.config.study import open_study
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.experiments.privacy_runs import (attacked_trainings, audit_runs, few_slices, overfitted, shadow_runs,
                                               shadow_thirds)
from cmri_lib.experiments.training import training_slices
from cmri_lib.systems.register import system
from cmri_lib.systems.system import Run
from conftest import discs

STUDY, SLICES = open_study("smoke", "phantom"), discs(24, 6, 8)


def test_every_patient_is_in_half_of_the_shadows_and_the_reference_is_a_stranger() -> None:
    inside, outside, others = shadow_thirds(STUDY, SLICES)
    assert len(inside) == len(outside) == len(others) == 8 and len({*inside, *outside, *others}) == 24
    target, reference, *shadows = shadow_runs(STUDY, SLICES)
    assert set(target.patients) == set(inside) and set(reference.patients) == set(others)
    count = STUDY.params.privacy.shadows.count
    assert len(shadows) == count and len({run.folder for run in [target, reference, *shadows]}) == count + 2
    for patient in (*inside, *outside):
        assert sum(patient in run.patients for run in shadows) == count / 2
    with pytest.raises(DataError, match="at least 12"):
        shadow_thirds(STUDY, SLICES.where(patient=inside))


def test_the_overfitted_twin_learns_from_few_slices_and_lies_in_a_folder_of_its_own() -> None:
    twin = overfitted(STUDY, SLICES, "U7 LDM-KL")
    control = STUDY.params.privacy.control
    learnt = training_slices(twin, SLICES)[0]
    assert len(learnt) == control.patients * control.slices and len(set(learnt.patients)) == control.patients
    assert twin.stage == twin.system.first_stage.stage == "privacy" and twin.id.startswith("U7 LDM-KL")
    assert {run.stage for run in audit_runs(STUDY, SLICES)} == {"privacy"}


def test_a_twin_may_have_a_share_of_the_steps_of_its_own() -> None:
    privacy = STUDY.params.privacy
    control, names = replace(privacy.control, own_share={privacy.systems[0]: 1.0}), privacy.systems[:2]
    longer = replace(STUDY, params=replace(STUDY.params, privacy=replace(privacy, control=control)))
    own, other = (overfitted(longer, SLICES, name).settings(longer.params, 0).steps for name in names)
    assert own == system(names[0]).training(STUDY.params).steps
    assert other == overfitted(STUDY, SLICES, names[1]).settings(STUDY.params, 0).steps < own
    with pytest.raises(ParameterError, match="U0 nothing"):
        replace(privacy, control=replace(control, own_share={"U0 nothing": 0.5}))


def test_several_trainings_are_attacked_of_systems_that_have_them() -> None:
    params = replace(STUDY.params, fidelity=replace(STUDY.params.fidelity, seeds=3))
    name, study = "U10 FM", replace(STUDY, params=params)
    seeds = [run.seed for run in attacked_trainings(study, Run(system(name)))]
    assert seeds == [None, STUDY.seed + 1, STUDY.seed + 2]
    assert [run.id for run in attacked_trainings(study, overfitted(study, SLICES, name))] == [f"{name}, 4 patients, overfitted"]
    assert "U10 OT-FM" in params.fidelity.repeated and "U10 OT-FM" not in params.privacy.systems
    assert len(attacked_trainings(study, Run(system("U10 OT-FM")))) == 1


def test_shadow_models_are_trained_only_where_they_are_asked_for() -> None:
    privacy = replace(STUDY.params.privacy, arms=("sampler",))
    without = replace(STUDY, params=replace(STUDY.params, privacy=privacy))
    twins = {run.id for run in audit_runs(without, SLICES)}
    assert len(twins) == len(privacy.systems) and all(id.endswith("overfitted") for id in twins)
    assert len(audit_runs(STUDY, SLICES)) == len(twins) + privacy.shadows.count + 2


def test_the_same_few_slices_are_drawn_again() -> None:
    first, again = (few_slices(SLICES, 5, 2, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.images, again.images)
    more = few_slices(SLICES, 24, 2, seed=3)
    np.testing.assert_array_equal(more.where(patient=list(set(first.patients))).images, first.images)
    assert len(first) == 10 and len(few_slices(SLICES, 100, 100, 0)) == len(SLICES)
    assert not np.array_equal(few_slices(SLICES, 5, 2, seed=4).images, first.images)
