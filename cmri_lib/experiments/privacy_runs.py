"""Trainings that exist for audits alone: overfitted twins, shadow models and their reference, flows with and without a
vendor, and systems that learn from sets of patients in which a disease is rare.

They lie in a folder of their own, since other notebooks know nothing of them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from cmri_lib.cohort.slices import Slices
from cmri_lib.cohort.vocabulary import names_nothing
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError
from cmri_lib.experiments.training import scored_runs, training_patients
from cmri_lib.privacy.groups import Composition, compositions
from cmri_lib.systems.ablation import COMPARED_SETS, condition_set_system
from cmri_lib.systems.register import system
from cmri_lib.systems.system import Run, System, Variant
from cmri_lib.training import TrainSettings

#: Folder of these trainings.
STAGE = "privacy"
#: Flows with a mask, without and with the vendor (claim R4).
VENDOR_SETS = ("mask", "mask + vendor")
#: Members below which shadow models are not worth training.
FEWEST = 4


def audit_runs(study: Study, slices: Slices) -> list[Run]:
    """Every training that the audits add to those of other notebooks."""
    twins = [overfitted(study, slices, name) for name in study.params.privacy.systems]
    shadows = shadow_runs(study, slices) if shadows_possible(study, slices) else ()
    pairs = rare_runs(study, slices).values() if "rare" in study.params.privacy.arms else ()
    return [*twins, *shadows, *(run for pair in pairs for run in pair)]


def copy_detector_training(study: Study) -> tuple[TrainSettings, Path]:
    """Settings and folder of the copy detector."""
    return replace(study.params.privacy.detector, seed=study.seed), study.work(STAGE) / "copy_detector"


def attacked_trainings(study: Study, run: Run) -> list[Run]:
    """The run and, of a system in `privacy.systems`, its trainings with other seeds, which other notebooks make."""
    return scored_runs(study, run) if run.id in study.params.privacy.systems else [run]


def shadows_possible(study: Study, slices: Slices) -> bool:
    """Whether shadow models are asked for, and there are training patients enough for three groups of `FEWEST`."""
    return "shadows" in study.params.privacy.arms and len(training_patients(study, slices)) >= 3 * FEWEST


def overfitted(study: Study, slices: Slices, name: str) -> Run:
    """The positive control of a system: trained on few slices of few patients, by default as long."""
    control = study.params.privacy.control
    change = partial(few_slices, patients=10**6, slices_each=control.slices, seed=study.seed)
    patients = training_patients(study, slices)[:control.patients]
    share = control.own_share.get(name, control.share)
    return Run(own_folder(system(name)), patients=patients,
               variant=Variant("overfitted", change, share_of_steps(study, system(name), share)))


def shadow_thirds(study: Study, slices: Slices) -> list[tuple[str, ...]]:
    """Training patients in thirds: members, non-members, and those of the reference.

    Raises:
        DataError: if there are too few.
    """
    names = training_patients(study, slices)
    third = len(names) // 3
    if third < FEWEST:
        raise DataError(f"{len(names)} training patients", field="patients",
                        remedy=f"shadow models take at least {3 * FEWEST}")
    return [names[:third], names[third:2 * third], names[2 * third:]]


def shadow_runs(study: Study, slices: Slices) -> list[Run]:
    """The run that is attacked, on the first third; the reference, on the last; then the shadows, on halves
    of the first two in pairs that share no patient, so that each of these patients is in half of the
    shadows."""
    inside, outside, others = shadow_thirds(study, slices)
    settings, generator, people = study.params.privacy.shadows, np.random.default_rng(study.seed), np.array(inside + outside)
    halves = [half for _ in range(settings.count // 2)
              for half in np.array_split(generator.permutation(people), 2)]
    chosen = own_folder(system(settings.system))
    variant = Variant("shadow", training=share_of_steps(study, chosen, settings.share))
    groups = inside, others, *(tuple(sorted(half.tolist())) for half in halves)
    return [Run(chosen, some, variant=variant) for some in groups]


def rare_runs(study: Study, slices: Slices) -> dict[Composition, tuple[Run, Run]]:
    """Composition → the runs on its set with rare diseases and on its even set. None where no disease is known, or too few
    patients have one."""
    settings = study.params.privacy.rare
    try:
        found = compositions(known_groups(slices.where(split="train"), "disease"), settings.pairs, settings.few, study.seed)
    except DataError:
        return {}
    chosen = own_folder(system(settings.system))
    variant = Variant("composed", training=share_of_steps(study, chosen, settings.share))
    return {one: tuple(Run(chosen, some, variant=variant) for some in (one.rare, one.even)) for one in found}


def known_groups(slices: Slices, column: str) -> dict[str, str]:
    """Patient → group, of all patients whose disease or vendor, as `column` says, is known."""
    table = slices.table.drop_duplicates("patient")
    return {name: group for name, group in zip(table["patient"], table[column]) if not names_nothing(group)}


def vendor_runs() -> list[Run]:
    """Flows with a mask, without and with the vendor; notebook 07 trains them."""
    return [Run(condition_set_system("flow", conditions)) for conditions in VENDOR_SETS]


def guided_run() -> Run:
    """The flow with most conditions, whose classifier-free guidance notebook 07 shows, and which it trains."""
    return Run(condition_set_system("flow", COMPARED_SETS[-1]))


def share_of_steps(study: Study, one: System, share: float) -> dict[str, int]:
    """The share of the system's steps, as a change of its training."""
    return {} if share == 1 else {"steps": max(1, round(share * one.training(study.params).steps))}


def own_folder(one: System) -> System:
    """The same system with its trainings, those of its first stage too, in the audits' folder."""
    return replace(one, stage=STAGE, first_stage=one.first_stage and replace(one.first_stage, stage=STAGE))


def few_slices(slices: Slices, patients: int, slices_each: int, seed: int) -> Slices:
    """At most so many patients, and of each so many slices, drawn at random: the same slices of a patient
    whatever the number of patients."""
    if not len(slices):
        return slices
    generator, names = np.random.default_rng(seed), np.unique(slices.patients)
    rows = {name: generator.permutation(np.flatnonzero(slices.patients == name))[:slices_each]
            for name in names}
    chosen = np.sort(generator.permutation(names)[:patients])
    return slices.take(np.concatenate([np.sort(rows[name]) for name in chosen]))
