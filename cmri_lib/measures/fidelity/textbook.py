"""KID, precision, recall, density and coverage as other papers compute them: every slice counts as its own patient.

The study's own forms (`distances`, `support`) leave out pairs within a patient, because slices of one heart resemble each
other. Published numbers do not. These rows are for reading beside other papers, with the same features; verdicts do
not rest on them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cmri_lib.measures.fidelity.distances import KernelDistance
from cmri_lib.measures.fidelity.support import support_metrics, support_statistics
from cmri_lib.measures.instruments.learned_features import Features
from cmri_lib.measures.statistics.comparison import Embedding, Measure, Metric, Statistic


def textbook_statistics(real: Embedding, synthetic: Embedding) -> Sequence[Statistic]:
    """KID, then those of `support_statistics`, as functions of the counts of real slices and of samples; names of patients are
    not used."""
    x, y = (Embedding(e.values, np.array([f"{side} {i}" for i in range(len(e.values))]))
            for side, e in (("real", real), ("synthetic", synthetic)))
    return (KernelDistance(x.values, y.values), *support_statistics(x, y))


def textbook(features: Features) -> Measure:
    """The measure that gives ``kid_textbook_<space>``, better lower, and the metrics of `support` with ``textbook_`` before the
    space, better higher. Intervals are over patients all the same."""
    space = f"textbook_{features.name}"
    metrics = Metric(f"kid_{space}", "lower"), *support_metrics(space)
    return Measure(metrics, lambda slices: features(slices.images), textbook_statistics)
