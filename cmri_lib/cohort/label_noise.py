"""Worse labels of a known amount, to weigh better labels against more data.

Contours drawn by two people differ smoothly along the outline, by one to a few millimetres. Here every label map is
bent by a smooth random displacement field; its image stays, so image and labels disagree as after careless drawing.
"""

from __future__ import annotations

import hashlib

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import ParameterError

#: mm at which the autocorrelation of the displacements has fallen to 1/e.
CORRELATION_LENGTH = 12.0
#: What names a slice, and with the seed its field.
NAMED_BY = ("patient", "scan", "phase", "index")


def with_label_noise(slices: Slices, amount: float, seed: int) -> Slices:
    """The same slices with every label map (masks, and tissues where there are any) bent; images are untouched.

    Labels are taken from the nearest pixel, so they stay labels. A slice's field depends on `seed` and on its patient,
    scan, phase and index alone, neither on its place nor on its neighbours; with the amount it grows in proportion, so
    larger amounts of one seed are more of the same error. A round structure of radius r keeps a Dice of about
    1 − amount / (√π r) with itself where pixels are fine. A move of less than half a pixel changes no label, so amounts
    below half a pixel do almost nothing. Read the dose in Dice.

    Args:
        amount: root-mean-square length of the displacements in mm; 0 changes nothing.
        seed: of the fields, 0 or more.

    Raises:
        ParameterError: if `amount` is negative or not finite, or `seed` negative.
    """
    if not 0 <= amount < np.inf or seed < 0:
        raise ParameterError(f"amount {amount} mm, seed {seed}", field="amount",
                             remedy="give millimetres, 0 or more, and a seed of 0 or more")
    if amount == 0:
        return slices
    masks = np.empty_like(slices.masks)
    tissues = None if slices.tissues is None else np.empty_like(slices.tissues)
    for i, row in enumerate(slices.table[[*NAMED_BY, "spacing"]].itertuples(index=False)):
        *name, spacing = row
        field = amount / spacing * displacements(slices.masks.shape[1:], float(spacing), _generator(seed, name))
        masks[i] = _bent(slices.masks[i], field)
        if tissues is not None:  # by the same field, so that tissues and mask still agree
            tissues[i] = _bent(slices.tissues[i], field)
    return Slices(slices.images, masks, slices.table, tissues)


def displacements(shape: tuple[int, int], spacing: float, generator: np.random.Generator) -> np.ndarray:
    """(2, H, W) smooth Gaussian displacements along rows and columns, of root-mean-square length 1 over the image.

    White noise smoothed by a Gaussian of standard deviation s has the autocorrelation exp(−r² / 4s²), which is 1/e at
    2s: s is half the correlation length. The noise is wrapped around, so that the field is as strong at the border.
    """
    width = CORRELATION_LENGTH / 2 / spacing
    field = gaussian_filter(generator.standard_normal((2, *shape)), (0, width, width), mode="wrap")
    return field / np.sqrt((field**2).sum(0).mean())


def _bent(labels: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Labels (H, W) read at positions displaced by `field` (2, H, W) in pixels, from the nearest pixel."""
    return map_coordinates(labels, np.indices(labels.shape) + field, order=0, mode="nearest")


def _generator(seed: int, name: list[object]) -> np.random.Generator:
    digest = hashlib.sha256("|".join(map(str, [seed, *name])).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
