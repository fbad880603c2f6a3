"""Attacks on samples alone: what can be inferred from a published synthetic set, without the weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from cmri_lib.cohort.slices import Slices, refuse_overlap
from cmri_lib.errors import DataError
from cmri_lib.measures.instruments.learned_features import Features
from cmri_lib.privacy.attack import Attack, Target, refuse_known


@dataclass(frozen=True)
class _OnSamples(Attack):
    """An attack that needs `Target.samples` only, seen in a feature `space`."""

    space: Features

    def suits(self, target: Target) -> bool:
        return target.samples is not None and len(target.samples) > 1


@dataclass(frozen=True)
class NearestSamples(_OnSamples):
    """Minus the distance to the nearest samples, the mean over the nearest k (Chen et al. 2020, the attack
    on a full black box, eq. 3, for k = 1)."""

    nearest: tuple[int, ...] = (1, 5)

    @property
    def name(self) -> str:
        return f"distance_{self.space.name}"

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        distances = cdist(self.space(slices.images), self.space(target.samples.images))
        distances.sort(axis=1)
        return pd.DataFrame({f"nearest {k}": -distances[:, :k].mean(1) for k in self.nearest
                             if k <= distances.shape[1]})


@dataclass(frozen=True)
class DensityRatio(_OnSamples):
    """log p_samples(x) − log p_real(x): where samples are denser than real patients would make them, the
    generator has overfitted (van Breugel, Sun, Qian & van der Schaar, "Membership Inference Attacks against
    Synthetic Data through Overfitting Detection" (DOMIAS), AISTATS 2023, arXiv 2302.12580, eq. 2). Both are
    kernel estimates, in as many principal components of the reference as `components` says, scaled to unit
    variance.

    Args:
        reference: real patients whom the generator has not seen and who are not scored.
        bandwidths: of the Gaussian kernel, in units of Scott's rule; one setting each.
    """

    reference: Slices
    components: int = 8
    bandwidths: tuple[float, ...] = (0.5, 1.0, 2.0)

    @property
    def name(self) -> str:
        return f"domias_{self.space.name}"

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        refuse_known(target, self.reference, "to whom the reference of a density ratio should be strangers")
        refuse_overlap(self.reference, slices, ("reference", "slices"))
        real = self.space(self.reference.images)
        centre = real.mean(0)
        _, sizes, axes = np.linalg.svd(real - centre, full_matrices=False)
        kept = min(self.components, int((sizes > 1e-8 * sizes[0]).sum()))
        scale = axes[:kept].T / sizes[:kept] * np.sqrt(len(real))
        points, made, real = ((self.space(s.images) - centre) @ scale
                              for s in (slices, target.samples, self.reference))
        return pd.DataFrame({f"bandwidth {h:g}": log_density(points, made, h) - log_density(points, real, h)
                             for h in self.bandwidths})


def log_density(points: np.ndarray, data: np.ndarray, factor: float) -> np.ndarray:
    """(N,) log of a Gaussian kernel estimate from `data` (M, D) of unit variance, of bandwidth `factor` ·
    M^(−1/(D + 4)) (Scott 1992)."""
    count, size = data.shape
    width = factor * count ** (-1 / (size + 4))
    kernels = -cdist(points, data, "sqeuclidean") / (2 * width**2)
    return logsumexp(kernels, axis=1) - np.log(count) - size / 2 * np.log(2 * np.pi * width**2)


def patient_p_values(scores: np.ndarray, strangers: np.ndarray) -> np.ndarray:
    """Dataset inference (Maini, Yaghini & Papernot, "Dataset Inference", ICLR 2021, arXiv 2104.10706) for
    one patient at a time: (P,) p-values of "this patient was not in the training set", from `scores` (P,) of
    patients, each aggregated over slices, and those of `strangers` (M,), patients known not to have been in
    it.

    The rank of a patient among strangers gives p = (1 + #{strangers who score as high}) / (M + 1), which is
    valid for any distribution if patient and strangers are alike (Vovk, Gammerman & Shafer 2005, prop. 2.4).
    A t-test over a patient's slices, as of Maini et al., is not: slices of a patient are alike, so it would
    count one patient as many.

    Raises:
        DataError: without strangers.
    """
    if not len(strangers):
        raise DataError("no strangers to compare with", field="strangers",
                        remedy="keep some patients out of training")
    reached = (np.asarray(strangers)[None] >= np.asarray(scores)[:, None]).sum(1)
    return (1 + reached) / (len(strangers) + 1)
