"""Writers of the four cohort layouts, for the tests of their readers. Byte by byte, independent of the reading code."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from cmri_lib.cohort.case import Case, Volume

ACDC_STORED = np.array([0, 3, 2, 1], np.uint8)  # library label → stored label
FRAMES = {"acdc": {"ED": 1, "ES": 9}, "mnms": {"ED": 2, "ES": 0}}
MNMS_HEADER = ["", "External code", "VendorName", "Vendor", "Centre", "ED", "ES", "Age", "Pathology", "Sex", "Height",
               "Weight", "Patient", "accept"]


SPACING = (10.0, 4.0, 3.5)
SHAPE = (4, 16, 15)


def random_case(seed: int = 0, *, scan: str = "patient001", patient: str | None = None, shape=SHAPE, spacing=SPACING,
                dataset: str = "acdc", tissues: bool = False, **stated) -> Case:
    """A small heart somewhere in noise of whole numbers: in every slice a square LV in a ring of myocardium, the RV at
    its left. At ES the LV is smaller and the wall thicker."""
    rng = np.random.default_rng(seed)
    y, x = (int(rng.integers(margin, side - 5)) for margin, side in zip((6, 8), shape[1:]))
    volumes = {}
    for phase, lv, wall in (("ED", 3, 4), ("ES", 1, 4)):
        mask = np.zeros(shape, np.uint8)
        rows, columns = np.indices(shape[1:])
        distance = np.maximum(abs(rows - y), abs(columns - x))
        mask[:, (abs(rows - y) < 4) & (columns >= x - 8) & (columns < x)] = 3
        mask[:, distance <= wall] = 2
        mask[:, distance <= lv] = 1
        bright = np.array([0, 500, 100, 450])[mask]
        tissue = np.where(mask > 0, mask, rng.integers(4, 11, shape)).astype(np.uint8) if tissues else None
        volumes[phase] = Volume((bright + rng.integers(0, 400, shape)).astype(np.float32), mask, tissue)
    stated = {"vendor": "Siemens", "disease": "NOR", **stated}
    return Case(patient or scan, scan, volumes, spacing, affine(spacing), dataset=dataset, **stated)


def affine(spacing: tuple[float, float, float]) -> np.ndarray:
    """Columns to the left, rows to posterior, slices upwards; NIfTI's x and y run to the right and to anterior."""
    dz, dy, dx = spacing
    return np.array([[-dx, 0, 0, 40], [0, -dy, 0, -30.5], [0, 0, dz, 12], [0, 0, 0, 1]], np.float64)


def nifti_bytes(voxels: np.ndarray, spacing, dtype="<i2", slope: float = np.nan, intercept: float = np.nan,
                turned: bool = False) -> bytes:
    """(…, Z, H, W) → an uncompressed NIfTI-1 file, where stored = voxels and value = slope · stored + intercept;
    `turned` states x and y the other way round, as ACDC does."""
    dtype = np.dtype(dtype)
    header = nib.Nifti1Header(endianness="<" if dtype.str[0] in "<|" else ">")
    header.set_data_dtype(dtype)
    header.set_data_shape(voxels.shape[::-1])
    header.set_sform(np.diag([-1, -1, 1, 1] if turned else [1, 1, 1, 1]) @ affine(spacing), 1)
    header["pixdim"][1:4] = spacing[::-1]
    header["xyzt_units"] = 2
    header["vox_offset"], header["magic"] = 352, b"n+1"
    header["scl_slope"], header["scl_inter"] = slope, intercept
    return header.binaryblock + bytes(4) + voxels.astype(dtype).tobytes()


