"""What an image that was made from another one is held against: the image that was really taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from cmri_lib.cohort.phase_pairs import PLACE
from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError
from cmri_lib.measures.anatomy.adherence import adherence, adherence_bounds, adherence_difference
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
        pairs: real slices with partners: another phase of the scan, or a fraction of its k-space, zero-filled.
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
        `measures.anatomy.agreement` such as "dice_mean"."""
        if metric in LIKENESS:
            return paired_difference(self.likeness(first)[metric], self.likeness(second)[metric], self.pairs.patients,
                                     **self.options)
        return adherence_difference(first, second, self.segment, metric, **self.options)
