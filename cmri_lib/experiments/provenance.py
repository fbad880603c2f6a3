"""Which patients have left a trace in what: in a generator's weights, in its samples, in a training set.

A generator that has seen a test patient hands that patient on with every sample. What a run has seen is not a
note that somebody must keep: it follows from the run and the cohort, as its training set does, and the
weights on disk are those of exactly that training set, or they are trained anew (`training.fingerprint`).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import SplitError
from cmri_lib.experiments.training import training_slices
from cmri_lib.systems.system import Run


def patients_seen(run: Run, slices: Slices) -> frozenset[str]:
    """Everyone whose images or masks have shaped the weights of `run`: whom it, its first stage and what it
    starts from have learnt from, under whatever name, and whom `Run.patients` names.

    Args:
        slices: the whole preprocessed cohort, as for `train_or_load`.
    """
    learnt = training_slices(run, slices)[0]
    seen = frozenset(learnt.patients) | frozenset(owners(learnt, slices)) | frozenset(run.patients or ())
    return seen if run.start is None else seen | patients_seen(run.start, slices)


def owners(some: Slices, slices: Slices) -> set[str]:
    """The patients of `slices` whose very images are among `some`, whatever name they bear there."""
    known = {image.tobytes(): patient for image, patient in zip(slices.images, slices.patients)}
    return {known[key] for image in some.images if (key := image.tobytes()) in known}


def refuse_seen(run: Run, slices: Slices, allowed: Collection[str], what: str) -> None:
    """Raise SplitError if `run` has seen a patient who is not among `allowed`, whom alone `what` may use."""
    if others := sorted(patients_seen(run, slices) - set(allowed)):
        raise SplitError(f"{run.id} has seen {len(others)} patients whom {what} may not learn from, e.g. "
                         f"{_named(others, slices)}", field="patients",
                         remedy="train the generator, and what it starts from, on allowed patients alone: "
                         "Run(system, patients=...)")


def refuse_leaks(training: Slices, slices: Slices, allowed: Collection[str], what: str) -> None:
    """Raise SplitError if `training` holds an image or the name of a patient who is not among `allowed`.

    Args:
        training: real slices and samples. Samples bear the name and the split of the patient whose mask they
            follow.
        slices: the whole preprocessed cohort.
        what: whose training set it is, for the message.

    Raises:
        SplitError: if a slice is not of split "train", or bears the name of another patient of the cohort, or
            is an image of one under a new name.
    """
    remedy = "give slices of allowed training patients, and samples under their masks"
    if foreign := sorted(set(training.table["split"]) - {"train"}):
        raise SplitError(f"{what} was given slices of {foreign}", field="split", remedy=remedy)
    others = slices.take(~np.isin(slices.patients, list(allowed)))
    if named := sorted(set(training.patients) & set(others.patients)):
        raise SplitError(f"{what} was given slices of {len(named)} patients whom it may not learn from, e.g. "
                         f"{_named(named, slices)}", field="patient", remedy=remedy)
    if copied := sorted(owners(training, others)):
        raise SplitError(f"{what} was given images of {_named(copied, slices)} under another name",
                         field="images", remedy=remedy)


def _named(patients: list[str], slices: Slices) -> str:
    """The first three, each with its split."""
    splits = dict(zip(slices.patients, slices.table["split"]))
    return ", ".join(f"{patient} ({splits.get(patient, 'of no split')})" for patient in patients[:3])
