"""Use downstream: how well does a segmenter do on real patients that has learnt from samples alone?

Its network and objective are those of the frozen segmenter; how long it learns is the caller's choice, and must be the
same for all that are compared.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError, SplitError
from cmri_lib.measures.anatomy.adherence import Segment, agreement
from cmri_lib.measures.instruments.learned_features import Cached
from cmri_lib.measures.statistics.bootstrap import Score, mean_score, paired_difference
from cmri_lib.measures.utility.baselines import baseline, fit, frozen
from cmri_lib.training import TrainSettings


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


def tstr(real: Slices, learnt: Segment, reference: Segment, *, seed: int = 0, resamples: int = 1000
               ) -> list[dict[str, object]]:
    """Rows ``downstream_dice``, ``downstream_hd95_mm`` (means over structures and volumes; the distance of those found) and
    ``downstream_missed`` (share of the others) of `learnt` on real test slices.

    Args:
        reference: a segmenter that learnt from as many real slices for as long; its score is the **ceiling**. The floor
            is 0 for the Dice; the others have none.

    Returns:
        n is the number of patients, the interval is over them.

    Raises:
        DataError: if `real` is empty or without masks.
    """
    if not real.masks.any():
        raise DataError("no mask to test a segmenter on", field="real", remedy="score it on labelled test patients")
    found, best = (agreement(s(real.images), real.masks, real.table) for s in (learnt, reference))
    patients = found["patient"].to_numpy()
    scores = [(name, better, floor, *(_mean_of(t, stem) for t in (found, best)))
              for name, stem, better, floor in (("downstream_dice", "dice_mean", "higher", 0.0),
                                                ("downstream_hd95_mm", "hd95_", "lower", float("nan")),
                                                ("downstream_missed", "missed_", "lower", float("nan")))]
    return [mean_score(value, patients, seed=seed, resamples=resamples).against(floor, pd.Series(ceiling).mean())
            .row(name, "utility", better) for name, better, floor, value, ceiling in scores]


def tstr_difference(real: Slices, first: Segment, second: Segment, column: str = "dice_mean", **options: object) -> Score:
    """Dice of the first student minus that of the second on the same real volumes, paired; n is the number of patients.
    `column`: of `agreement`; "dice_LV" for students that learnt the cavity alone."""
    one, other = (agreement(s(real.images), real.masks, real.table) for s in (first, second))
    return paired_difference(one[column].to_numpy(), other[column].to_numpy(), one["patient"].to_numpy(), **options)


def _mean_of(table: pd.DataFrame, stem: str) -> np.ndarray:
    """(volumes,) mean of the columns that begin with `stem`."""
    return table[[c for c in table if c.startswith(stem)]].mean(axis=1).to_numpy()
