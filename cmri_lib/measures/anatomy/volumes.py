"""Clinical indices of a labelled scan: volumes, ejection fractions, mass, wall thickness.

Summation of discs: the area of a structure on every slice times the slice distance.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import ndimage

from cmri_lib.cohort.case import LABELS, Case
from cmri_lib.phantom.disease import body_surface

#: g per mL of myocardium.
MYOCARDIAL_DENSITY = 1.05


def volume_ml(case: Case, structure: str, phase: str) -> float:
    """Volume of a structure in mL, by summation of discs."""
    return float((case.volumes[phase].mask == LABELS[structure]).sum() * np.prod(case.spacing) / 1000)


def wall_thickness_mm(case: Case, phase: str = "ED") -> float:
    """Thickest part of the LV wall in mm: the diameter of the largest disc that fits into the myocardium.

    Only slices whose cavity has at least 40 % of the largest cavity area count: towards the apex the plane cuts the wall
    obliquely and it looks thicker than it is.
    """
    volume = case.volumes[phase]
    cavity = (volume.mask == LABELS["LV"]).sum((1, 2))
    widest = [0.0]
    for labels in volume.mask[cavity >= 0.4 * max(1, cavity.max())]:
        depth = ndimage.distance_transform_edt(np.pad(labels == LABELS["Myo"], 1), sampling=case.spacing[1:])
        widest.append(2 * depth.max() - min(case.spacing[1:]))  # distances run from pixel centre to pixel centre
    return max(widest)


def known_surface(case: Case) -> float:
    """Body surface area in m², NaN unless the table gives height (cm) and weight (kg)."""
    known = {k.lower(): v for k, v in case.covariates.items()}
    try:
        height, weight = float(known["height"]), float(known["weight"])
    except (KeyError, TypeError, ValueError):
        return float("nan")
    return body_surface(height, weight)


def clinical_indices(case: Case) -> dict[str, object]:
    """EF (%) of both ventricles, end-diastolic volumes (mL, and mL/m² where the body's size is known), LV mass (g),
    largest wall thickness in diastole (mm)."""
    edv, esv = (volume_ml(case, "LV", phase) for phase in ("ED", "ES"))
    right, right_esv = (volume_ml(case, "RV", phase) for phase in ("ED", "ES"))
    surface = known_surface(case)
    return {"scan": case.scan, "patient": case.patient, "vendor": case.vendor, "disease": case.disease,
            "LV EF (%)": 100 * (1 - esv / edv), "LV EDV (mL)": edv, "LV EDV index (mL/m²)": edv / surface,
            "LV mass (g)": MYOCARDIAL_DENSITY * volume_ml(case, "Myo", "ED"), "wall (mm)": wall_thickness_mm(case),
            "RV EDV index (mL/m²)": right / surface, "RV EF (%)": 100 * (1 - right_esv / right)}


def indices_table(cases: list[Case]) -> pd.DataFrame:
    """`clinical_indices` of every scan, one row each."""
    return pd.DataFrame([clinical_indices(case) for case in cases])
