"""Ground truth that only paired patients give: the scan that the vendor asked for really took of this very heart.

A sample made under the mask of a true scan is held against the scan of the vendor it was asked for, and against those of
the other vendors. See `cohort.paired_scans` for how the scans of one heart are found and laid onto each other.
"""

from __future__ import annotations

import numpy as np
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.paired_scans import Truths, truths
from cmri_lib.cohort.slices import Slices
from cmri_lib.measures.conditioning.regions import heart_region, mean_inside
from cmri_lib.measures.fidelity.diversity import RANGE
from cmri_lib.measures.statistics.bootstrap import mean_score
from cmri_lib.measures.statistics.comparison import refuse_unlike

__all__ = ["Truths", "against_truth", "likeness", "tissue_intensities", "truths"]


def against_truth(truths: Truths, samples: Slices, *, seed: int = 0, resamples: int = 1000) -> list[dict[str, object]]:
    """How near are samples to the scan that the vendor asked for really took of this heart?

    Args:
        samples: N samples of a system that follows the masks of true scans (`Truths.conditions`); `scan` names the scan
            that lent the mask, `vendor` the one asked for. Asked for another vendor than that of the mask, a sample is
            compared with that one's scan laid onto the mask.

    Returns:
        Rows; n is the number of samples, the intervals are over patients. SSIM and PSNR are those of the heart region
        (10 mm around the labels); a pixel's SSIM looks at 11 × 11 pixels, so a little beyond it too.

        - ``ssim_true``, ``psnr_true`` (dB, range 2): with the true scan by the vendor asked for. Floor: the true scans
          by the other vendors in the sample's place, the right heart in the wrong style, after registration. Ceiling: 1,
          and for PSNR none. Nobody can foretell noise, so neither is within reach.
        - ``style_gain_ssim``: SSIM with that scan minus the mean SSIM with the other vendors' scans. Floor: 0, what one
          gains regardless of the vendor: exactly under crossed conditions. Where each vendor is asked for under its own
          masks alone, a system that knows no vendors gains a little (0.013 on the phantom at 3 mm), for only the vendor's
          own scan lies on the mask to the fraction of a pixel. Ceiling: the gain of the true scan itself.
        - ``style_match``: share of samples whose `tissue_intensities` are nearest to those of the vendor asked for among
          the V true scans of the same anatomy. Floor: chance, 1/V. Ceiling: 1. The neighbouring slice of the very scan,
          as another image of that style, is matched in 87 % on the phantom.

    Raises:
        DataError: if a sample follows no mask of the true scans, or is unlike them in size or intensities.
    """
    refuse_unlike(truth=truths.scans[truths.vendors[0]], samples=samples)
    place, frame, asked = truths.locate(samples)
    region, vendors = heart_region(samples), len(truths.vendors)
    own = np.arange(vendors) == asked[:, None]  # (N, V)
    made, true = np.empty((2, 2, len(samples), vendors))  # SSIM and PSNR, of samples and of the scan asked for
    for k, vendor in enumerate(truths.vendors):
        scans, rows = truths.aligned(vendor), np.flatnonzero(frame == k)
        for other in range(vendors):
            against, inside = scans[other, place[rows]], region[rows]
            made[:, rows, other] = likeness(samples.images[rows], against, inside)
            true[:, rows, other] = likeness(scans[asked[rows], place[rows]], against, inside)
    floor_ssim, floor_psnr = (_mean_of_others(value, own).mean() for value in true)
    rows = {"ssim_true": (made[0][own], floor_ssim, 1.0), "psnr_true": (made[1][own], floor_psnr, np.nan),
            "style_gain_ssim": (made[0][own] - _mean_of_others(made[0], own), 0.0, 1 - floor_ssim),
            "style_match": ((nearest_style(truths, samples) == asked).astype(float), 1 / vendors, 1.0)}
    return [mean_score(values, samples.patients, n=len(samples), resamples=resamples, seed=seed)
            .against(floor, ceiling).row(name, "conditioning", "higher") for name, (values, floor, ceiling) in rows.items()]


def likeness(first: np.ndarray, second: np.ndarray, region: np.ndarray) -> np.ndarray:
    """(2, N): SSIM and PSNR in dB of image pairs (N, 1, H, W) in [−1, 1] over `region` (N, H, W) bool.

    SSIM is the mean over the region of the map of torchmetrics. PSNR = 10 log₁₀(4 / mean squared error); inf for equals.
    """
    squared = mean_inside((first[:, 0].astype(float) - second[:, 0])**2, region)
    with np.errstate(divide="ignore"):
        return np.stack([mean_inside(_ssim_map(first, second), region), 10 * np.log10(RANGE**2 / squared)])


@torch.inference_mode()
def _ssim_map(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, H, W) SSIM of every pixel."""
    a, b = (torch.from_numpy(np.ascontiguousarray(x)) for x in (first, second))
    parts = [structural_similarity_index_measure(a[i:i + 16], b[i:i + 16], data_range=RANGE, reduction="none",
                                                 return_full_image=True)[1] for i in range(0, len(a), 16)]
    return torch.cat(parts)[:, 0].numpy() if parts else np.empty((0, *first.shape[2:]))


def _mean_of_others(values: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(N,) mean of `values` (N, V) without the one of each row that `own` (N, V) marks."""
    return np.where(own, 0.0, values).sum(1) / (~own).sum(1)


def tissue_intensities(slices: Slices) -> np.ndarray:
    """(N, 8): mean and standard deviation of the image in LV, Myo, RV and the ring of 10 mm around the heart; NaN where
    a slice has none of it."""
    around = heart_region(slices) & (slices.masks == 0)
    columns = []
    for part in (*(slices.masks == label for label in LABELS.values()), around):
        mean = mean_inside(slices.images[:, 0], part)
        spread = mean_inside((slices.images[:, 0] - np.nan_to_num(mean)[:, None, None])**2, part)
        columns += [mean, np.sqrt(spread)]
    return np.stack(columns, axis=1)


def nearest_style(truths: Truths, samples: Slices) -> np.ndarray:
    """(N,) number of the vendor whose true scan of the same anatomy has the most similar `tissue_intensities`.

    Euclidean distance, each of the eight in units of its standard deviation over all true scans. Every scan is read
    under its own mask, so registration plays no part. What is absent from one of the scans is left out for all.
    """
    place, _, _ = truths.locate(samples)
    true = np.stack([tissue_intensities(scans) for scans in truths.scans.values()])  # (V, M, 8)
    gaps = (tissue_intensities(samples)[None] - true[:, place]) / np.nanstd(true, axis=(0, 1))
    gaps[:, np.isnan(gaps).any(0)] = 0.0
    return (gaps**2).sum(-1).argmin(0)
