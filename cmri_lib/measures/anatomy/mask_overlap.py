"""Overlap of label maps with each other: the Dice of the nearest other map, and of random pairs (diversity of masks)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cmri_lib.cohort.case import LABELS
from cmri_lib.measures.fidelity.diversity import PAIRS, random_pairs
from cmri_lib.measures.statistics.comparison import SHARE, Embedding, Measure, Metric, Statistic, refuse_one_patient

#: Masks compared at once with all others.
CHUNK = 128


def nearest_dice(masks: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Highest mean Dice of each label map (N, H, W) with any of `training` (M, H, W), and the index of that one; both (N,).

    The mean is over structures that either of the two has; two empty maps share nothing, 0.
    """
    value, index = np.empty(len(masks)), np.empty(len(masks), int)
    sides = {label: _flat(training == label) for label in LABELS.values()}
    for start in range(0, len(masks), CHUNK):
        part = masks[start:start + CHUNK]
        total, present = np.zeros((2, len(part), len(training)))
        for label, side in sides.items():
            here = _flat(part == label)
            sizes = here.sum(1)[:, None] + side.sum(1)[None]
            total += 2 * (here @ side.T) / np.maximum(sizes, 1)
            present += sizes > 0
        score = total / np.maximum(present, 1)
        index[start:start + CHUNK] = score.argmax(1)
        value[start:start + CHUNK] = score.max(1)
    return value, index


def mask_diversity(pairs: int = PAIRS) -> Measure:
    """The measure ``mask_dice_pairs``: mean Dice (as in `nearest_dice`) of at most `pairs` random pairs of different patients.
    Lower is more diverse; the floor is that of real masks, and less than it is no merit. n is the number of masks."""
    def statistics(real: Embedding, synthetic: Embedding) -> Sequence[Statistic]:
        refuse_one_patient(synthetic)
        first, second = random_pairs(synthetic.patients, pairs)
        likeness = np.array([nearest_dice(a[None], b[None])[0][0] for a, b in
                             zip(synthetic.values[first], synthetic.values[second])])

        def mean(u: np.ndarray, v: np.ndarray) -> float:
            weights = v[first] * v[second]
            return float(np.average(likeness, weights=weights)) if weights.sum() else float("nan")

        return (mean,)

    return Measure((Metric("mask_dice_pairs", "lower", bound=1.0, scale=SHARE),), lambda slices: slices.masks, statistics,
                   axis="anatomy")


def _flat(structures: np.ndarray) -> np.ndarray:
    """(N, H, W) boolean → (N, H · W) float32, exact for counts up to 2²⁴."""
    return structures.reshape(len(structures), -1).astype(np.float32)
