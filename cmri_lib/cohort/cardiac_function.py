"""Cardiac function from label maps: volumes, ejection fractions, mass, wall thickness, body surface area.

The only place of these formulas in the study. Volumes are read from whole stored scans (`Case`) or from
preprocessed slices, real or synthetic (`Slices`), by the same summation of discs, as in clinical practice
(Schulz-Menger et al., J Cardiovasc Magn Reson 22:19, 2020).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from scipy import ndimage

from cmri_lib.cohort.case import LABELS, Case
from cmri_lib.cohort.slices import PHENOTYPES, Slices
from cmri_lib.errors import DataError

#: The columns that name a scan.
SCAN = ["patient", "scan"]
#: g per mL of myocardium (Schulz-Menger et al. 2020).
MYOCARDIAL_DENSITY = 1.05


def areas_mm2(masks: np.ndarray, structure: str, pixel_mm2: float | np.ndarray) -> np.ndarray:
    """(N,) area in mm² of a structure of `LABELS` on every slice of label maps (N, H, W).

    `pixel_mm2` is the area of a pixel in mm²: one for all slices, or (N,).
    """
    return (masks == LABELS[structure]).sum((1, 2)) * pixel_mm2


def volume_ml(areas: np.ndarray, slice_mm: float | np.ndarray) -> float:
    """Volume in mL by summation of discs: Σ area × slice distance.

    `areas` (N,) in mm² of the slices of one phase; `slice_mm`, one or (N,), the distance between slices in mm
    (not their thickness, so that gaps are counted).
    """
    return float((areas * slice_mm).sum() / 1000)


def ejection_fraction(edv: float | np.ndarray, esv: float | np.ndarray) -> float | np.ndarray:
    """(EDV − ESV) / EDV as a fraction of 1, from volumes in one unit; NaN where `edv` is not positive."""
    return 1 - esv / np.where(np.asarray(edv) > 0, edv, np.nan)


def myocardial_mass(volume: float) -> float:
    """Mass in g of `volume` mL of myocardium."""
    return MYOCARDIAL_DENSITY * volume


def body_surface(height: float | np.ndarray, weight: float | np.ndarray) -> float | np.ndarray:
    """Body surface area in m² from height in cm and weight in kg: √(height × weight / 3600).

    Source: Mosteller, N Engl J Med 317:1098 (1987).

    Raises:
        DataError: if a height or a weight is not positive.
    """
    for field, values in (("height", height), ("weight", weight)):
        if (np.asarray(values) <= 0).any():
            raise DataError(f"{field} {np.min(values)} is not positive", field=field, remedy="give cm and kg")
    return np.sqrt(height * weight / 3600)


def phenotypes(volumes: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """`PHENOTYPES` from phase → structure → volume in mL; NaN where the phase they need is absent, and an
    ejection fraction also where the cavity is empty at ED."""
    ed, es = (volumes.get(phase, dict.fromkeys(LABELS, np.nan)) for phase in ("ED", "ES"))
    return {"lvef": 100 * float(ejection_fraction(ed["LV"], es["LV"])),
            "rvef": 100 * float(ejection_fraction(ed["RV"], es["RV"])),
            "lvedv": ed["LV"], "lvesv": es["LV"], "rvedv": ed["RV"], "myoedv": ed["Myo"]}


# --- from whole scans
def case_volumes(case: Case) -> dict[str, dict[str, float]]:
    """Phase → structure → volume in mL of a stored scan."""
    distance, row, column = case.spacing
    return {phase: {name: volume_ml(areas_mm2(volume.mask, name, row * column), distance) for name in LABELS}
            for phase, volume in case.volumes.items()}


def wall_thickness_mm(case: Case, phase: str = "ED") -> float:
    """Thickest part of the LV wall in mm: the diameter of the largest disc that fits into the myocardium.

    Only slices whose cavity has at least 40 % of the largest cavity area count: towards the apex the plane
    cuts the wall obliquely and it looks thicker than it is.
    """
    mask, pixel = case.volumes[phase].mask, case.spacing[1:]
    cavity = areas_mm2(mask, "LV", 1.0)
    widest = [0.0]
    for labels in mask[cavity >= 0.4 * max(1, cavity.max())]:
        depth = ndimage.distance_transform_edt(np.pad(labels == LABELS["Myo"], 1), sampling=pixel)
        widest.append(2 * depth.max() - min(pixel))  # distances run from pixel centre to pixel centre
    return float(max(widest))


def case_surface(case: Case) -> float:
    """Body surface area in m²; NaN unless the cohort's table gives a positive height (cm) and weight (kg)."""
    known = {name.lower(): value for name, value in case.covariates.items()}
    try:
        height, weight = float(known["height"]), float(known["weight"])
    except (KeyError, TypeError, ValueError):
        return float("nan")
    return float(body_surface(height, weight)) if height > 0 and weight > 0 else float("nan")


