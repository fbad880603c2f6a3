"""Support: does every sample look like some patient, and is every patient like some sample?

Improved precision and recall (Kynkäänniemi et al., NeurIPS 2019), density and coverage (Naeem et al., ICML 2020). The
support of a set is the union of balls, one around each slice, that reach to its k-th nearest neighbour in the set:

- precision: share of samples within a ball of the real set; recall: share of real slices within a ball of the samples;
- density: how many real balls a sample lies in, over k, so that one far-off real slice with its huge ball counts little;
- coverage: share of real balls that hold a sample.

Two deviations, both because the slices of a patient resemble each other:

- **A neighbour is a slice of another patient.** Otherwise the balls would reach to the next slice of the same heart,
  and real patients would not recognise each other. Where every slice is its own patient this is the textbook's.
- **The interval draws patients within fixed balls**: each metric is a weighted mean over slices whose membership is
  decided once. Seeking neighbours anew in every draw would shrink supports, because draws repeat patients, and bias all
  four. Precision therefore varies with the samples only, recall and coverage with the real patients only, and the
  interval leaves out what other balls would have changed: real patients against real patients can lie outside the
  floor's neighbourhood by it. For a verdict use the floor's own interval (`floors`) or a paired difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cmri_lib.errors import DataError
from cmri_lib.measures.instruments.learned_features import Features
from cmri_lib.measures.statistics.comparison import DISTANCE, SHARE, Embedding, Measure, Metric, Statistic

#: Distances in memory at once, 128 MiB of them.
ENTRIES = 2**24
#: Neighbours; Naeem et al., section 4.2, recommend 5.
K = 5


def pairwise_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Euclidean distances of all pairs: (N, D), (M, D) → (N, M)."""
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T
    return np.sqrt(np.maximum(squares, 0, out=squares), out=squares)


def row_blocks(first: int, second: int) -> Iterator[slice]:
    """Parts of `first` rows that have about `ENTRIES` distances to `second` others."""
    size = max(1, ENTRIES // max(1, second))
    return (slice(start, start + size) for start in range(0, first, size))


def radii(values: np.ndarray, patients: np.ndarray, k: int = K) -> np.ndarray:
    """(N,) distance from each row to its k-th nearest row of another patient.

    Raises:
        DataError: if a row has fewer than `k` rows of other patients.
    """
    codes = np.unique(patients, return_inverse=True)[1]
    fewest = len(values) - np.bincount(codes).max()
    if fewest < k:
        raise DataError(f"{fewest} slices of other patients for the {k} nearest", field="patient", remedy="score more patients")
    found = np.empty(len(values))
    for rows in row_blocks(len(values), len(values)):
        between = pairwise_distances(values[rows], values)
        between[codes[rows, None] == codes[None]] = np.inf
        between.partition(k - 1, axis=1)
        found[rows] = between[:, k - 1]
    return found


def support_statistics(real: Embedding, synthetic: Embedding, k: int = K) -> Sequence[Statistic]:
    """Precision, recall, density and coverage as functions of the counts of real slices and of samples."""
    between = pairwise_distances(real.values, synthetic.values)  # (N, M)
    in_real = between <= radii(real.values, real.patients, k)[:, None]            # sample j lies in the ball of real i
    in_synthetic = between <= radii(synthetic.values, synthetic.patients, k)[None]
    precise, recalled, covered = in_real.any(0), in_synthetic.any(1), in_real.any(1)
    balls = in_real.astype(float)

    def density(u: np.ndarray, v: np.ndarray) -> float:
        return float(len(u) * (u @ balls @ v) / (k * u.sum() * v.sum()))

    return (lambda u, v: float(np.average(precise, weights=v)), lambda u, v: float(np.average(recalled, weights=u)),
            density, lambda u, v: float(np.average(covered, weights=u)))


def support_metrics(space: str) -> tuple[Metric, ...]:
    """``precision_``, ``recall_``, ``density_`` and ``coverage_<space>``; a density alone can exceed 1."""
    return tuple(Metric(f"{name}_{space}", "higher", 1.0, scale=DISTANCE if name == "density" else SHARE)
                 for name in ("precision", "recall", "density", "coverage"))


def support(features: Features, k: int = K) -> Measure:
    """The measure that gives ``precision_``, ``recall_``, ``density_`` and ``coverage_<space>``, all better higher."""
    return Measure(support_metrics(features.name), lambda slices: features(slices.images),
                   lambda x, y: support_statistics(x, y, k))
