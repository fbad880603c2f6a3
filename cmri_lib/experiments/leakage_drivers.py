"""What drives leakage by samples, at a quality that is known: the same trained network, sampled in several ways.

Blurred or broken samples lie far from everybody's slices. A way of sampling that hands out fewer near copies may only draw
worse hearts. So leakage and quality of the same samples stand side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pandas as pd

from cmri_lib.cohort.slices import Slices
from cmri_lib.experiments.banks import draw_bank, sampling_conditions
from cmri_lib.experiments.evaluator import ADHERENCE, Evaluator
from cmri_lib.experiments.privacy_audit import PrivacyAudit
from cmri_lib.experiments.training import train_or_load, training_slices
from cmri_lib.generators.guidance import guided
from cmri_lib.measures.statistics.bootstrap import Score, score_difference
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE, HEARTS
from cmri_lib.reporting.results import with_system_columns
from cmri_lib.systems.system import Run

#: Metrics of the copy audit, in the copy detector's space, and how `CopyAudit` calls them.
LEAKAGE = {"near_copy_rate_copy": "near_copies", "near_copy_excess_copy": "near_copy_excess",
           "swapped_share_copy": "swapped_share"}
#: Metrics of quality; the Dice with the mask where samples follow one.
QUALITY = (ANATOMY, APPEARANCE, HEARTS, ADHERENCE)


class LeakageAndQuality:
    """``both.table(run, banks)``, ``both.differences(run, first, second)``.

    Args:
        audit: of the study; its copy detector is used.
        evaluator: of the same study, with the headline distances among its measures.
    """

    def __init__(self, audit: PrivacyAudit, evaluator: Evaluator):
        self.audit, self.evaluator = audit, evaluator

    def rows(self, run: Run, samples: Slices) -> list[dict[str, object]]:
        """Tidy rows of `LEAKAGE` and of what `QUALITY` the samples have."""
        leakage = [score.row(metric, "privacy", "lower") for metric, score in self._leakage(run, samples).items()]
        quality = [row for row in self.evaluator.rows(run, samples) if row["metric"] in QUALITY]
        return [*with_system_columns(run, leakage), *sorted(quality, key=lambda row: QUALITY.index(row["metric"]))]

    def table(self, run: Run, banks: Mapping[object, Slices]) -> pd.DataFrame:
        """The same of several banks, by what was chosen for each.

        Returns:
            columns: choice, system, metric, value, low, high, n, better, floor, ceiling.
        """
        rows = [{"choice": choice, **row} for choice, samples in banks.items() for row in self.rows(run, samples)]
        return pd.DataFrame(rows, columns=["choice", "system", "metric", "value", "low", "high", "n", "better", "floor",
                                           "ceiling"])

    def differences(self, run: Run, first: Slices, second: Slices) -> dict[str, Score]:
        """Metric → the first samples minus the second, drawn from one network under the same conditions. Differences of quality
        are paired over patients; those of leakage treat the two as independent, which makes their intervals too wide rather
        than too narrow."""
        one, other = (self._leakage(run, samples) for samples in (first, second))
        return {metric: score_difference(one[metric], other[metric]) for metric in LEAKAGE} | {
            metric: self.evaluator.difference(first, second, metric) for metric in (ANATOMY, APPEARANCE, HEARTS)}

    def _leakage(self, run: Run, samples: Slices) -> dict[str, Score]:
        copies = self.audit.copy_audit(samples, training_slices(run, self.audit.slices)[0])
        return {metric: getattr(copies, name)() for metric, name in LEAKAGE.items()}


def equality(difference: Score, margin: float) -> Literal["equal", "different", "undecided"]:
    """What an interval says of a difference: "equal" if it lies within ± margin (Schuirmann, Journal of Pharmacokinetics and
    Biopharmaceutics 15, 1987), "different" if it lies beyond the margin on one side. An interval that is not known decides
    nothing."""
    if -margin <= difference.low and difference.high <= margin:
        return "equal"
    return "different" if difference.low > margin or difference.high < -margin else "undecided"


def guided_samples(audit: PrivacyAudit, run: Run, scale: float) -> Slices:
    """Samples of a conditional denoiser at a scale of classifier-free guidance, under masks and other conditions of test
    patients, drawn once and kept: masks of training patients would make samples resemble these by themselves."""
    study, slices = audit.study, audit.slices
    conditions = sampling_conditions(slices, audit.params.samples, study.seed)
    with guided(train_or_load(study, run, slices), scale) as generator:
        return draw_bank(study, run, generator, conditions, f"test, guidance {scale:g}",
                         below=study.work(audit.stage) / "samples")