def write_nifti(path: Path, voxels: np.ndarray, spacing=SPACING, dtype="<i2", **header) -> None:
    """Write `voxels` (…, Z, H, W) to `path`, compressed if it ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = nifti_bytes(voxels, spacing, dtype, **header)
    path.write_bytes(gzip.compress(content, 1, mtime=0) if path.suffix == ".gz" else content)


def write_csv(path: Path, rows: list[list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def write_acdc(folder: Path, cases: list[Case], dtype="<i2", part: str = "training", **scaling) -> None:
    for case in cases:
        home = folder / part / case.scan
        for phase, volume in case.volumes.items():
            stem = f"{case.scan}_frame{FRAMES['acdc'][phase]:02d}"
            write_nifti(home / f"{stem}.nii.gz", volume.image, case.spacing, dtype, turned=True, **scaling)
            write_nifti(home / f"{stem}_gt.nii.gz", ACDC_STORED[volume.mask], case.spacing, "u1", turned=True)
        lines = {"ED": 1, "ES": 9, "Group": case.disease, **case.covariates}
        (home / "Info.cfg").write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))


def write_mnms(folder: Path, cases: list[Case], dtype="<i2", part: str = "Training/Labeled", **scaling) -> None:
    rows = [MNMS_HEADER]
    for number, case in enumerate(cases):
        for kind, attribute, stored in (("", "image", dtype), ("_gt", "mask", "u1"), ("_tissues", "tissues", "u1")):
            if getattr(case.volumes["ED"], attribute) is None:
                continue
            cine = np.zeros((3, *case.volumes["ED"].image.shape))
            for phase, frame in FRAMES["mnms"].items():
                cine[frame] = getattr(case.volumes[phase], attribute)
            write_nifti(folder / part / case.scan / f"{case.scan}_sa{kind}.nii.gz", cine, case.spacing, stored,
                        **({} if kind else scaling))
        of = case.covariates.get
        rows.append([number, case.scan, case.vendor, "A", case.centre, FRAMES["mnms"]["ED"], FRAMES["mnms"]["ES"],
                     of("Age", ""), case.disease, of("Sex", ""), of("Height", ""), of("Weight", ""), case.patient,
                     of("accept", "")])
    write_csv(folder / "information.csv", rows)


def write_mnms2(folder: Path, cases: list[Case], dtype="<i2", **scaling) -> None:
    rows = [["SUBJECT_CODE", "DISEASE", "VENDOR", "SCANNER", "FIELD", "accept"]]
    for case in cases:
        for phase, volume in case.volumes.items():
            stem = folder / "dataset" / case.scan / f"{case.scan}_SA_{phase}"
            write_nifti(Path(f"{stem}.nii.gz"), volume.image, case.spacing, dtype, **scaling)
            write_nifti(Path(f"{stem}_gt.nii.gz"), volume.mask, case.spacing, "u1")
        rows.append([int(case.scan), case.disease, f"{case.vendor.upper()} Medical Systems",
                     case.covariates.get("SCANNER", ""), case.covariates.get("FIELD", ""),
                     case.covariates.get("accept", "")])
    write_csv(folder / "dataset_information.csv", rows)


def write_folder(folder: Path, cases: list[Case], dtype="<i2", suffix: str = ".nii", **scaling) -> None:
    names = sorted({name for case in cases for name in case.covariates})
    rows = [["patient", "scan", "phase", "image", "mask", "tissues", "vendor", "centre", "disease", *names]]
    for case in cases:
        for phase, volume in case.volumes.items():
            files = {kind: f"images/{case.scan}_{phase}_{kind}{suffix}" for kind in ("image", "mask", "tissues")}
            write_nifti(folder / files["image"], volume.image, case.spacing, dtype, **scaling)
            write_nifti(folder / files["mask"], volume.mask, case.spacing, "u1")
            if volume.tissues is None:
                files["tissues"] = ""
            else:
                write_nifti(folder / files["tissues"], volume.tissues, case.spacing, "u1")
            rows.append([case.patient, case.scan, phase, *files.values(), case.vendor, case.centre, case.disease,
                         *(case.covariates.get(name, "") for name in names)])
    write_csv(folder / "scans.csv", rows)


WRITERS = {"acdc": write_acdc, "mnms": write_mnms, "mnms2": write_mnms2, "folder": write_folder}
#: Ids that the layouts' own naming allows.
SCANS = {"acdc": ["patient001", "patient002"], "mnms": ["A0S9V9", "B1X2Y3"], "mnms2": ["001", "161"],
         "folder": ["first", "second"]}


def write_two(folder: Path, layout: str) -> list[Case]:
    """A good cohort of two scans in `layout`; the cases written."""
    cases = [random_case(seed, scan=scan) for seed, scan in enumerate(SCANS[layout])]
    WRITERS[layout](folder, cases)
    return cases
