"""Paired patients: one heart, in one position, scanned by every vendor. In the phantom they are all in the test split.

The slices of a pair lie at the same heights (`phantom.cohort.PAIRED_DISTANCE`), so the same patient, phase and index is the
same anatomy. What differs is the scanner with its thickness of slices, its day and its noise, and where the crop lies.

**Registration.** Every scan is cropped around its own detection, to a whole pixel of its own, so two scans of one heart
lie some pixels apart. One scan is laid onto another by the one integer translation within ±18 mm, for all its slices
and both phases together (there is one crop per scan), at which most pixels bear the same heart label in both. What is
left is about half a pixel at most per axis, and it costs every comparison **between** scans some likeness.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
import pandas as pd

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.errors import DataError

#: What names an anatomy: one plane through one heart at one time.
ANATOMY = ["patient", "phase", "index"]
#: Largest translation in mm, along rows and along columns.
REACH = 18.0


@dataclass(frozen=True)
class Truths:
    """M anatomies, each scanned by all of V vendors.

    Attributes:
        scans: vendor → M slices; row m is the same anatomy in each.
        anatomies: (M,) index of patient, phase and slice index.
        shifts: (patient, vendor, onto) → translation (rows, columns) that lays the one scan onto the other.
    """

    scans: dict[str, Slices]
    anatomies: pd.MultiIndex
    shifts: dict[tuple[str, str, str], tuple[int, int]]

    @property
    def vendors(self) -> list[str]:
        """The V vendors, in the order of their numbers."""
        return list(self.scans)

    def conditions(self, *, crossed: bool = False) -> Slices:
        """What to draw samples under: all V · M true scans, vendor by vendor; `crossed`, their masks once for every
        vendor that can be asked for, V · V · M, so that the vendor of the mask says nothing about the vendor asked for."""
        own = concatenate(list(self.scans.values()))
        return concatenate([own.with_columns(vendor=vendor) for vendor in self.vendors]) if crossed else own

    def aligned(self, onto: str) -> np.ndarray:
        """(V, M, 1, H, W): the scans by every vendor, laid onto those by `onto`; beyond the border it is repeated."""
        images = np.stack([scans.images for scans in self.scans.values()])
        patients = self.scans[onto].patients
        for (k, vendor), patient in product(enumerate(self.vendors), np.unique(patients)):
            if vendor != onto:
                rows = patients == patient
                images[k, rows] = translated(images[k, rows], self.shifts[patient, vendor, onto])
        return images

    def locate(self, samples: Slices) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where N samples belong, three arrays (N,): the row of the anatomy, the number of the vendor whose scan (column
        `scan`) lent the mask, and the number of the vendor asked for (column `vendor`).

        Raises:
            DataError: if a sample follows no mask of these scans.
        """
        numbers = {scan: k for k, slices in enumerate(self.scans.values()) for scan in slices.table["scan"]}
        place = self.anatomies.get_indexer(pd.MultiIndex.from_frame(samples.table[ANATOMY]))
        frame = samples.table["scan"].map(numbers).fillna(-1).to_numpy(int)
        asked = samples.table["vendor"].map({v: k for k, v in enumerate(self.scans)}).fillna(-1).to_numpy(int)
        for field, found in (("index", place), ("scan", frame), ("vendor", asked)):
            if (found < 0).any():
                raise DataError(f"{(found < 0).sum()} samples belong to none of the paired scans", field=field,
                                remedy="draw samples under Truths.conditions()")
        lent = np.stack([slices.masks for slices in self.scans.values()])[frame, place]
        if not np.array_equal(lent, samples.masks):
            raise DataError("samples follow other masks than those of the paired scans", field="masks",
                            remedy="draw samples of a mask-conditioned system under Truths.conditions()")
        return place, frame, asked


def translated(pixels: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """`pixels` (..., H, W) moved by `shift` pixels (rows down, columns right); the border is repeated."""
    *leading, height, width = pixels.shape
    reach = max(map(abs, shift))
    padded = np.pad(pixels, [(0, 0)] * len(leading) + [(reach, reach)] * 2, mode="edge")
    top, left = reach - shift[0], reach - shift[1]
    return padded[..., top:top + height, left:left + width]


def registration(masks: np.ndarray, onto: np.ndarray, reach: int) -> tuple[int, int]:
    """The translation of label maps (N, H, W), by up to `reach` pixels along rows and along columns, at which most pixels
    bear the same heart label as `onto` (N, H, W); of several such the shortest."""
    shifts = sorted(product(range(-reach, reach + 1), repeat=2), key=lambda s: (s[0]**2 + s[1]**2, s))
    return max(shifts, key=lambda shift: np.count_nonzero((translated(masks, shift) == onto) & (onto > 0)))


def truths(slices: Slices) -> Truths:
    """The anatomies in the real `slices` that every vendor of the paired patients has scanned, registered.

    Raises:
        DataError: if there is none, or a vendor has scanned one patient twice.
    """
    real = slices.where(source="real")
    real = real.take((real.table.groupby("patient")["scan"].transform("nunique") > 1).to_numpy())
    if real.table.duplicated([*ANATOMY, "vendor"]).any():
        raise DataError("a vendor has scanned a patient twice", field="vendor", remedy="keep one scan per vendor")
    rows = real.table.assign(row=np.arange(len(real))).pivot(index=ANATOMY, columns="vendor", values="row").dropna()
    if rows.empty or rows.shape[1] < 2:
        raise DataError("no anatomy was scanned by several vendors", field="scan",
                        remedy="use a cohort with paired patients, such as the phantom")
    scans = {str(vendor): real.take(rows[vendor].to_numpy(int)) for vendor in rows}
    shifts, reach = {}, round(REACH / float(real.table["spacing"].iloc[0]))
    for first, second in combinations(scans, 2):
        for patient in np.unique(scans[first].patients):
            here = scans[first].patients == patient
            down, right = registration(scans[first].masks[here], scans[second].masks[here], reach)
            shifts |= {(patient, first, second): (down, right), (patient, second, first): (-down, -right)}
    return Truths(scans, rows.index, shifts)


def vendor_pairs(slices: Slices, source: str, target: str) -> Slices:
    """The scans by vendor `target` in the real `slices`, each with the scan of the same anatomy by `source` as its partner,
    laid onto it: what translates one vendor's images into another's learns from such pairs, and is judged by the true scan.

    Raises:
        DataError: if no anatomy was scanned by both.
    """
    both = truths(slices.where(vendor=[source, target]))
    return replace(both.scans[target], partners=both.aligned(target)[both.vendors.index(source)])
