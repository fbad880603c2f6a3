"""KID, precision, recall, density and coverage as other papers compute them: every slice counts as its own patient.

The study's own forms (`distances`, `support`) leave out pairs within a patient, because slices of one heart resemble each
other. Published numbers do not. These rows are for reading beside other papers, with the same features; verdicts do
not rest on them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cmri_lib.measures.fidelity.distances import KernelDistance
from cmri_lib.measures.fidelity.support import support_statistics
from cmri_lib.measures.instruments.learned_features import Features
from cmri_lib.measures.statistics.comparison import Embedding, Measure, Metric, Statistic

NAMES = ("precision", "recall", "density", "coverage")


def textbook_statistics(real: Embedding, synthetic: Embedding) -> Sequence[Statistic]:
    """KID, then `NAMES`, as functions of the counts of real slices and of samples; names of patients are not used."""
    x, y = (Embedding(e.values, np.array([f"{side} {i}" for i in range(len(e.values))]))
            for side, e in (("real", real), ("synthetic", synthetic)))
    return (KernelDistance(x.values, y.values), *support_statistics(x, y))


def textbook(features: Features) -> Measure:
    """The measure that gives ``kid_textbook_<space>``, better lower, and ``<name>_textbook_<space>`` for each of `NAMES`,
    better higher. Intervals are over patients all the same."""
    metrics = (Metric(f"kid_textbook_{features.name}", "lower"),
               *(Metric(f"{name}_textbook_{features.name}", "higher", 1.0) for name in NAMES))
    return Measure(metrics, lambda slices: features(slices.images), textbook_statistics)
