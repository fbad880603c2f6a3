"""Anybody's samples, judged as the study's own systems are: the same instruments, real patients, floors and intervals.

Beside fidelity and anatomy (and adherence, if there are masks) the samples are searched for copies of training slices. Copies
that are planted, exact and disguised, say what that search would have found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError
from cmri_lib.experiments.evaluator import Chosen, Evaluator
from cmri_lib.measures.instruments.learned_features import Cached
from cmri_lib.privacy.controls import DISGUISES, planted_copies
from cmri_lib.privacy.copies import CopyAudit
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
class Judgement:
    """What `judge` has found.

    Attributes:
        rows: tidy rows, complete but for data set and profile.
        planted: disguise → share of planted copies that the search finds; empty without a search.
        suspects: indices of the samples that count as copies.
        notes: what was left out, and why.
    """

    of: Brought
    samples: Slices
    rows: list[dict[str, object]]
    planted: dict[str, float] = field(default_factory=dict)
    suspects: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def judge(study: Study, slices: Slices, samples: Slices, name: str, *, learnt_from: Sequence[str] = (),
          measures: Chosen = "all") -> Judgement:
    """Judge `samples`.

    Args:
        slices: the preprocessed cohort.
        name: of the generator.
        learnt_from: patients of the cohort that the generator has learnt from: they are left out of what samples are compared
            with, and are whose copies are sought. By default the training patients.

    Raises:
        DataError: if the cohort does not know a patient of `learnt_from`, none is left to compare with, or `name` is that of
            real images.
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
    rows = evaluator.rows(of, samples)
    try:
        found, planted, suspects = _copies(evaluator, samples, training)
    except DataError as reason:
        return Judgement(of, samples, rows, notes=(f"no search for copies: {reason.problem}",))
    return Judgement(of, samples, rows + with_system_columns(of, found), planted, suspects)


def _copies(evaluator: Evaluator, samples: Slices, training: Slices
            ) -> tuple[list[dict[str, object]], dict[str, float], tuple[int, ...]]:
    """Rows of the search in pixels and in the study's features; recall of planted copies by either; suspects of either."""
    spaces = [Cached(Pixels()), Cached(evaluator.spaces[0])]

    def audits(some: Slices) -> list[CopyAudit]:
        return [CopyAudit(some, training, evaluator.holdout, evaluator.test, space, **evaluator.options) for space in spaces]

    ours, seed = audits(samples), evaluator.study.seed
    count = min(len(samples), len(training), evaluator.study.params.privacy.copies)
    planted = {disguise: float(_suspected(audits(planted_copies(training, disguise, count, seed))).mean())
               for disguise in DISGUISES}
    return [row for audit in ours for row in audit.rows()], planted, tuple(np.flatnonzero(_suspected(ours)).tolist())


def _suspected(audits: Sequence[CopyAudit]) -> np.ndarray:
    return np.logical_or.reduce([audit.suspects for audit in audits])
