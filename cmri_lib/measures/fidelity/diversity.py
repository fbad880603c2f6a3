"""Diversity of samples.

Random pairs of samples are compared with each other by MS-SSIM: the more alike they are, the less diverse the
generator (Odena et al., ICML 2017, section 4.2). A generator is as diverse as it should be where real pairs of
different patients are, at the floor; noise lies below it and is no merit, so read it beside coverage.

Paired SSIM and PSNR are for reconstructions only. Against the real image that lent its mask, a sample that differs in
what the mask leaves open would be punished for diversity.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchmetrics.functional.image import (multiscale_structural_similarity_index_measure)

from cmri_lib.errors import DataError
from cmri_lib.measures.statistics.comparison import Embedding, Measure, Metric, Statistic, refuse_one_patient

#: Weights of the scales, finest first (Wang et al., Asilomar 2003, section 3.2).
WANG = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
#: Side of the Gaussian window of SSIM in pixels.
WINDOW = 11
RANGE = 2.0
#: Pairs compared; the standard error of their mean is below 0.01 on cardiac slices.
PAIRS = 200


def scale_weights(size: int) -> tuple[float, ...]:
    """The first of `WANG`'s weights, as many as images of `size` pixels allow, scaled to sum to 1.

    At the coarsest scale the window must still fit: 2 scales at 32 px, 3 at 64, 4 at 128, all 5 from 176 on. MS-SSIM
    of different numbers of scales must not be compared.

    Raises:
        DataError: if not even one window fits.
    """
    if size < WINDOW:
        raise DataError(f"images of {size} px are smaller than the window", field="size", remedy=f"use {WINDOW} px or more")
    # The condition of torchmetrics is on size / (scales − 1)², which is stricter than that of Wang et al.
    scales = max(k for k in range(1, len(WANG) + 1)
                 if size // max(1, k - 1)**2 >= WINDOW and size >= 2**k)
    return tuple(np.array(WANG[:scales]) / sum(WANG[:scales]))


@torch.inference_mode()
def ms_ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N,) MS-SSIM of image pairs (N, 1, S, S) in [−1, 1], by torchmetrics, with `scale_weights`."""
    weights, a, b = scale_weights(first.shape[-1]), torch.from_numpy(first), torch.from_numpy(second)
    parts = [multiscale_structural_similarity_index_measure(a[i:i + 16], b[i:i + 16], data_range=RANGE, betas=weights,
                                                            reduction="none").reshape(-1)
             for i in range(0, len(a), 16)]
    return torch.cat(parts).double().numpy()


def random_pairs(patients: np.ndarray, pairs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two index arrays of at most `pairs` pairs of different patients, drawn uniformly and without repetition."""
    ahead, behind = np.triu_indices(len(patients), 1)
    apart = np.flatnonzero(patients[ahead] != patients[behind])
    chosen = np.random.default_rng(seed).permutation(apart)[:pairs]
    return ahead[chosen], behind[chosen]


def similarity_statistics(real: Embedding, synthetic: Embedding, pairs: int = PAIRS) -> Sequence[Statistic]:
    """Mean MS-SSIM of pairs of samples, as a function of counts: a pair counts as often as both its members are drawn."""
    refuse_one_patient(synthetic)
    first, second = random_pairs(synthetic.patients, pairs)
    likeness = ms_ssim(synthetic.values[first], synthetic.values[second])

    def mean(u: np.ndarray, v: np.ndarray) -> float:
        weights = v[first] * v[second]
        return float(np.average(likeness, weights=weights)) if weights.sum() else float("nan")

    return (mean,)


def diversity(pairs: int = PAIRS) -> Measure:
    """The measure that gives ``ms_ssim_pairs``, lower is more diverse; the real set enters the floor only."""
    return Measure((Metric("ms_ssim_pairs", "lower"),), lambda slices: slices.images,
                   lambda x, y: similarity_statistics(x, y, pairs), most_repeats=4)
