"""The part of an image that is about the heart: where conditioned samples are compared with a truth or with each other."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

from cmri_lib.cohort.slices import Slices, known

#: mm around the labelled heart that still count as its region.
MARGIN = 10.0


def heart_region(slices: Slices, margin: float = MARGIN) -> np.ndarray:
    """(N, H, W) bool: pixels of a label, or whose centre lies within `margin` mm of one; none where there is no label."""
    region = slices.masks > 0
    for grown, spacing in zip(region, known(slices.table, "spacing")):
        if grown.any():
            grown[:] = distance_transform_edt(~grown, spacing) <= margin
    return region


def mean_inside(values: np.ndarray, region: np.ndarray) -> np.ndarray:
    """(N,) mean of `values` (N, H, W) over the pixels of `region` (N, H, W) bool; NaN where it is empty."""
    pixels = region.sum((1, 2))
    total = np.where(region, values, 0.0).sum((1, 2), dtype=float)
    return np.divide(total, pixels, out=np.full(len(pixels), np.nan), where=pixels > 0)
