"""Trainings side by side: nobody waits for what another is just writing, and nothing depends on who trained it."""

from __future__ import annotations

import pytest
import torch
from conftest import discs
from systems.test_conditional import quick

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.config.parameters import open_study
from cmri_lib.errors import ParameterError
from cmri_lib.experiments import protocol
from cmri_lib.experiments.evaluator import cells
from cmri_lib.experiments.parallel import train_all, waves
from cmri_lib.systems.conditional import CONDITIONAL
from cmri_lib.systems.label_maps import MASK_SYSTEMS
from cmri_lib.systems.unconditional import SYSTEMS
from cmri_lib.training.checkpoint import read_tensors


def needs(system, patients) -> set[tuple]:
    """What a training reads or writes, its own folder excepted."""
    stage = {("stage", system.first_stage, patients)} if system.first_stage else set()
    return stage | ({(system.start.id, patients), *needs(system.start, patients)} if system.start else set())


@pytest.mark.parametrize("patients", [(None,), (None, 4)])
def test_no_two_of_a_wave_write_the_same(patients: tuple) -> None:
    study, _ = open_study("smoke", "phantom")
    every = [*SYSTEMS.values(), *CONDITIONAL.values(), *MASK_SYSTEMS.values(), *(s for *_, s in cells(study))]
    lessons = [(s, None, p) for s in every for p in patients]
    done: set[tuple] = set()
    for wave in waves(lessons):
        written: list[tuple] = []
        for system, _, p in wave:
            written += [(system.id, p), *(needs(system, p) - done)]
        assert len(written) == len(set(written)), "two of a wave would train the same network"
        done |= set(written)
    assert {(s.id, p) for s, _, p in lessons} <= done


@pytest.fixture(scope="module")
def cohort() -> Slices:
    unseen = discs(2, 2, seed=3, split="validation")
    return concatenate([discs(4, 2), unseen]).with_columns(vendor="GE", disease="NOR")


def test_the_same_weights_whoever_trains(cohort: Slices, tmp_path) -> None:
    alone, together = (quick(open_study("smoke", "phantom")[0], tmp_path / name) for name in ("alone", "together"))
    together.values["workers"] = 2
    systems = [SYSTEMS[name] for name in ("U1 VAE", "U2 DCGAN", "U7 LDM-KL", "U8 DiT")]
    train_all(together, [(s, cohort, None) for s in systems])
    for system in systems:
        protocol.trained(alone, system, cohort)
        one, other = (read_tensors(protocol.training_folder(study, system) / "weights.safetensors")
                      for study in (alone, together))
        assert one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


def test_what_is_wrong_is_said_where_it_is_asked_for(cohort: Slices, tmp_path) -> None:
    study = quick(open_study("smoke", "phantom")[0], tmp_path)
    study.values["workers"] = 2
    study.values["vae"]["training"]["stepz"] = 3
    train_all(study, [(SYSTEMS["U1 VAE"], cohort, None)])
    with pytest.raises(ParameterError, match="stepz"):
        protocol.trained(study, SYSTEMS["U1 VAE"], cohort)
