"""Diversity at a fixed mask: what a generator varies when the anatomy is settled, inside the heart and around it.

`diversity` compares samples of different masks, so a generator that gives one image per mask passes it by the variety
of its masks. Here each mask is drawn several times, and only draws of one mask are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from cmri_lib.cohort.paired_scans import Truths
from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.measures.conditioning.regions import heart_region, mean_inside
from cmri_lib.measures.fidelity.diversity import ms_ssim
from cmri_lib.measures.statistics.bootstrap import mean_score

#: Row → (better, ceiling), the ceiling being that of identical draws.
ROWS = {"fixed_mask_ms_ssim": ("lower", 1.0), "fixed_mask_sd_heart": ("higher", 0.0),
        "fixed_mask_sd_outside": ("higher", 0.0)}


def repeated(conditions: Slices, draws: int) -> Slices:
    """`conditions` (M slices) again and again, `draws` times: sample d · M + m follows condition m.

    `generators.base.draw` seeds the noise of a sample by its place, so every draw of a condition has its own noise.

    Raises:
        ParameterError: below two draws, which nothing can be compared with.
    """
    if draws < 2:
        raise ParameterError(f"{draws} draws of a mask have no diversity", field="draws", remedy="draw at least 2, better 4")
    return conditions.take(np.tile(np.arange(len(conditions)), draws))


def fixed_mask_diversity(samples: Slices, draws: int, *, floor: Mapping[str, float] | None = None, seed: int = 0,
                         resamples: int = 1000) -> list[dict[str, object]]:
    """Likeness and spread of the draws of one mask, averaged over masks.

    Args:
        samples: drawn under ``repeated(conditions, draws)``, in that order.
        floor: row → value to stand as the floor, best what `true_scan_diversity` found. By default that of draws whose
            masks differ too: the same samples, each mask's draws replaced by draws of masks spread over the list.

    Returns:
        Rows; n is the number of masks M, the intervals are over their patients. Ceiling: identical draws, 1 or 0.
        A generator varies as it should where true scans of one anatomy do, at their floor; to vary beyond it is no merit.

        - ``fixed_mask_ms_ssim``: mean MS-SSIM of all pairs of draws; lower is more diverse.
        - ``fixed_mask_sd_heart``, ``fixed_mask_sd_outside``: standard deviation over the draws (divisor draws − 1), mean
          over the pixels of the heart region (10 mm around the labels) and over the others; of a range of 2. The mean of
          a standard deviation is biased with few draws (by 0.92 for 4, 0.97 for 8): compare at one number of draws.

    Raises:
        DataError: if the samples are not `draws` rounds of the same masks, or there is none.
    """
    if draws < 2 or len(samples) % draws or not len(samples):
        raise DataError(f"{len(samples)} samples are not {draws} rounds of draws", field="draws",
                        remedy="draw under repeated(conditions, draws), at least 2 draws")
    masks = samples.masks.reshape(draws, -1, *samples.masks.shape[1:])
    if not (masks == masks[0]).all() or not masks.any():
        raise DataError("the rounds of draws follow different masks, or none", field="masks",
                        remedy="draw a mask-conditioned system under repeated(conditions, draws), and keep the order")
    first = samples.take(np.arange(masks.shape[1]))
    return _rows(samples.images.reshape(draws, -1, *samples.images.shape[1:]), first, floor, seed, resamples)


def true_scan_diversity(truths: Truths, *, seed: int = 0, resamples: int = 1000) -> list[dict[str, object]]:
    """The rows of `fixed_mask_diversity` for the V true scans of each anatomy, registered: as floor of the samples'.

    The scans are by different vendors, so they differ by style as well as by noise and by half a pixel: a generator that
    is also conditioned on the vendor should vary less than this, one that is not should vary as much.
    """
    vendor = truths.vendors[0]
    return _rows(truths.aligned(vendor), truths.scans[vendor], None, seed, resamples)


def _rows(images: np.ndarray, conditions: Slices, floor: Mapping[str, float] | None, seed: int, resamples: int
          ) -> list[dict[str, object]]:
    """The rows of images (K, M, 1, H, W), K for each of M conditions."""
    region = heart_region(conditions)
    measured = _measured(images, region)
    if floor is None and len(conditions) < len(images):  # two draws of such a mixture would be of one mask
        floor = dict.fromkeys(ROWS, float("nan"))
    elif floor is None:
        step = len(conditions) // len(images)
        mixed = np.stack([np.roll(part, -k * step, axis=0) for k, part in enumerate(images)])
        floor = {name: np.nanmean(values) for name, values in _measured(mixed, region).items()}
    return [mean_score(values, conditions.patients, n=len(conditions), resamples=resamples, seed=seed)
            .against(floor[name], ROWS[name][1]).row(name, "conditioning", ROWS[name][0]) for name, values in measured.items()]


def _measured(images: np.ndarray, region: np.ndarray) -> dict[str, np.ndarray]:
    """Row → (M,) values of images (K, M, 1, H, W) with heart regions (M, H, W)."""
    pairs = [ms_ssim(images[i], images[j]) for i, j in combinations(range(len(images)), 2)]
    spread = images[:, :, 0].std(axis=0, ddof=1, dtype=float)
    return dict(zip(ROWS, (np.mean(pairs, axis=0), mean_inside(spread, region), mean_inside(spread, ~region))))
