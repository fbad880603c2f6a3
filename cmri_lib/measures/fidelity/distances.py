"""Fidelity: how far the distribution of synthetic images lies from the real one, in a frozen feature space.

All distances compare two clouds of features, (N, D) and (M, D):

- the squared maximum mean discrepancy (MMD; Gretton et al., JMLR 13, 2012) with a **bounded** kernel, unbiased. No
  sample, however odd, can weigh more than any other, so the value is a size of effect: 0 for equal distributions,
  below 2 for any. The study's headline, in a space of anatomy and in a space of appearance;
- KID, the same with a cubic kernel (Bińkowski et al., ICLR 2018): unbounded, so that a few outliers can be all of it;
- the Fréchet distance between Gaussians fitted to them (Heusel et al., NeurIPS 2017), biased upwards by about D²/N.

KID and Fréchet stay for comparison with other studies. A single number says nothing. Each comes with a floor, what real
patients score against other real patients at the same numbers of slices, and a ceiling, what a generator would score
that hands out training images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError
from cmri_lib.measures.instruments.frozen import refuse_all_but_training
from cmri_lib.measures.instruments.learned_features import Features
from cmri_lib.measures.statistics.comparison import DISTANCE, Embedding, Measure, Metric, Statistic, refuse_one_patient

Moments = tuple[np.ndarray, np.ndarray]
#: (N, D), (M, D) → (N, M).
Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def moments(features: np.ndarray, counts: np.ndarray | None = None) -> Moments:
    """Mean (D,) and unbiased covariance (D, D) of features (N, D), each row taken `counts` times."""
    weights = np.ones(len(features)) if counts is None else counts.astype(float)
    total = weights.sum()
    mean = weights @ features / total
    centred = features - mean
    return mean, (centred * weights[:, None]).T @ centred / (total - 1)


def frechet_from_moments(first: Moments, second: Moments) -> float:
    """|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½), Dowson & Landau, J. Multivariate Analysis 12, 1982, eq. (4).

    The symmetric form needs only eigenvalues of symmetric matrices: no complex roots, and singular covariances, as
    N ≤ D gives them, are no special case.
    """
    (mean1, cov1), (mean2, cov2) = first, second
    values, vectors = np.linalg.eigh(cov1)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov2 @ root), 0, None)).sum()
    return float(((mean1 - mean2) ** 2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * cross)


def cubic_kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(x·y / D + 1)³ for all pairs: (N, D), (M, D) → (N, M). Bińkowski et al. 2018, section 4."""
    product = first @ second.T / first.shape[1] + 1
    return product * product * product  # many times faster than a power


def radial_kernel(first: np.ndarray, second: np.ndarray, scale: float) -> np.ndarray:
    """Mean of three Gaussian kernels exp(−d² / 2σ²), σ = scale, 2·scale, 4·scale: (N, D), (M, D) → (N, M) in (0, 1].

    Three scales, because one alone sees either the shape of the cloud or its details. None below the usual distance of two
    slices: with σ = scale/2, one patient repeated is further from the others than images without hearts are.
    """
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T
    wide = np.exp(np.maximum(squares, 0, out=squares) / (-32 * scale**2))
    middle = wide**4  # exp(−d² / 8s²) = exp(−d² / 32s²)⁴: one exponential serves all three
    return (wide + middle + middle**4) / 3


def median_distance(values: np.ndarray, patients: np.ndarray) -> float:
    """Median Euclidean distance between rows (N, D) of different patients: the scale of `radial_kernel`.

    Raises:
        DataError: if there is one patient, or half of the rows coincide.
    """
    codes = np.unique(patients, return_inverse=True)[1]
    first, second = np.nonzero(codes[:, None] < codes[None])
    squares = (values**2).sum(1)
    apart = squares[first] + squares[second] - 2 * (values @ values.T)[first, second]
    median = float(np.median(np.sqrt(np.maximum(apart, 0)))) if len(apart) else 0.0
    if not median > 0:
        raise DataError("real slices of different patients do not differ", field="features",
                        remedy="give at least two patients, and features that vary")
    return median


