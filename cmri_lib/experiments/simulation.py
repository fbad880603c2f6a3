"""Simulated scans as training data for real ones: what does the phantom's physics teach a segmenter,
and what its appearance costs.

The phantom knows the true label of every pixel, and costs no patient. But its images are only as real as its simulator. So its
masks are also given another, synthetic appearance: a generator that has learnt from real training patients draws an image under
each. Sets of both kinds teach segmenters alone, and beside real slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from joblib import delayed

from cmri_lib.cohort.data_sets import PHANTOM, is_virtual
from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError
from cmri_lib.experiments.arms import Group, real_arm
from cmri_lib.experiments.instruments import load_slices
from cmri_lib.experiments.parallel import at_once, silently
from cmri_lib.experiments.provenance import patients_seen, refuse_leaks
from cmri_lib.experiments.training import train_or_load, training_patients
from cmri_lib.experiments.utility import NETWORK, Student
from cmri_lib.experiments.vendor_arms import STAGE
from cmri_lib.generators.base import draw
from cmri_lib.measures.utility.baselines import baseline, fit, frozen
from cmri_lib.systems.register import SYSTEMS
from cmri_lib.systems.system import Run, file_name

#: The cohort that is simulated, a folder below data/, and the system that gives its masks another appearance.
SIMULATED, APPEARANCE = PHANTOM, "U10 FM + mask"
#: The training sets.
REAL, SCANS, RESTYLED = "real patients", "simulated scans", f"simulated masks, images of {APPEARANCE}"
BOTH = {SCANS: f"real patients + {SCANS}", RESTYLED: f"real patients + {RESTYLED}"}


@dataclass(frozen=True)
class TrainingSet:
    """What a segmenter learns from.

    Attributes:
        slices: real, simulated, or both.
        seen: everyone who has left a trace in it, in a generator too.
        family: of the generator of its images; "real" without one.
    """

    name: str
    slices: Slices
    seen: frozenset[str]
    family: str = "real"


def lacks(study: Study) -> str:
    """Why there is nothing to compare, in words; "" if there is."""
    if is_virtual(study.dataset):
        return "this cohort is simulated itself"
    try:
        load_slices(_of_simulated(study))
    except DataError as problem:
        return f"{problem.problem}: {problem.file}. Remedy: {problem.remedy}"
    return ""


def simulated_scans(study: Study, slices: Slices) -> Slices:
    """The simulated training slices, in the order of the cohort.

    Raises:
        DataError: if they have not been preprocessed, or in other pixels, or a patient of the same name is in `slices`.
    """
    found = load_slices(_of_simulated(study)).where(split="train", source="real")
    if found.size != slices.size:
        raise DataError(f"simulated slices of {found.size} pixels, real ones of {slices.size}", field="preprocess.size",
                        remedy="preprocess both cohorts alike: notebook 01")
    if shared := sorted(set(found.patients) & set(slices.patients)):
        raise DataError(f"{len(shared)} names of patients are in both cohorts, e.g. {shared[0]}", field="patient",
                        remedy="give the patients of one of them other names")
    return found


def restyled(study: Study, slices: Slices, simulated: Slices) -> Slices:
    """Samples of `APPEARANCE`, trained on all real training patients, under the simulated masks that show a heart."""
    run = Run(SYSTEMS[APPEARANCE])
    conditions = simulated.take(simulated.masks.any(axis=(1, 2)))
    return draw(train_or_load(study, run, slices), conditions, run.id, seed=study.seed)


def training_sets(study: Study, slices: Slices) -> list[TrainingSet]:
    """`REAL`, `SCANS`, `RESTYLED`, and the first with either of the others."""
    real = slices.where(split="train", source="real", patient=training_patients(study, slices))
    scans, run = simulated_scans(study, slices), Run(SYSTEMS[APPEARANCE])
    drawn, taught = restyled(study, slices, scans), patients_seen(run, slices)
    people = frozenset(real.patients)
    return [TrainingSet(REAL, real, people),
            TrainingSet(SCANS, scans, frozenset(scans.patients)),
            TrainingSet(RESTYLED, drawn, frozenset(drawn.patients) | taught, run.family),
            TrainingSet(BOTH[SCANS], concatenate([real, scans]), people | set(scans.patients)),
            TrainingSet(BOTH[RESTYLED], concatenate([real, drawn]), people | set(drawn.patients) | taught, run.family)]


def train_students(study: Study, sets: Sequence[TrainingSet], slices: Slices, seeds: Sequence[int]) -> dict[str, list[Student]]:
    """Name of a set → its segmenters, one for each seed: same network, same augmentation, same number of steps.

    Raises:
        SplitError: if a set bears a trace of a patient of `slices`, the real cohort, who is not for training.
    """
    allowed = training_patients(study, slices)
    for one in sets:
        refuse_leaks(one.slices, slices, allowed, one.name)
    at_once(study, "students of simulated scans",
            [delayed(silently)(train_student, study, one, seed) for one in sets for seed in seeds])
    return {one.name: [train_student(study, one, seed) for seed in seeds] for one in sets}


def train_student(study: Study, learnt: TrainingSet, seed: int) -> Student:
    """One segmenter, trained or loaded."""
    folder = study.work(STAGE) / file_name(NETWORK) / "simulation" / file_name(learnt.name) / f"seed-{seed}"
    model = fit(baseline(NETWORK), learnt.slices, replace(study.params.utility.training, seed=seed), folder)
    arm = real_arm(1.0, Group(learnt.name, tuple(sorted(learnt.seen))), STAGE)
    return Student(arm, NETWORK, seed, frozen(model, seed), learnt.seen)


def sizes(sets: Sequence[TrainingSet]) -> dict[str, dict[str, int]]:
    """Name of a set → its numbers of patients, of slices, and of samples among these."""
    return {one.name: {"patients": len(set(one.slices.patients)), "slices": len(one.slices),
                       "of them samples": int(np.sum(one.slices.table["source"] != "real"))} for one in sets}


def _of_simulated(study: Study) -> Study:
    """The simulated cohort under the same profile."""
    return replace(study, params=replace(study.params, dataset=SIMULATED))
