"""Fidelity: how far the distribution of synthetic images lies from the real one, in a frozen feature space.

Both distances compare two clouds of features, (N, D) and (M, D):

- the Fréchet distance between Gaussians fitted to them (Heusel et al., NeurIPS 2017), biased upwards by about D²/N;
- KID, the squared maximum mean discrepancy with a cubic kernel (Bińkowski et al., ICLR 2018), unbiased.

A single number says nothing. Each comes with a floor, what real patients score against other real patients at the
same numbers of slices, and a ceiling, what a generator would score that hands out training images.
"""

from __future__ import annotations

import warnings
import numpy as np

from cmri_lib.cohort.slices import Slices, concatenate, refuse_overlap
from cmri_lib.errors import DataError
from cmri_lib.measures.features import Features
from cmri_lib.measures.intervals import Score, bootstrap

Moments = tuple[np.ndarray, np.ndarray]


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


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Fréchet distance of features (N, D) and (M, D). Raises DataError below two rows, warns if N or M ≤ D."""
    fewest, dimension = min(len(first), len(second)), first.shape[1]
    _refuse_too_few(fewest)
    if fewest <= dimension:
        warnings.warn(f"{fewest} images for {dimension} features: the covariance is singular and the Fréchet distance "
                      "strongly biased; read it only against a floor of the same size", stacklevel=2)
    return frechet_from_moments(moments(first), moments(second))


def _refuse_too_few(images: int) -> None:
    if images < 2:
        raise DataError(f"{images} images have no covariance", field="images", remedy="score at least two, better 200")


def cubic_kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(x·y / D + 1)³ for all pairs: (N, D), (M, D) → (N, M). Bińkowski et al. 2018, section 4."""
    product = first @ second.T / first.shape[1] + 1
    return product * product * product  # many times faster than a power


class KernelDistance:
    """KID as a U-statistic over all pairs of slices of **different patients**.

    The textbook estimator (torchmetrics: means over random subsets) drops only the pairs of a slice with itself. Slices
    of one patient resemble each other, so with patients of many slices it is biased upwards; leaving out all pairs
    within a patient mends that, and keeps bootstrap draws, which repeat patients, unbiased too. Where every slice is
    its own patient this is the textbook estimator with one subset that holds everything.
    """

    def __init__(self, first: np.ndarray, second: np.ndarray, first_groups: np.ndarray | None = None,
                 second_groups: np.ndarray | None = None):
        names = [np.array([f"{side} {i}" for i in range(len(x))]) if g is None else np.asarray(g).astype(str)
                 for side, x, g in (("first", first, first_groups), ("second", second, second_groups))]
        codes = np.unique(np.concatenate(names), return_inverse=True)[1]
        ours, theirs = codes[:len(first)], codes[len(first):]
        self.terms = []
        for x, y, a, b, sign in ((first, first, ours, ours, 1), (second, second, theirs, theirs, 1),
                                 (first, second, ours, theirs, -2)):
            apart = (a[:, None] != b[None, :]).astype(float)
            self.terms.append((cubic_kernel(x, y) * apart, apart, sign))

    def __call__(self, first_counts: np.ndarray, second_counts: np.ndarray) -> float:
        u, v = first_counts.astype(float), second_counts.astype(float)
        total = 0.0
        for (kernel, apart, sign), (left, right) in zip(self.terms, ((u, u), (v, v), (u, v))):
            pairs = left @ apart @ right
            if not pairs:
                return float("nan")  # a draw of one single patient has no pair of different patients
            total += sign * (left @ kernel @ right) / pairs
        return float(total)


def kernel_distance(first: np.ndarray, second: np.ndarray, first_groups: np.ndarray | None = None,
                    second_groups: np.ndarray | None = None) -> float:
    """KID of features (N, D) and (M, D); see `KernelDistance`. May be negative, as any unbiased estimate of 0."""
    distance = KernelDistance(first, second, first_groups, second_groups)
    return distance(np.ones(len(first)), np.ones(len(second)))