class KernelDistance:
    """A squared MMD as a U-statistic over all pairs of slices of **different patients**.

    The textbook estimator (torchmetrics: means over random subsets) drops only the pairs of a slice with itself. Slices
    of one patient resemble each other, so with patients of many slices it is biased upwards; leaving out all pairs
    within a patient mends that, and keeps bootstrap draws, which repeat patients, unbiased too. Where every slice is
    its own patient this is the textbook estimator with one subset that holds everything.
    """

    def __init__(self, first: np.ndarray, second: np.ndarray, first_groups: np.ndarray | None = None,
                 second_groups: np.ndarray | None = None, kernel: Kernel = cubic_kernel):
        names = [np.array([f"{side} {i}" for i in range(len(x))]) if g is None else np.asarray(g).astype(str)
                 for side, x, g in (("first", first, first_groups), ("second", second, second_groups))]
        codes = np.unique(np.concatenate(names), return_inverse=True)[1]
        self.patients = int(codes.max()) + 1
        ours, theirs = codes[:len(first)], codes[len(first):]
        self.terms = [(np.where(a[:, None] == b[None], 0.0, kernel(x, y)), a, b, sign)
                      for x, y, a, b, sign in ((first, first, ours, ours, 1), (second, second, theirs, theirs, 1),
                                               (first, second, ours, theirs, -2))]

    def __call__(self, first_counts: np.ndarray, second_counts: np.ndarray) -> float:
        u, v = first_counts.astype(float), second_counts.astype(float)
        total = 0.0
        for (kernel, a, b, sign), (left, right) in zip(self.terms, ((u, u), (v, v), (u, v))):
            within = self._per_patient(a, left) @ self._per_patient(b, right)
            pairs = left.sum() * right.sum() - within
            if not pairs:
                return float("nan")  # a draw of one single patient has no pair of different patients
            total += sign * (left @ kernel @ right) / pairs
        return float(total)

    def _per_patient(self, codes: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return np.bincount(codes, counts, self.patients)


def distance_statistics(real: Embedding, synthetic: Embedding) -> Sequence[Statistic]:
    """Fréchet distance and KID as functions of the counts of real slices and of samples."""
    refuse_one_patient(real, synthetic)
    x, y = real.values, synthetic.values
    # With few slices the covariance is singular and the distance biased; a measure's row stands beside its floor, which is too.
    return (lambda u, v: frechet_from_moments(moments(x, u), moments(y, v)),
            KernelDistance(x, y, real.patients, synthetic.patients))


def distances(features: Features) -> Measure:
    """The measure that gives ``frechet_<space>`` and ``kid_<space>``, both better lower.

    The Fréchet interval is centred on the value, that is, on the expected distance *at this n*, as the floor is; the
    limit of infinitely many slices lies lower.
    """
    metrics = (Metric(f"frechet_{features.name}", "lower", centred=True, scale=DISTANCE),
               Metric(f"kid_{features.name}", "lower"))
    return Measure(metrics, lambda slices: features(slices.images), distance_statistics)


def bounded_distance(features: Features, training: Slices) -> Measure:
    """The measure that gives ``mmd_<space>``, better lower: the squared MMD with `radial_kernel`.

    The kernel's scale is the median distance between real training slices of different patients in this space: known
    before any sample is, and the same for every system and every floor.

    Raises:
        SplitError: if `training` holds any but real training slices.
    """
    refuse_all_but_training(training, "scale of the kernel")
    kernel = partial(radial_kernel, scale=median_distance(features(training.images), training.patients))

    def statistics(real: Embedding, synthetic: Embedding) -> Sequence[Statistic]:
        return (KernelDistance(real.values, synthetic.values, real.patients, synthetic.patients, kernel),)

    return Measure((Metric(f"mmd_{features.name}", "lower"),), lambda slices: features(slices.images), statistics)
