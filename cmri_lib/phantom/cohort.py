"""The phantom cohort: virtual patients, drawn, scanned and written in the layout of M&Ms.

``python -m cmri_lib.phantom.cohort --out DIR --patients N --paired M --seed S --resolution FACTOR`` makes a larger or
finer one. Every patient has random streams of its own, so the cohort does not depend on the order or the number of
processes, and a patient alone equals the same patient in the cohort.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import delayed

from cmri_lib.cohort.case import PHASES, Case
from cmri_lib.cohort.jobs import results, worker_count
from cmri_lib.cohort.readers.nifti import write_nifti
from cmri_lib.errors import ParameterError, command
from cmri_lib.phantom.anatomy import Anatomy, draw_anatomy, patient_name
from cmri_lib.phantom.disease import DISEASES
from cmri_lib.phantom.scanner import scan
from cmri_lib.phantom.vendors import VENDORS, vendor_of

SEED = 2026
PAIRED_DISTANCE = 9.6  # mm; one plan for all vendors, so that the slices of a pair correspond
_KEYS = tuple(VENDORS)


def virtual_patient(seed: int, number: int, disease: str | None = None) -> Anatomy:
    """Patient `number` of cohort `seed`; the group follows from the number (in turn) unless `disease` is given.

    Raises:
        ParameterError: for an unknown disease or a negative number or seed.
    """
    return draw_anatomy(seed, number, group_of(number) if disease is None else disease)


def group_of(number: int) -> str:
    """The group of patient `number`: all groups in turn."""
    return DISEASES[(number - 1) % len(DISEASES)]


def examinations(patients: int, paired: int) -> list[tuple[int, str, str]]:
    """(patient number, scan id, vendor) of every scan: `patients` are scanned once, by vendors and groups in turn, and
    `paired` further ones by every vendor.

    Raises:
        ParameterError: if both numbers are 0 or one is negative.
    """
    if patients < 0 or paired < 0 or patients + paired == 0:
        raise ParameterError(f"{patients} patients and {paired} paired patients", field="patients",
                             remedy="ask for at least one patient")
    single = [(n, patient_name(n), _KEYS[(n - 1) // len(DISEASES) % len(_KEYS)]) for n in range(1, patients + 1)]
    pairs = [(n, f"{patient_name(n)}{key}", key) for n in range(patients + 1, patients + paired + 1) for key in _KEYS]
    return single + pairs


def truth(anatomy: Anatomy) -> dict[str, float]:
    """What the surfaces of `anatomy` measure: volumes in mL, fractions in %, thickness in mm."""
    ed, es = anatomy.phases["ED"], anatomy.phases["ES"]
    values = {"LVEF": 100 * anatomy.lvef, "LVEDV": ed.lv_volume, "LVESV": es.lv_volume, "RVEF": 100 * anatomy.rvef,
              "RVEDV": ed.rv_volume, "WallThickness": anatomy.wall_thickness}
    return {name: round(value, 1) for name, value in values.items()}


def write_case(case: Case, folder: Path) -> None:
    """Write `case` as ``<scan>/<scan>_sa.nii.gz`` and its ``_gt`` and ``_tissues``: (X, Y, Z, T), T = ED, ES."""
    target = folder / case.scan
    target.mkdir(parents=True, exist_ok=True)
    zooms = (case.spacing[2], case.spacing[1], case.spacing[0], 1.0)
    kinds = (("", "image", np.int16), ("_gt", "mask", np.uint8), ("_tissues", "tissues", np.uint8))
    for suffix, attribute, kind in kinds:
        frames = [getattr(case.volumes[phase], attribute).transpose(2, 1, 0).astype(kind) for phase in PHASES]
        write_nifti(np.stack(frames, -1), zooms, case.affine, target / f"{case.scan}_sa{suffix}.nii.gz")


def _make(folder: Path, seed: int, resolution: float, number: int, scan_id: str, key: str, paired: bool) -> dict:
    """Draw, scan and write one examination; return its row of the table."""
    anatomy = virtual_patient(seed, number)
    # one of the vendor's two hospitals in turn
    turn = number if paired else (number - 1) // (len(DISEASES) * len(_KEYS))
    centre = vendor_of(key).centres[turn % 2]
    case = scan(anatomy, key, seed, distance=PAIRED_DISTANCE if paired else None, resolution=resolution,
                scan_id=scan_id, centre=centre)
    write_case(case, folder)
    known = case.covariates
    return {"External code": scan_id, "VendorName": vendor_of(key).name, "Vendor": key, "Centre": centre,
            "ED": 0, "ES": 1, "Age": known["Age"], "Pathology": case.disease, "Sex": known["Sex"],
            "Height": known["Height"], "Weight": known["Weight"], "Patient": scan_id[:-1] if paired else scan_id,
            "BMI": known["BMI"], "HeartRate": known["HeartRate"], "Field": known["Field"], **truth(anatomy)}


def write_cohort(folder: str | Path, patients: int = 120, paired: int = 10, seed: int = SEED, resolution: float = 1.0,
                 processes: int | None = None) -> pd.DataFrame:
    """Write a cohort in the M&Ms layout to `folder`, and its table to ``phantom.csv``; returns the table.

    Args:
        patients, paired: scanned once, and scanned by every vendor. resolution: pixels per pixel of the protocol.

    Raises:
        ParameterError: for counts, a seed or a resolution out of range.
    """
    if resolution <= 0 or seed < 0:
        raise ParameterError(f"resolution {resolution}, seed {seed}", field="resolution",
                             remedy="give a positive resolution and a seed of 0 or more")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [delayed(_make)(folder, seed, resolution, *job, job[0] > patients) for job in examinations(patients, paired)]
    table = pd.DataFrame(results(jobs, workers=worker_count(processes or 0)))
    table.to_csv(folder / "phantom.csv", index=False)
    return table


@command
def main(arguments: list[str] | None = None) -> int:
    """Command line of `write_cohort`."""
    parser = argparse.ArgumentParser(prog="python -m cmri_lib.phantom.cohort",
                                     description="Write a phantom cohort in the M&Ms layout.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--patients", type=int, default=120, help="scanned once")
    parser.add_argument("--paired", type=int, default=10, help="scanned by every vendor")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--resolution", type=float, default=1.0, help="pixels per pixel of the vendors' protocols")
    options = parser.parse_args(arguments)
    table = write_cohort(options.out, options.patients, options.paired, options.seed, options.resolution)
    print(f"{len(table)} scans of {table['Patient'].nunique()} patients in {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
