"""Every training of the study, in the order of its notebooks, and how far each has come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from cmri_lib.cohort.slices import Slices
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.pipeline import locked_stages
from cmri_lib.config.study import Study
from cmri_lib.errors import CheckpointError
from cmri_lib.experiments.ablation_runs import compared_runs, fewer_label_runs, noisy_label_runs
from cmri_lib.experiments.arms import utility_runs
from cmri_lib.experiments.contrast import scan_patients, train_manifold
from cmri_lib.experiments.instruments import trainings as instrument_trainings
from cmri_lib.experiments.learning_curves import runs_over_patients
from cmri_lib.experiments.preprocessing_synthesis import slices_of_run, way_runs
from cmri_lib.experiments.privacy_runs import STAGE as AUDITS
from cmri_lib.experiments.privacy_runs import audit_runs, copy_detector_training
from cmri_lib.experiments.private_training import differential_privacy_runs, train_or_load_any
from cmri_lib.experiments.published import CHECKPOINT, WEIGHTS, note_of, published_weights
from cmri_lib.experiments.safeguards import NONE, safeguard_runs
from cmri_lib.experiments.training import runs_over_seeds, training_folder, training_folders
from cmri_lib.experiments.vendor_pairs import DATASET, training_pairs
from cmri_lib.generators.base import Generator
from cmri_lib.systems import register
from cmri_lib.systems.ablation import CONDITION_SETS, STAGE, ablation_systems, condition_set_system
from cmri_lib.systems.contrast import MANIFOLD
from cmri_lib.systems.private import RDP_CGAN
from cmri_lib.systems.system import Run, runs
from cmri_lib.systems.translation import ACROSS_VENDORS, RECONSTRUCTION
from cmri_lib.systems.vendors import WAY_FLOW
from cmri_lib.training import TrainSettings

#: One system of each family, trained on other numbers of patients by notebooks 02 to 05.
CURVES_OVER_PATIENTS = ("U1 VAE", "U5 StyleGAN2-ADA", "U6 DDPM", "U10 OT-FM")
#: Ids of the systems that learn from further scans of training patients. A run that went to another process has a copy of its
#: system, so systems are known by their ids.
SCANNED_AGAIN = {system.id for system in ACROSS_VENDORS.values()}


def all_runs(study: Study, slices: Slices) -> list[Run]:
    """Every run that a notebook trains, or starts from, each once."""
    noisy, fewer = noisy_label_runs(study), fewer_label_runs(study, slices)
    left_out = _left_out(study)
    found = [*runs([system for name, system in register.SYSTEMS.items() if name not in left_out]),
             *(run for name in CURVES_OVER_PATIENTS for run in runs_over_patients(study, slices, register.SYSTEMS[name])),
             *runs([system for *_, system in ablation_systems(Vocabulary.of(slices), study.params.conditional.contents)]),
             *runs([condition_set_system("flow", name) for name in CONDITION_SETS]),
             *noisy, *fewer, *utility_runs(study, slices), *audit_runs(study, slices),
             *(safeguard_runs(study, slices).values() if "safeguards" in study.params.privacy.arms else ()),
             *differential_privacy_runs(study, slices), *way_runs(study),
             *([*runs(ACROSS_VENDORS), Run(MANIFOLD)] if study.dataset == DATASET else ())]
    counts = study.params.fidelity
    for compared, count in (([Run(register.system(name)) for name in counts.repeated], counts.seeds),
                            (compared_runs(study, slices), counts.ablation_seeds)):
        found += [run for one in compared for run in runs_over_seeds(study, one, count)]
    return list({(run.stage, run.folder): run for one in found for run in _with_starts(one)}.values())


def final_weights_alone(study: Study, wanted: Iterable[Run], slices: Slices) -> list[Run]:
    """Those of the runs whose half-way weights no notebook asks for: other seeds; of the ablation what no primary test
    compares; of the audits all but the training that early stopping stops."""
    asked = {run.folder for run in (*compared_runs(study, slices), safeguard_runs(study, slices)[NONE])}
    return [run for run in wanted if run.seed is not None or run.stage in (STAGE, AUDITS) and run.folder not in asked]


def _left_out(study: Study) -> set[str]:
    """Ids of systems that no notebook trains on all patients: C18, whose runs are those of `differential_privacy_runs`, and
    reconstructions from scans that only another profile makes so short."""
    times = study.params.translation.accelerations
    return {RDP_CGAN.id, *(system.id for k, pair in RECONSTRUCTION.items() if k not in times for system in pair)}


def prepare(study: Study, wanted: Iterable[Run], slices: Slices) -> None:
    """Make, once, what several of the runs learn from and no cohort has."""
    if any(run.system.id in SCANNED_AGAIN for run in wanted):
        training_pairs(study, slices)


def train_planned(study: Study, run: Run, slices: Slices) -> Generator:
    """The trained generator of any run of `all_runs`: those that no cohort has slices for find their own.

    Args:
        slices: the whole preprocessed cohort.
    """
    if run.system.id == MANIFOLD.id:
        return train_manifold(study, *(scan_patients(study, split) for split in ("train", "validation")))
    if run.system.id == WAY_FLOW.id:
        slices = slices_of_run(study, run, slices)
    elif run.system.id in SCANNED_AGAIN:
        slices = training_pairs(study, slices)
    return train_or_load_any(study, run, slices)


def all_folders(study: Study, wanted: Iterable[Run]) -> dict[Path, TrainSettings]:
    """Where the trainings of runs lie, and with which settings, those of their first stages included, each once."""
    return {folder: settings for run in wanted for folder, settings in training_folders(study, run).items()}


def measuring_networks(study: Study) -> dict[Path, TrainSettings]:
    """The same of what measures and generates nothing: the instruments, and the copy detector."""
    settings, folder = copy_detector_training(study)
    return instrument_trainings(study) | {folder: settings}


def progress(study: Study, wanted: Iterable[Run]) -> pd.DataFrame:
    """How far each training has come, from what lies on disk; nothing is built or loaded.

    Returns:
        run, stage, state (done, under way, published: loaded when it is asked for, to do), images seen, images in all, hours
        (spent), left (hours, estimated from the trainings of the same stage and family that have begun; missing where none
        has).
    """
    table = pd.DataFrame([_state(study, run) for run in wanted])
    pace = table["hours"] / table["images"].where(table["images"] > 0)
    pace = pace.fillna(pace.groupby([table["stage"], table["family"]]).transform("mean"))
    pace = pace.fillna(pace.groupby(table["family"]).transform("mean"))
    return table.assign(left=(table["of"] - table["images"]) * pace).drop(columns="family")


def complete_stages(study: Study, wanted: Iterable[Run]) -> list[str]:
    """The locked stages of the pipeline, in its order, that can be computed again without a training: all that they keep is
    published.

    Raises:
        DataError: if the pipeline or its lock cannot be read.
    """
    lacking = {study.work(run.stage) for run in wanted
               if not all(note_of(published_weights(study, folder), settings)
                          for folder, settings in training_folders(study, run).items())}
    return [stage.name for stage in locked_stages(study.root) if lacking.isdisjoint(stage.places(study))]


def _state(study: Study, run: Run) -> dict[str, object]:
    settings, folder = run.settings(study.params, study.seed), training_folder(study, run)
    row = {"run": run.id, "stage": run.stage, "family": run.family, "state": "to do", "images": 0,
           "of": settings.steps * settings.batch, "hours": 0.0}
    for file, state in ((folder / WEIGHTS, "done"), (folder / CHECKPOINT, "under way"),
                        (published_weights(study, folder), "published")):
        try:
            note = note_of(file, settings)
        except CheckpointError:
            return row | {"state": "damaged"}
        if note:
            return row | {"state": state, "images": note["step"] * settings.batch, "hours": note["seconds"] / 3600}
    return row


def _with_starts(run: Run) -> Iterator[Run]:
    if run.start is not None:
        yield from _with_starts(run.start)
    yield run
