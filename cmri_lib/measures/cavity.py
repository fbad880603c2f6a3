"""Area of the LV cavity in a cine image whose middle lies on the LV axis, without a mask."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_fill_holes, label

#: mm around the axis within which the blood of the LV is looked for, and its wall.
BLOOD, WALL = 12.0, 35.0
#: Share of the signal of blood by which it must exceed that of the wall.
LEAST_CONTRAST = 0.05


def cavity_area(image: np.ndarray, spacing: float) -> float:
    """cm² of the LV cavity, papillary muscles included, in an image (H, W) of bright blood and dark myocardium.

    The edge lies half way between the blood and the darkest ring around the axis, the wall. The cavity is what is brighter than
    the edge and connected to the middle, its holes filled. 0 where nothing near the axis is clearly brighter than that ring.

    Args:
        spacing: mm per pixel.
    """
    y, x = (spacing * (np.arange(n) - (n - 1) / 2) for n in image.shape)
    radius = np.hypot(y[:, None], x[None])
    near = radius <= BLOOD
    blood = np.percentile(image[near], 90)
    rings = np.arange(0, WALL, spacing)
    wall = min(image[(radius >= ring) & (radius < ring + spacing)].mean() for ring in rings)
    bright = image > (blood + wall) / 2
    parts, _ = label(bright)
    names, pixels = np.unique(parts[near & bright], return_counts=True)
    if not len(names) or blood - wall < LEAST_CONTRAST * abs(blood):
        return 0.0
    return float(binary_fill_holes(parts == names[pixels.argmax()]).sum() * spacing**2 / 100)
