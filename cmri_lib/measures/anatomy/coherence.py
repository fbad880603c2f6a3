"""Do the slices of a stack belong to one heart? Coherence along the axis, of real and synthetic stacks.

A generator of slices can draw each of them well and still no heart: the next slice has another brightness, another
place, another size. So a stack is asked how alike neighbouring planes are, how smoothly areas change from apex to base,
and whether its left ventricle is one cavity that is closed by the wall and tapers towards the apex.

Neither more nor less than in real stacks is right: planes of different patients are too little alike, and one
plane, repeated, is too much so.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.ndimage import center_of_mass, label

from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.slices import Slices, known
from cmri_lib.cohort.stacks import STACK, as_volumes
from cmri_lib.errors import DataError
from cmri_lib.measures.anatomy.validity import DRAWN, EIGHT, READ, Tolerance, bare_share

#: What the images of neighbouring planes have in common, and how areas and places change along the axis.
ALIKE = ("correlation", "blood_step", "drift_mm", "roughness_LV", "roughness_Myo")
#: Rules of a left ventricle in three dimensions; `whole` is all of them together.
RULES = ("one_cavity", "closed", "tapering", "whole")
#: Of `ALIKE`, those that look at images and not at labels alone.
OF_IMAGES = ("correlation", "blood_step")
#: By so much of its largest area the cavity may widen from one plane to the next on the way to the apex.
WIDENING = 0.1
#: Voxels are connected within a plane by edge and corner, along the axis by face: planes lie several pixels apart.
CONNECTED = np.stack([np.zeros((3, 3), bool), EIGHT, np.zeros((3, 3), bool)])
CONNECTED[[0, 2], 1, 1] = True


def coherence(stacks: Slices, labels: np.ndarray, planes: int, tolerance: Tolerance = READ) -> pd.DataFrame:
    """One row per stack: patient, scan, phase, and

    - ``correlation``: mean of the linear correlation (Pearson) of the pixels of neighbouring planes;
    - ``blood_step``: mean absolute difference of the mean intensity of the LV cavity between neighbours, in grey values of
      [−1, 1]: blood is equally bright in all planes of one scan;
    - ``drift_mm``: mean distance, in the plane, between the centres of the LV cavity of neighbours;
    - ``roughness_LV``, ``roughness_Myo``: mean absolute second difference |A(k−1) − 2 A(k) + A(k+1)| of the area along
      the axis, in % of the largest area;
    - the rules of `rules`, 1 or 0.

    NaN where a structure is absent from all neighbours.

    Args:
        stacks: resampled stacks, `planes` rows each, apex first.
        labels: (N, H, W) uint8, the label maps to judge: `stacks.masks`, or what a segmenter reads from the images.
        tolerance: what the label maps are forgiven.

    Raises:
        DataError: if the rows are not such stacks, the labels are not theirs, or the spacing is unknown.
    """
    images, _ = as_volumes(stacks, planes)
    if labels.shape != stacks.masks.shape:
        raise DataError(f"label maps of shape {labels.shape} for {stacks.masks.shape}", field="labels",
                        remedy="give one per slice")
    first = stacks.table.iloc[::planes].reset_index(drop=True)
    maps, levels = labels.reshape(images.shape), stacks.table["level"].to_numpy().reshape(-1, planes)
    rows = [{**likeness(*each), **rules(each[1], level, tolerance)}
            for *each, level in zip(images, maps, known(first, "spacing"), levels)]
    return pd.concat([first[STACK], pd.DataFrame(rows)], axis=1)


def likeness(image: np.ndarray, mask: np.ndarray, spacing: float) -> dict[str, float]:
    """`ALIKE` of one stack: image and label map (D, H, W), apex first; `spacing` in mm per pixel."""
    cavity = mask == LABELS["LV"]
    blood = np.array([plane[lv].mean() if lv.any() else np.nan for plane, lv in zip(image.astype(float), cavity)])
    centre = np.array([center_of_mass(lv) if lv.any() else (np.nan, np.nan) for lv in cavity])
    rough = {f"roughness_{name}": roughness((mask == LABELS[name]).sum((1, 2))) for name in ("LV", "Myo")}
    return {"correlation": _mean(np.array([_correlation(a, b) for a, b in zip(image, image[1:])])),
            "blood_step": _mean(np.abs(np.diff(blood))),
            "drift_mm": _mean(spacing * np.hypot(*np.diff(centre, axis=0).T)), **rough}


def roughness(areas: np.ndarray) -> float:
    """Mean absolute second difference of areas (D,) along the axis, in % of the largest; NaN of fewer than three, or none."""
    if len(areas) < 3 or not areas.max():
        return float("nan")
    return float(100 * np.abs(np.diff(areas.astype(float), n=2)).mean() / areas.max())


def rules(mask: np.ndarray, levels: np.ndarray, tolerance: Tolerance) -> dict[str, float]:
    """`RULES` of one label map (D, H, W), apex first, 1 where kept and 0 where broken; without a cavity all are broken.

    - ``one_cavity``: the LV is one connected piece, but for what `tolerance` calls stray;
    - ``closed``: in each plane no more of the cavity's outline lies bare of myocardium than the tolerance of its level (D,);
    - ``tapering``: from its largest area on the cavity does not widen towards the apex, by more than `WIDENING`; planes without
      one are the business of the first rule.
    """
    cavity, wall = mask == LABELS["LV"], mask == LABELS["Myo"]
    if not cavity.any():
        return dict.fromkeys(RULES, 0.0)
    sizes = np.bincount(label(cavity, CONNECTED)[0].ravel())[1:]
    one = sizes.sum() - sizes.max() <= max(tolerance.speck, tolerance.stray * sizes.sum())
    closed = all(bare_share(lv, myo) <= tolerance.opening_at(level)
                 for lv, myo, level in zip(cavity, wall, levels) if lv.any())
    areas = cavity.sum((1, 2)).astype(float)
    below = areas[:areas.argmax() + 1]  # from the apex up to the widest plane
    tapering = (np.diff(below[below > 0]) >= -WIDENING * areas.max()).all()
    kept = [bool(one), closed, bool(tapering)]
    return dict(zip(RULES, map(float, [*kept, all(kept)])))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's of two images; NaN if one is constant."""
    a, b = (x.astype(float).ravel() - x.mean() for x in (first, second))
    size = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / size) if size > 0 else float("nan")


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def coherence_of_masks(stacks: Slices, planes: int) -> pd.DataFrame:
    """`coherence` of the masks that stacks come with, which were drawn to be used and are forgiven less:
    without `OF_IMAGES`."""
    return coherence(stacks, stacks.masks, planes, DRAWN).drop(columns=list(OF_IMAGES))
