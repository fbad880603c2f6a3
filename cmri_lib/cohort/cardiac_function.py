"""What a scan's masks say of its function: volumes and ejection fractions, as columns of the table.

`measures.volumes` reads them from whole `Case`s; here they come from `Slices`, real or synthetic, after preprocessing.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cmri_lib.cohort.case import LABELS, PHASES
from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError

#: %, %, then mL.
PHENOTYPES = ("lvef", "rvef", "lvedv", "lvesv", "rvedv")
SCAN = ["patient", "scan"]


def with_phenotypes(slices: Slices) -> Slices:
    """The same slices with the columns `PHENOTYPES`, alike in all slices of a scan.

    Volumes are sums of discs: area × `spacing`² × `slice_mm`, over the slices of a phase that `slices` hold, so give it
    whole scans. NaN where a phase is missing, and EF also where the diastolic cavity is empty. `Slices.load` reads a
    NaN of these columns as empty text: after loading compute them anew.

    Raises:
        DataError: if a slice of a scan occurs twice, for its area would count twice; if a `spacing` or `slice_mm` is
            not positive.
    """
    table = slices.table
    if (repeated := table["scan"][table.duplicated([*SCAN, "phase", "index"])]).any():
        raise DataError(f"scan {repeated.iloc[0]} has a slice more than once", field="index",
                        remedy="give every sample a scan of its own")
    voxel = table["spacing"].to_numpy(float) ** 2 * table["slice_mm"].to_numpy(float) / 1000  # mL
    if not (voxel > 0).all():
        raise DataError("a voxel has no volume", field="spacing", remedy="give spacing and slice_mm in mm")
    volumes = {(name, phase): _volume(slices.masks == LABELS[name], phase, voxel, table)
               for name in ("LV", "RV") for phase in PHASES}
    return slices.with_columns(
        lvef=_fraction(volumes["LV", "ED"], volumes["LV", "ES"]),
        rvef=_fraction(volumes["RV", "ED"], volumes["RV", "ES"]),
        lvedv=volumes["LV", "ED"], lvesv=volumes["LV", "ES"], rvedv=volumes["RV", "ED"])


def _volume(structure: np.ndarray, phase: str, voxel: np.ndarray, table: pd.DataFrame) -> np.ndarray:
    """(N,) volume in mL of the structure (N, H, W) in `phase`, in the scan of each slice."""
    discs = np.where(table["phase"] == phase, structure.sum((1, 2)) * voxel, np.nan)
    # min_count: a phase without slices is not known, rather than empty.
    return table[SCAN].assign(disc=discs).groupby(SCAN)["disc"].transform("sum", min_count=1).to_numpy(float)


def _fraction(full: np.ndarray, emptied: np.ndarray) -> np.ndarray:
    """(N,) ejection fraction in %."""
    return 100 * (1 - emptied / np.where(full > 0, full, np.nan))
