"""Anybody's samples, judged as the study's own systems are: the same instruments, real patients, floors and intervals.

Beside fidelity and anatomy (and adherence, if there are masks) the samples are searched for copies of training slices. Copies
that are planted, exact and disguised, say what that search would have found. Where their maker says who was learnt from, these
patients are attacked (`sample_attacks`); samples with masks may be asked what they teach a segmenter (`sample_utility`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError
from cmri_lib.experiments.evaluator import Chosen, Evaluator
from cmri_lib.experiments.privacy_runs import copy_detector_training
from cmri_lib.experiments.published import WEIGHTS, note_of, restore
from cmri_lib.experiments.sample_attacks import Membership, infer_members
from cmri_lib.experiments.sample_utility import Utility, refuse_what_cannot_teach, teach
from cmri_lib.experiments.stated_cost import cost_rows
from cmri_lib.measures.instruments.learned_features import Cached
from cmri_lib.privacy.controls import DISGUISES, planted_copies
from cmri_lib.privacy.copies import CopyAudit
from cmri_lib.privacy.copy_detector import train_copy_detector
from cmri_lib.privacy.nearest_neighbours import Pixels
from cmri_lib.reporting.results import with_system_columns

FAMILY = "brought along"


@dataclass(frozen=True)
class Brought:
    """Whose the rows are: `results.Named`."""

    id: str
    conditioning: str
    family: str = FAMILY


@dataclass(frozen=True)
class Copies:
    """What the search for copies has found.

    Attributes:
        spaces: names of those in which it was made.
        planted: disguise → share of planted copies that are found in any of them.
        suspects: indices of the samples that count as copies in any.
    """

    spaces: tuple[str, ...]
    planted: dict[str, float]
    suspects: tuple[int, ...]


@dataclass(frozen=True)
class Judgement:
    """What `judge` has found.

    Attributes:
        rows: tidy rows, complete but for data set and profile; those of controls under names of their own.
        copies, membership, utility: None where it was not asked, or could not be.
        cost: as stated, see `stated_cost.read_cost`.
        notes: what was left out, and why.
    """

    of: Brought
    samples: Slices
    rows: list[dict[str, object]]
    copies: Copies | None = None
    membership: Membership | None = None
    utility: Utility | None = None
    cost: Mapping[str, float | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def judge(study: Study, slices: Slices, samples: Slices, name: str, *, learnt_from: Sequence[str] = (),
          measures: Chosen = "all", cost: Mapping[str, float | str] | None = None, utility: bool = False) -> Judgement:
    """Judge `samples`.

    Args:
        slices: the preprocessed cohort.
        name: of the generator.
        learnt_from: patients of the cohort that the generator has learnt from: they are left out of what samples are compared
            with, and are whose copies are sought and whose membership is inferred. By default copies of training patients
            are sought, and no membership is inferred.
        cost: as stated, see `stated_cost.read_cost`.
        utility: also train a segmenter on the samples, and one on real slices, which takes minutes.

    Raises:
        DataError: if the cohort does not know a patient of `learnt_from`, none is left to compare with, `name` is that of
            real images, or `utility` is asked of samples that have no masks, or test patients' own.
    """
    if name == "real":
        raise DataError("real images have this name", field="name", remedy="give the generator another one")
    if strange := sorted(set(learnt_from) - set(slices.patients)):
        raise DataError(f"{strange[:3]} are not in this cohort", field="trained-on",
                        remedy=f"name patients as in the cohort's table, such as {slices.patients[0]}")
    # Instruments stay those of the study, whose training patients samples are never compared with.
    strangers = slices.take((slices.table["split"] == "train").to_numpy() | ~np.isin(slices.patients, list(learnt_from)))
    for what, splits in (("test", ["test"]), ("validation and hold-out", ["validation", "holdout"])):
        if not strangers.table["split"].isin(splits).any():
            raise DataError(f"the generator has learnt from all {what} patients", field="trained-on",
                            remedy="keep patients aside: samples are compared with those that the generator has not seen")
    evaluator = Evaluator(study, strangers, len(samples), measures)
    training = slices.where(patient=list(learnt_from)) if learnt_from else evaluator.training
    of = Brought(name, "mask" if samples.masks.any() else "none")
    samples = samples.with_columns(source=name)
    if utility:  # minutes of measuring come first
        refuse_what_cannot_teach(samples, evaluator.training, evaluator.test)
    rows, notes, cost = evaluator.rows(of, samples), [], cost or {}
    copies = membership = useful = None
    try:
        copies, found = _copies(evaluator, samples, training)
        rows += with_system_columns(of, found)
    except DataError as reason:
        notes.append(f"no search for copies: {reason.problem}")
    if learnt_from:
        try:
            membership = infer_members(study, of, samples, training, strangers)
            rows += membership.rows
        except DataError as reason:
            notes.append(f"no inference of membership: {reason.problem}")
    if utility:
        useful = teach(study, of, samples, evaluator.training, evaluator.test)
        rows += useful.rows
    rows += with_system_columns(of, cost_rows(cost))
    return Judgement(of, samples, rows, copies, membership, useful, cost, tuple(notes))


def trained_copy_detector(study: Study, training: Slices) -> Cached | None:
    """The space of this cohort's copy detector, which notebook 11 has trained or which is published; None if there is none.
    One that has learnt from other slices than `training` is trained again: it may know those who set the threshold."""
    settings, folder = copy_detector_training(study)
    restore(study, folder, settings)
    if note_of(folder / WEIGHTS, settings) is None:
        return None
    return Cached(train_copy_detector(training, settings, folder))


def _copies(evaluator: Evaluator, samples: Slices, training: Slices) -> tuple[Copies, list[dict[str, object]]]:
    """The search in pixels and in the copy detector's space, or in the study's features where no detector is trained; and its
    tidy rows."""
    study = evaluator.study
    spaces = [Cached(Pixels()), trained_copy_detector(study, evaluator.training) or Cached(evaluator.spaces[0])]

    def audits(some: Slices) -> list[CopyAudit]:
        return [CopyAudit(some, training, evaluator.holdout, evaluator.test, space, **evaluator.options) for space in spaces]

    ours = audits(samples)
    count = min(len(samples), len(training), study.params.privacy.copies)
    planted = {disguise: float(_suspected(audits(planted_copies(training, disguise, count, study.seed))).mean())
               for disguise in DISGUISES}
    found = Copies(tuple(space.name for space in spaces), planted, tuple(np.flatnonzero(_suspected(ours)).tolist()))
    return found, [row for audit in ours for row in audit.rows()]


def _suspected(audits: Sequence[CopyAudit]) -> np.ndarray:
    return np.logical_or.reduce([audit.suspects for audit in audits])