def fidelity(real: Slices, synthetic: Slices, features: Features, *, reference_real: Slices | None = None,
             training: Slices | None = None, seed: int = 0, resamples: int = 500, repeats: int = 20
             ) -> list[dict[str, object]]:
    """Fréchet distance and KID of `synthetic` against `real`, with intervals, floor and ceiling.

    Args:
        real: test slices.
        synthetic: samples; `patient` is the patient whose mask a sample follows, or a name of its own. Samples that
            follow the masks of the patients of `real` share these patients' peculiarities and can score below the
            floor, which is between different patients; masks of other patients are the fairer condition.
        features: a frozen feature space.
        reference_real: further real patients (hold-out, validation) for the floor, see `fidelity_floor`.
        training: training slices, for the ceiling; without them it is the metrics' bound, 0.
        resamples: bootstrap draws of patients.
        repeats: random choices of patients behind each floor and ceiling, which are their means.

    Returns:
        Rows ``frechet_<features>`` and ``kid_<features>``; n is the number of slices of the smaller set. The Fréchet
        interval is centred on the value, that is, on the expected distance *at this n*, as the floor is; the limit of
        infinitely many slices lies lower.

    Raises:
        SplitError: if a patient of `real` is also in `reference_real` or `training`.
        DataError: with fewer than two slices or three patients in a set.
    """
    _refuse_too_few(min(len(real), len(synthetic)))
    x, y = features(real.images), features(synthetic.images)
    frechet_distance(x, y)  # warns before the long part
    kernel = KernelDistance(x, y, real.patients, synthetic.patients)
    options = {"n": min(len(x), len(y)), "resamples": resamples, "seed": seed}
    scores = {
        "frechet": bootstrap(lambda u, v: frechet_from_moments(moments(x, u), moments(y, v)), real.patients,
                             synthetic.patients, centred=True, **options),
        "kid": bootstrap(kernel, real.patients, synthetic.patients, **options)}
    floors = fidelity_floor(real, len(synthetic), features, reference_real=reference_real, seed=seed, repeats=repeats)
    ceilings = dict.fromkeys(scores, 0.0)
    if training is not None:
        ceilings = copied_training(real, training, len(synthetic), features, seed=seed, repeats=repeats)
    return [score.against(floors[name].value, ceilings[name]).row(f"{name}_{features.name}", "fidelity", "lower")
            for name, score in scores.items()]


def fidelity_floor(real: Slices, size: int, features: Features, *, reference_real: Slices | None = None,
                   seed: int = 0, repeats: int = 20) -> dict[str, Score]:
    """Real against real: both distances between random groups of patients of ``len(real)`` and `size` slices.

    The patients come from `real` and `reference_real` together. Where these hold fewer slices than are asked for, both
    groups shrink in proportion; n, the slices of the smaller group, says so. The interval is that of the partitions.

    Raises:
        SplitError: if `real` and `reference_real` share a patient.
    """
    pool = real
    if reference_real is not None:
        refuse_overlap(real, reference_real, ("real", "reference_real"))
        pool = concatenate([real, reference_real])
    x, generator = features(pool.images), np.random.default_rng(seed)
    values, sizes = [], []
    for _ in range(repeats):
        first, second = patient_partition(pool.patients, (len(real), size), generator)
        values.append(_distances(x[first], x[second], pool.patients[first], pool.patients[second]))
        sizes.append(min(len(first), len(second)))
    return {name: Score(float(np.mean(drawn)), *np.quantile(drawn, [0.025, 0.975]).tolist(), n=min(sizes))
            for name in values[0] for drawn in [[v[name] for v in values]]}


def copied_training(real: Slices, training: Slices, size: int, features: Features, *, seed: int = 0, repeats: int = 20
                    ) -> dict[str, float]:
    """What a generator scores that hands out `size` slices of training patients: near the floor for no work at all.

    Raises:
        SplitError: if `real` and `training` share a patient.
    """
    refuse_overlap(real, training, ("real", "training"))
    x, copied, generator = features(real.images), features(training.images), np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        chosen, _ = patient_partition(training.patients, (size, 0), generator)
        values.append(_distances(x, copied[chosen], real.patients, training.patients[chosen]))
    return {name: float(np.mean([v[name] for v in values])) for name in values[0]}


def patient_partition(patients: np.ndarray, sizes: tuple[int, int], generator: np.random.Generator
                      ) -> tuple[np.ndarray, np.ndarray]:
    """Indices of two groups of slices without a common patient, of `sizes`, or in proportion if there are too few.

    Whole patients are taken in random order; the last of each group gives only as many slices as are still wanted.
    """
    shrink = min(1.0, len(patients) / sum(sizes))
    order = generator.permutation(np.unique(patients))
    slices = [np.flatnonzero(patients == p) for p in order]
    wanted = int(sizes[0] * shrink)
    ends = np.cumsum([len(s) for s in slices])
    cut = int(np.searchsorted(ends, wanted)) + 1
    cut = min(cut, len(slices) - 1) if sizes[1] else cut
    rest = slices[cut:] or [np.array([], int)]
    return np.concatenate(slices[:cut])[:wanted], np.concatenate(rest)[:int(sizes[1] * shrink)]


def _distances(x: np.ndarray, y: np.ndarray, x_patients: np.ndarray, y_patients: np.ndarray) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the caller's own distance has warned already
        return {"frechet": frechet_distance(x, y), "kid": kernel_distance(x, y, x_patients, y_patients)}