def clinical_indices(case: Case) -> dict[str, object]:
    """EF (%) of both ventricles, end-diastolic volumes (mL, and mL/m² where the body's size is known), LV
    mass (g), largest wall thickness in diastole (mm). NaN where `phenotypes` or `case_surface` is."""
    found, surface = phenotypes(case_volumes(case)), case_surface(case)
    return {"scan": case.scan, "patient": case.patient, "vendor": case.vendor, "disease": case.disease,
            "LV EF (%)": found["lvef"], "LV EDV (mL)": found["lvedv"],
            "LV EDV index (mL/m²)": found["lvedv"] / surface, "LV mass (g)": myocardial_mass(found["myoedv"]),
            "wall (mm)": wall_thickness_mm(case), "RV EDV index (mL/m²)": found["rvedv"] / surface,
            "RV EF (%)": found["rvef"]}


def indices_table(cases: Iterable[Case]) -> pd.DataFrame:
    """`clinical_indices` of every scan, one row each."""
    return pd.DataFrame([clinical_indices(case) for case in cases])


# --- from preprocessed slices
def phenotype_table(slices: Slices) -> pd.DataFrame:
    """One row per scan, in order of patient and scan: the columns `SCAN` and `PHENOTYPES`.

    A volume is summed over the slices of a phase that `slices` hold, so give it whole scans. NaN where a
    phase is missing, and EF also where the cavity is empty at ED.

    Raises:
        DataError: if a slice of a scan occurs twice, for its area would count twice; if a `spacing` or
            `slice_mm` is not positive.
    """
    table = slices.table
    if (repeated := table["scan"][table.duplicated([*SCAN, "phase", "index"])]).any():
        raise DataError(f"scan {repeated.iloc[0]} has a slice more than once", field="index",
                        remedy="give every sample a scan of its own")
    spacing, slice_mm = (table[column].to_numpy(float) for column in ("spacing", "slice_mm"))
    for field, values in (("spacing", spacing), ("slice_mm", slice_mm)):
        if not (values > 0).all():
            raise DataError("a voxel has no volume", field=field, remedy="give spacing and slice_mm in mm")
    areas = {name: areas_mm2(slices.masks, name, spacing**2) for name in LABELS}
    volumes: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for (patient, scan, phase), rows in table.groupby([*SCAN, "phase"]).indices.items():
        volumes.setdefault((patient, scan), {})[phase] = {
            name: volume_ml(areas[name][rows], slice_mm[rows]) for name in LABELS}
    found = [dict(zip(SCAN, scan)) | phenotypes(of_scan) for scan, of_scan in sorted(volumes.items())]
    return pd.DataFrame(found, columns=[*SCAN, *PHENOTYPES])


def with_phenotypes(slices: Slices) -> Slices:
    """The same slices with the columns `PHENOTYPES` of `phenotype_table`, alike in all slices of a scan.

    Raises:
        DataError: as `phenotype_table`.
    """
    rows = slices.table[SCAN].merge(phenotype_table(slices), on=SCAN, how="left")
    return slices.with_columns(**{name: rows[name].to_numpy(float) for name in PHENOTYPES})
