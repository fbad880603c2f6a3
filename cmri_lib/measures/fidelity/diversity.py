"""Diversity of samples, and likeness of pairs that have one truth.

Random pairs of samples are compared with each other by MS-SSIM: the more alike they are, the less diverse the
generator (Odena et al., ICML 2017, section 4.2). A generator is as diverse as it should be where real pairs of
different patients are, at the floor; noise lies below it and is no merit, so read it beside coverage.

Paired SSIM and PSNR are for reconstructions only. Against the real image that lent its mask, a sample that differs in
what the mask leaves open would be punished for diversity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torchmetrics.functional.image import (multiscale_structural_similarity_index_measure, peak_signal_noise_ratio,
                                           structural_similarity_index_measure)

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError
from cmri_lib.measures.fidelity.distances import frechet_from_moments, moments
from cmri_lib.measures.instruments.learned_features import Features
from cmri_lib.measures.statistics.bootstrap import Score, bootstrap, mean_score
from cmri_lib.measures.statistics.comparison import Described, Measure, Metric, Statistic

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


def similarity_statistics(real: Described, synthetic: Described, pairs: int = PAIRS) -> Sequence[Statistic]:
    """Mean MS-SSIM of pairs of samples, as a function of counts: a pair counts as often as both its members are drawn."""
    first, second = random_pairs(synthetic.patients, pairs)
    likeness = ms_ssim(synthetic.values[first], synthetic.values[second]) if len(first) else np.empty(0)

    def mean(u: np.ndarray, v: np.ndarray) -> float:
        weights = v[first] * v[second]
        return float(np.average(likeness, weights=weights)) if weights.sum() else float("nan")

    return (mean,)


def diversity(pairs: int = PAIRS) -> Measure:
    """The measure that gives ``ms_ssim_pairs``, lower is more diverse; the real set enters the floor only."""
    return Measure((Metric("ms_ssim_pairs", "lower"),), lambda slices: slices.images,
                   lambda x, y: similarity_statistics(x, y, pairs), most_repeats=4)


def paired_similarity(real: Slices, reconstructed: np.ndarray, *, resamples: int = 1000, seed: int = 0
                      ) -> list[dict[str, object]]:
    """SSIM and PSNR (dB, range 2) of images (N, 1, S, S) with the `real` ones that they reconstruct, slice by slice.

    SSIM is that of torchmetrics: every pixel counts, with the border reflected. Implementations that count only windows
    within the image (MONAI, Wang et al.) give other numbers, by 0.19 on noisy discs of 32 px; say which was used.

    Returns:
        Rows ``ssim_paired`` and ``psnr_paired_db``. n is the number of slices. Floor: the image of another slice in
        the reconstruction's place; ceiling: 1, and for PSNR none.

    Raises:
        DataError: if shapes differ, for then there is no paired truth.
    """
    if reconstructed.shape != real.images.shape:
        raise DataError(f"shape {reconstructed.shape}, not {real.images.shape}", field="reconstructed",
                        remedy="give one reconstruction per real slice, in their order")
    scores, others = _paired(real.images, reconstructed), _paired(real.images, np.roll(real.images, len(real) // 2, 0))
    options = {"n": len(real), "resamples": resamples, "seed": seed}
    return [mean_score(scores[name], real.patients, **options).against(others[name].mean(), bound)
            .row(name, "fidelity", "higher") for name, bound in (("ssim_paired", 1.0), ("psnr_paired_db", np.nan))]


@torch.inference_mode()
def _paired(first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
    a, b = torch.from_numpy(first), torch.from_numpy(np.ascontiguousarray(second))
    psnr = peak_signal_noise_ratio(a, b, data_range=RANGE, reduction="none", dim=(1, 2, 3))
    ssim = structural_similarity_index_measure(a, b, data_range=RANGE, reduction="none")
    return {"ssim_paired": ssim.double().numpy(), "psnr_paired_db": psnr.double().numpy()}


def reconstruction_distance(real: Slices, reconstruct: Callable[[np.ndarray], np.ndarray], features: Features, *,
                            resamples: int = 500, seed: int = 0) -> list[dict[str, object]]:
    """Fréchet distance between real slices and their own reconstructions by an autoencoder.

    What a latent generator cannot fall below. The same slices stand on both sides, so sampling error nearly cancels.

    Args:
        reconstruct: images (N, 1, S, S) → images of the same shape.

    Returns:
        The row ``reconstruction_frechet_<space>``. n is the number of slices; floor and ceiling: 0, identical images.
    """
    x, y = features(real.images), features(reconstruct(real.images))

    def distance(counts: np.ndarray) -> float:
        return frechet_from_moments(moments(x, counts), moments(y, counts))

    score: Score = bootstrap(distance, real.patients, n=len(real), resamples=resamples, seed=seed, centred=True)
    return [score.against(0.0, 0.0).row(f"reconstruction_frechet_{features.name}", "fidelity", "lower")]
