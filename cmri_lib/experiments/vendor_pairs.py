"""The phantom's training patients, scanned once more by two vendors: what C17 learns from between vendors.

A cohort with patients whom several vendors have scanned has them in the test, where they are worth most: the phantom's ten all
are. No training patient has a second scan. But a virtual patient can be scanned again, so the training and validation patients
of the cohort are: the same hearts, by both vendors, at the same heights, as the paired patients of the test were. Nothing is
drawn of a test patient.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from joblib import delayed

from cmri_lib.cohort.case import Case
from cmri_lib.cohort.data_sets import PHANTOM
from cmri_lib.cohort.jobs import results, worker_count
from cmri_lib.cohort.paired_scans import vendor_pairs
from cmri_lib.cohort.preprocessing.pipeline import preprocess
from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError
from cmri_lib.experiments.instruments import trained_detector
from cmri_lib.phantom.anatomy import patient_name
from cmri_lib.phantom.cohort import PAIRED_DISTANCE, SEED, virtual_patient
from cmri_lib.phantom.scanner import scan
from cmri_lib.phantom.vendors import VENDORS
from cmri_lib.systems.translation import STAGE
from cmri_lib.training.fingerprint import code_digest, digest

#: The only data set whose patients can be scanned again.
DATASET = PHANTOM


def vendor_names(study: Study) -> tuple[str, str]:
    """(source, target): the vendors between which ``translation.vendors`` asks to translate, as the cohort's table has them."""
    asked = study.params.translation.vendors
    return VENDORS[asked.source].name, VENDORS[asked.target].name


def training_pairs(study: Study, slices: Slices) -> Slices:
    """Scans by the target vendor of training and validation patients, each with that by the source vendor as its partner.

    Scanned when they are first asked for (two scans of a patient take some seconds), preprocessed as the cohort, and kept.

    Args:
        slices: the preprocessed cohort: its splits say who is learnt from.

    Raises:
        DataError: if the cohort is not the phantom that the study ships with, or has no such patients.
    """
    return vendor_pairs(rescanned(study, slices), *vendor_names(study))


def rescanned(study: Study, slices: Slices) -> Slices:
    """The preprocessed scans of those patients by both vendors; see `training_pairs`."""
    asked, chosen = study.params.translation.vendors, _patients(study, slices)
    folder = _cache(study, slices, sorted(chosen))
    if not (folder / "slices.csv").exists():
        jobs = [delayed(_scan)(number, key) for number in chosen.values() for key in (asked.source, asked.target)]
        cases = list(results(jobs, workers=min(worker_count(study.params.workers), len(jobs))))
        split = dict(zip(slices.patients, slices.table["split"]))
        found = trained_detector(study, slices) if study.params.preprocess.crop == "detector" else None
        half = folder.with_name(f"{folder.name}-{os.getpid()}")  # others may be looking for it
        preprocess(cases, study.params.preprocess, split=split, detector=found).save(half)
        try:
            half.rename(folder)
        except OSError:
            shutil.rmtree(half)
            if not (folder / "slices.csv").exists():  # no other process was faster
                raise
    return Slices.load(folder)


def _patients(study: Study, slices: Slices) -> dict[str, int]:
    """Name → number of as many training and validation patients as are asked for, in the order of a draw from the seed."""
    if study.dataset != DATASET:
        raise DataError(f"patients of {study.dataset} cannot be scanned again", field="dataset",
                        remedy=f"choose the data set {DATASET}")
    asked, chosen = study.params.translation.vendors, {}
    for split in ("train", "validation"):
        names = np.unique(slices.where(split=split).patients)
        order = np.random.default_rng(study.seed).permutation(len(names))
        chosen |= {str(name): int(str(name)[1:]) for name in names[order[:getattr(asked, split)]]}
    if not chosen:
        raise DataError("no patients to scan again", field="split", remedy="add training patients")
    ages = slices.table.drop_duplicates("patient").set_index("patient")["age"]
    if strangers := [name for name, number in chosen.items() if virtual_patient(SEED, number).person.age != ages[name]]:
        raise DataError(f"{len(strangers)} patients are not those of the phantom with seed {SEED}, e.g. {strangers[0]}",
                        field="patient", remedy="fetch the phantom that the study ships with (dvc pull)")
    return chosen


def _scan(number: int, key: str) -> Case:
    """One patient by one vendor, as `phantom.cohort` has scanned the paired patients."""
    name, vendor = patient_name(number), VENDORS[key]
    return scan(virtual_patient(SEED, number), key, SEED, distance=PAIRED_DISTANCE, scan_id=f"{name}{key}",
                centre=vendor.centres[number % 2])


def _cache(study: Study, slices: Slices, names: Sequence[str]) -> Path:
    """Where the scans are kept: named after all that they depend on, the code of the phantom included. The detector of another
    cohort or profile lies in another folder."""
    asked = study.params.translation.vendors
    parts = [repr((names, asked.source, asked.target, study.params.preprocess)).encode(),
             code_digest(scan, preprocess).encode(), slices.images.tobytes()]
    return study.work(STAGE) / "rescanned" / digest(parts)
