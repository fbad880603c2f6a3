"""Use downstream: how well does a segmenter do on real patients that has learnt from samples alone?

Its network and objective are those of the frozen segmenter; how long it learns is the caller's choice, and must be the
same for all that are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import SplitError
from cmri_lib.measures.anatomy.adherence import Segment
from cmri_lib.measures.instruments.learned_features import Cached
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.measures.utility.baselines import baseline, fit, frozen
from cmri_lib.measures.utility.volumetric import FOREGROUND, arm_difference, overall_rows, volume_scores
from cmri_lib.training import TrainSettings

#: A segmenter, or one for each training of the generator that it has learnt from.
Students = Segment | Sequence[Segment]


def pseudo_label(segment: Segment, samples: Slices) -> Slices:
    """Samples of a generator without a mask as condition, with the labels that `segment` sees in them."""
    return Slices(samples.images, segment(samples.images), samples.table)


def train_student(samples: Slices, settings: TrainSettings, folder: str | Path) -> Cached:
    """A plain U-Net (`baselines`) trained on images and masks of `samples`, real or synthetic, or loaded if `folder`
    holds this training; each image that it is asked for again is segmented once.

    Raises:
        SplitError: if a mask is not one of the training split: a student must not have met the test patients' hearts.
        NothingLabelled: if there is no mask to learn from.
    """
    if foreign := sorted(set(samples.table["split"]) - {"train"}):
        raise SplitError(f"conditions of {foreign}", field="split", remedy='draw samples under slices.where(split="train")')
    return frozen(fit(baseline("U-Net"), samples, settings, folder), settings.seed)


def tstr(real: Slices, learnt: Students, reference: Students, *, seed: int = 0, resamples: int = 1000
               ) -> list[dict[str, object]]:
    """Rows ``downstream_dice``, ``downstream_missed`` and ``downstream_hd95_mm`` of `learnt` on real test slices, see
    `volumetric.overall_rows`.

    Args:
        reference: a segmenter that learnt from as many real slices for as long; its score is the **ceiling**.

    Returns:
        n is the number of patients, the interval is over them and, if there are several, over trainings.

    Raises:
        DataError: if `real` is empty or without masks.
    """
    return overall_rows(*(_scores(real, s) for s in (learnt, reference)), seed=seed, resamples=resamples)


def tstr_difference(real: Slices, first: Students, second: Students, structure: str = FOREGROUND, **options: object) -> Score:
    """Dice of the first student minus that of the second on the same real volumes, paired, over trainings too if there are
    several; n is the number of patients. `structure`: one alone, "LV" for students that learnt the cavity alone."""
    tables = (_scores(real, s, distances=False) for s in (first, second))
    return arm_difference(*tables, structure=structure, **options)


def _scores(real: Slices, students: Students, **options: bool) -> list[pd.DataFrame]:
    """`volume_scores` of each student."""
    truth = _one_contrast_each(real)
    several = [students] if callable(students) else students
    return [volume_scores(student(real.images), truth, **options) for student in several]


def _one_contrast_each(real: Slices) -> Slices:
    """The same slices; a scan that holds each of its slices several times, in several contrasts, is as many scans."""
    again = real.table.groupby(["patient", "scan", "phase", "index"], sort=False).cumcount()
    names = real.table["scan"].where(again == 0, real.table["scan"] + ", contrast " + (again + 1).astype(str))
    return real.with_columns(scan=names.to_numpy())
