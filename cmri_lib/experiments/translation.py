"""What an image that was made from another one is held against: the image that was really taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import SimpleITK as sitk

from cmri_lib.cohort.phase_pairs import PLACE
from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError
from cmri_lib.measures.anatomy.adherence import adherence, adherence_bounds, adherence_difference
from cmri_lib.measures.conditioning.condition_accuracy import ConditionClassifier
from cmri_lib.measures.conditioning.paired_truth import likeness
from cmri_lib.measures.conditioning.regions import heart_region
from cmri_lib.measures.statistics.bootstrap import Score, mean_score, paired_difference
from cmri_lib.reporting.results import Named, with_system_columns

#: Metrics of likeness, in the order of `likeness`: SSIM, and PSNR in dB.
LIKENESS = ("ssim_target", "psnr_target")


@dataclass(frozen=True)
class Truth:
    """Real slices and what they are to be made from.

    Attributes:
        pairs: real slices with partners: another phase of the scan, another vendor's scan, or a fraction of its k-space,
            zero-filled.
        segment: the frozen segmenter.
        options: seed and resamples of every bootstrap, over patients.
    """

    pairs: Slices
    segment: Callable[[np.ndarray], np.ndarray]
    options: dict[str, int]

    @property
    def copied(self) -> Slices:
        """What a system scores that hands out its source unchanged: the floor of every score."""
        return replace(self.pairs, images=self.pairs.partners)

    @cached_property
    def region(self) -> np.ndarray:
        """(N, H, W) bool: the heart, and 10 mm around it. Between phases the rest hardly moves, so there a copy of the source
        would be as good as the truth."""
        return heart_region(self.pairs)

    @cached_property
    def floor(self) -> dict[str, np.ndarray]:
        """Likeness of the sources unchanged, the same for every system."""
        return self.likeness(self.copied)

    @cached_property
    def bounds(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Floor and ceiling of adherence."""
        return adherence_bounds(self.pairs, self.segment, self.options["seed"])

    def likeness(self, made: Slices) -> dict[str, np.ndarray]:
        """Metric of `LIKENESS` → (N,) value of every translation in the region of the heart.

        Raises:
            DataError: if `made` is not one translation of every pair, in their order.
        """
        if not made.table[PLACE].reset_index(drop=True).equals(self.pairs.table[PLACE]):
            raise DataError("translations of other places than the pairs", field="made", remedy="draw them under `pairs`")
        return dict(zip(LIKENESS, likeness(made.images, self.pairs.images, self.region)))

    def rows(self, of: Named | str, made: Slices) -> list[dict[str, object]]:
        """Tidy rows: likeness (floor: the source unchanged; ceiling of SSIM: 1), and how well the segmenter finds the target's
        labels in the translation. Intervals are over patients."""
        rows = [mean_score(values, made.patients, n=len(made), **self.options).against(self.floor[name].mean(), ceiling)
                .row(name, "conditioning", "higher")
                for (name, values), ceiling in zip(self.likeness(made).items(), (1.0, np.nan))]
        return with_system_columns(of, rows + adherence(self.pairs, made, self.segment, bounds=self.bounds, **self.options))

    def difference(self, first: Slices, second: Slices, metric: str) -> Score:
        """`metric` of the first translations minus that of the second, paired over patients: of `LIKENESS`, or a column of
        `adherence.agreement` such as "dice_mean"."""
        if metric in LIKENESS:
            return paired_difference(self.likeness(first)[metric], self.likeness(second)[metric], self.pairs.patients,
                                     **self.options)
        return adherence_difference(first, second, self.segment, metric, **self.options)


#: Grey values among which a histogram is counted, and quantiles that are laid onto each other.
BINS, QUANTILES = 256, 64


def histogram_matched(pairs: Slices, like: Slices) -> Slices:
    """The partners of `pairs`, the grey values of each scan mapped so that their quantiles are those of the
    images `like` (Nyúl, Udupa and Zhang, IEEE TMI 19(2), 2000, as SimpleITK has it): a translation that only
    knows grey values, and no place.

    Raises:
        DataError: if there is no image to be like.
    """
    if not len(like):
        raise DataError("no image whose grey values to take", field="like", remedy="give scans by the target vendor")
    reference, made = sitk.GetImageFromArray(like.images[:, 0]), np.empty_like(pairs.images)
    for scan in pairs.table["scan"].unique():
        rows = np.flatnonzero((pairs.table["scan"] == scan).to_numpy())
        stack = sitk.HistogramMatching(sitk.GetImageFromArray(pairs.partners[rows, 0]), reference, BINS, QUANTILES, False)
        made[rows, 0] = sitk.GetArrayFromImage(stack).clip(-1, 1)
    return replace(pairs, images=made)


def of_another_patient(pairs: Slices) -> Slices:
    """In the place of every slice, one at the same phase and the most similar height, of the next patient by name who has one.
    Among pairs of one vendor that is the right style and the wrong heart.

    Raises:
        DataError: if there is one patient, or nobody else has the phase.
    """
    names, table = np.unique(pairs.patients), pairs.table
    if len(names) < 2:
        raise DataError("there is no other patient", field="patient", remedy="give pairs of at least two")
    chosen = np.empty(len(pairs), int)
    for row, (patient, phase, height) in enumerate(zip(table["patient"], table["phase"], table["height"])):
        turned = np.roll(names, -1 - int(np.flatnonzero(names == patient)[0]))[:-1]
        there = (np.flatnonzero(((table["patient"] == other) & (table["phase"] == phase)).to_numpy()) for other in turned)
        if (rows := next((found for found in there if len(found)), None)) is None:
            raise DataError(f"nobody but {patient} has the phase {phase}", field="phase", remedy="give pairs of more patients")
        chosen[row] = rows[np.abs(table["height"].to_numpy()[rows] - height).argmin()]
    return replace(pairs, images=pairs.images[chosen])


def recognised(truth: Truth, made: Slices, classifier: ConditionClassifier) -> dict[str, object]:
    """The row ``accuracy_vendor``: share of translations in which the frozen classifier, among all vendors that it knows, sees
    the target's. Floor: chance. Ceiling: of the true targets."""
    target = str(truth.pairs.table["vendor"].iloc[0])
    taken, true = ((classifier(some.images, classifier.words) == target).astype(float) for some in (made, truth.pairs))
    score = mean_score(taken, made.patients, n=len(made), **truth.options)
    return score.against(1 / len(classifier.words), true.mean()).row("accuracy_vendor", "conditioning", "higher")
