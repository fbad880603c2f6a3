"""The file layouts of public cardiac cohorts: where the images lie, and what the tables say of them.

A layout is one function: folder → {scan id: function that finds the scan's files}. It reads the tables and lists the
scans; only when an entry is called is that scan's own row judged, so one bad row does not hide the good ones. What
makes the table as a whole unusable (a missing column, a scan listed twice) is raised at once. To add a layout, write
such a function and enter it in `LAYOUTS`. In every layout a volume may be packed (.nii.gz) or not (.nii), hidden files
are passed over, and two entries beyond the publication's may be stated per scan: `Patient`, where one person has
several scans, and `accept`, the checks of `cmri_lib.cohort.plausibility` whose finding was looked at and is right.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from cmri_lib.cohort.case import LABELS, PHASES
from cmri_lib.cohort.plausibility import accepted_checks
from cmri_lib.cohort.readers.files import ENDINGS, hidden, visible_files, volume
from cmri_lib.cohort.readers.tables import covariates_of, find_table, frame_number, read_info, read_table, refuse_repeats
from cmri_lib.errors import DataError

#: Stored label → the library's label.
SAME_LABELS = {value: value for value in LABELS.values()}
ACDC_LABELS = {1: LABELS["RV"], 2: LABELS["Myo"], 3: LABELS["LV"]}
#: In the order of the training set 001–100, 20 patients each.
ACDC_GROUPS = ("DCM", "HCM", "MINF", "NOR", "RV")
#: ACDC publishes one examination under two numbers: equal images, contoured twice. Number → the person's number.
ACDC_SAME_PERSON = {"patient076": "patient074"}
#: M&Ms codes its vendors A Siemens, B Philips, C General Electric, D Canon.
MNMS_VENDORS = ("A", "B", "C", "D")
MNMS2_VENDORS = {"siemens": "Siemens", "philips": "Philips", "ge": "GE", "general electric": "GE"}
_MNMS_COLUMNS = ("External code", "VendorName", "Vendor", "Centre", "ED", "ES", "Pathology")
_OF_EVERY_LAYOUT = ("Patient", "accept")
#: The subjects of M&Ms-2 are numbered in the order of the challenge: training up to 160, validation up to 200.
MNMS2_TRAINING, MNMS2_VALIDATION = 160, 200


@dataclass(frozen=True)
class PhaseFiles:
    """Files of one phase; `frame` is the index (from 0) in a cine, None where the file holds the phase alone."""

    image: Path
    mask: Path
    tissues: Path | None = None
    frame: int | None = None


@dataclass(frozen=True)
class ScanFiles:
    """One scan as its cohort's table describes it, before a voxel is read. Fields as in `Case`, and:

    phases: "ED"/"ES" → its files.
    labels: stored label → library label.
    table: the file that describes the scan, for messages.
    official: the challenge's own part ("training", "validation", "testing"), or "".
    labelled: False for scans that a challenge published without ground truth.
    accept: names of the checks whose finding the table accepts.
    nominal: the cohort's affines do not say how its scans lie, see `arrange`.
    """

    patient: str
    scan: str
    phases: dict[str, PhaseFiles]
    labels: dict[int, int]
    table: Path
    vendor: str = "unknown"
    centre: str = "unknown"
    disease: str = "unknown"
    covariates: dict[str, Any] = field(default_factory=dict)
    official: str = ""
    labelled: bool = True
    accept: frozenset[str] = frozenset()
    nominal: bool = False


Entries = dict[str, Callable[[], ScanFiles]]


def acdc(folder: Path) -> Entries:
    """ACDC: ``[training|testing]/patientNNN/{Info.cfg, patientNNN_frameFF.nii.gz, …_gt.nii.gz}``; frames from 1;
    labels 1 RV, 2 Myo, 3 LV; all scanned by Siemens (Bernard et al., IEEE TMI 2018). Its affines are nominal: they
    state x to the right and y to anterior, but in every scan the RV lies at small x, so x runs to the left."""
    patients = sorted(p for parent in (folder, folder / "training", folder / "testing")
                      for p in parent.glob("patient*") if p.is_dir())
    refuse_repeats([p.name for p in patients], folder, "patient folder")
    return {p.name: partial(_acdc_scan, p) for p in patients}


def _acdc_scan(folder: Path) -> ScanFiles:
    patient, info_file = folder.name, folder / "Info.cfg"
    info = read_info(info_file, required=("ED", "ES", "Group"))
    if info["Group"] not in ACDC_GROUPS:
        raise DataError(f"group {info['Group']!r} is unknown", file=info_file, field="Group",
                        remedy=f"use one of {', '.join(ACDC_GROUPS)}")
    frames = _two_frames(info, info_file, first=1)
    phases = {}
    for phase, frame in frames.items():
        stem = f"{patient}_frame{frame:02d}"
        phases[phase] = _files(PhaseFiles(volume(folder / stem), volume(folder / f"{stem}_gt")), info_file, phase)
    official = folder.parent.name if folder.parent.name in ("training", "testing") else ""
    person = info.get("Patient") or ACDC_SAME_PERSON.get(patient, patient)
    return ScanFiles(person, patient, phases, ACDC_LABELS, info_file, vendor="Siemens",
                     disease=info["Group"], covariates=covariates_of(info, ("ED", "ES", "Group", *_OF_EVERY_LAYOUT)),
                     official=official, accept=_accepted(info, info_file), nominal=True)


def mnms(folder: Path) -> Entries:
    """M&Ms: cines ``<code>_sa.nii.gz`` and ``<code>_sa_gt.nii.gz`` anywhere below the folder, one CSV at its top with
    frames from 0; labels as in the library (Campello et al., IEEE TMI 2021). Optional beyond the challenge: a file
    ``<code>_sa_tissues.nii.gz``. A copy that holds files of ED and ES instead of cines needs the layout "folder"."""
    table = find_table(folder, _MNMS_COLUMNS[0])
    rows = read_table(table, _MNMS_COLUMNS)
    images: dict[str, list[Path]] = {}
    for path in visible_files(folder):
        if ending := next((e for e in ENDINGS if path.name.endswith(f"_sa{e}")), None):
            images.setdefault(path.name.removesuffix(f"_sa{ending}"), []).append(path)
    codes = [row["External code"] for row in rows]
    refuse_repeats(codes, table, "External code")
    entries: Entries = {row["External code"]: partial(_mnms_scan, row, table, images) for row in rows}
    return entries | _unlisted((c for c in images if c not in entries), table, "External code")


def _mnms_scan(row: dict[str, str], table: Path, images: dict[str, list[Path]]) -> ScanFiles:
    code = row["External code"]
    if code not in images:
        single = any(p.name.startswith(f"{code}_") and "ED" in p.name for p in visible_files(table.parent))
        raise DataError(f"no {code}_sa.nii.gz below {table.parent}" + (", but single frames" if single else ""),
                        file=table, field="External code", remedy="list the files of ED and ES in a table of the "
                        "layout 'folder'" if single else "complete the download, or take the row out of the table")
    if len(images[code]) > 1:
        raise DataError(f"{len(images[code])} files are the cine of {code}: "
                        f"{', '.join(str(p.relative_to(table.parent)) for p in images[code])}", file=table,
                        field="External code", remedy="keep the right one; which that is cannot be known from here")
    if row["Vendor"] not in MNMS_VENDORS:
        raise DataError(f"scan {code}: vendor {row['Vendor']!r} is unknown", file=table, field="Vendor",
                        remedy=f"use one of {', '.join(MNMS_VENDORS)}")
    image, = images[code]
    parts = {part.lower() for part in image.relative_to(table.parent).parts[:-1]}
    labelled = "unlabeled" not in parts  # the challenge's own spelling
    return ScanFiles(row.get("Patient") or code, code, _mnms_phases(row, table, image) if labelled else {}, SAME_LABELS,
                     table, vendor=_stated(row, "VendorName", table), centre=row["Centre"] or "unknown",
                     disease=row["Pathology"] or "unknown",
                     covariates=covariates_of(row, (*_MNMS_COLUMNS, *_OF_EVERY_LAYOUT)),
                     official=next(iter(parts & {"training", "validation", "testing"}), ""), labelled=labelled,
                     accept=_accepted(row, table))


def _mnms_phases(row: dict[str, str], table: Path, image: Path) -> dict[str, PhaseFiles]:
    mask, tissues = (volume(image.with_name(f"{row['External code']}_sa_{kind}")) for kind in ("gt", "tissues"))
    return {phase: _files(PhaseFiles(image, mask, tissues if os.path.isfile(tissues) else None, frame), table, phase)
            for phase, frame in _two_frames(row, table, first=0).items()}


def mnms2(folder: Path) -> Entries:
    """M&Ms-2: ``dataset/NNN/NNN_SA_{ED,ES}[_gt].nii.gz`` and ``dataset_information.csv``; the long-axis views are not
    read; labels as in the library (Martín-Isla et al., IEEE JBHI 2023)."""
    columns = ("SUBJECT_CODE", "DISEASE", "VENDOR", "SCANNER", "FIELD")
    table = find_table(folder, columns[0])
    rows = read_table(table, columns)
    for row in rows:
        row["SUBJECT_CODE"] = row["SUBJECT_CODE"].zfill(3)
    refuse_repeats([row["SUBJECT_CODE"] for row in rows], table, "SUBJECT_CODE")
    images = folder / "dataset" if (folder / "dataset").is_dir() else folder
    entries: Entries = {row["SUBJECT_CODE"]: partial(_mnms2_scan, row, table, images) for row in rows}
    present = sorted(p.name for p in images.iterdir() if p.is_dir() and p.name.isdecimal())
    return entries | _unlisted((c for c in present if c not in entries), table, "SUBJECT_CODE")


def _mnms2_scan(row: dict[str, str], table: Path, images: Path) -> ScanFiles:
    code, stated = row["SUBJECT_CODE"], row["VENDOR"].lower()
    if not code.isdecimal():
        raise DataError(f"subject {code!r} is not a number", file=table, field="SUBJECT_CODE",
                        remedy="use the challenge's numbers, 1 to 360")
    vendor = next((name for start, name in MNMS2_VENDORS.items() if f"{stated} ".startswith(f"{start} ")), None)
    if vendor is None:
        raise DataError(f"scan {code}: vendor {row['VENDOR']!r} is unknown", file=table, field="VENDOR",
                        remedy=f"use one of {', '.join(sorted(set(MNMS2_VENDORS.values())))}")
    phases = {}
    for phase in PHASES:
        stem = f"{code}_SA_{phase}"
        files = PhaseFiles(volume(images / code / stem), volume(images / code / f"{stem}_gt"))
        phases[phase] = _files(files, table, phase)
    number = int(code)
    official = ("training" if number <= MNMS2_TRAINING else
                "validation" if number <= MNMS2_VALIDATION else "testing")
    return ScanFiles(row.get("Patient") or code, code, phases, SAME_LABELS, table, vendor=vendor,
                     disease=row["DISEASE"] or "unknown", official=official, accept=_accepted(row, table),
                     covariates=covariates_of(row, ("SUBJECT_CODE", "DISEASE", "VENDOR", *_OF_EVERY_LAYOUT)))


def nifti_folder(folder: Path) -> Entries:
    """A plain folder: one CSV with a row per scan and phase and the columns patient, phase, image, mask (paths below
    the CSV's folder); optional scan, vendor, centre, disease, tissues, accept; every further column is a covariate."""
    columns = ("patient", "phase", "image", "mask")
    table = find_table(folder, *columns)
    rows = read_table(table, columns)
    refuse_repeats([f"{row.get('scan') or row['patient']} {row['phase']}" for row in rows], table, "patient, phase")
    scans: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        scans.setdefault(row.get("scan") or row["patient"], []).append(row)
    return {scan: partial(_folder_scan, scan, rows, table) for scan, rows in scans.items()}


def _folder_scan(scan: str, rows: list[dict[str, str]], table: Path) -> ScanFiles:
    first = rows[0]
    if len({row["patient"] for row in rows}) > 1:
        raise DataError(f"scan {scan!r} belongs to several patients", file=table, field="patient",
                        remedy="give every scan one patient")
    phases = {}
    for row in rows:
        if row["phase"] not in PHASES:
            raise DataError(f"scan {scan!r}: phase {row['phase']!r} is unknown", file=table, field="phase",
                            remedy="use ED or ES")
        image, mask, tissues = (_inside(row[c], c, table) if row.get(c) else None for c in ("image", "mask", "tissues"))
        if image is None or mask is None:
            raise DataError(f"scan {scan!r}: {row['phase']} has no file", file=table,
                            field="mask" if image else "image", remedy="give both paths")
        phases[row["phase"]] = _files(PhaseFiles(image, mask, tissues), table, row["phase"])
    if missing := [phase for phase in PHASES if phase not in phases]:
        raise DataError(f"scan {scan!r}: phase {missing[0]} is missing", file=table, field="phase",
                        remedy="add a row for each of ED and ES")
    roles = [(f"{phase} {kind}", path) for phase in PHASES for kind in ("image", "mask", "tissues")
             if (path := getattr(phases[phase], kind))]
    for (role, path), (other_role, other) in combinations(roles, 2):
        if path.resolve() == other.resolve():
            raise DataError(f"scan {scan!r}: {role} and {other_role} are the same file, {path.name}", file=table,
                            field=other_role.split()[1], remedy="give every phase its image and its mask, a file each")
    identity = ("patient", "scan", "phase", "image", "mask", "tissues", "vendor", "centre", "disease", "accept")
    stated = {c: _stated(first, c, table) for c in ("vendor", "centre", "disease") if c in first}
    return ScanFiles(_stated(first, "patient", table), scan, phases, SAME_LABELS, table, **stated,
                     covariates=covariates_of(first, identity),
                     accept=frozenset().union(*(_accepted(row, table) for row in rows)))


#: Name of a layout → the function that lists its scans.
LAYOUTS: dict[str, Callable[[Path], Entries]] = {"acdc": acdc, "mnms": mnms, "mnms2": mnms2, "folder": nifti_folder}


def _two_frames(fields: dict[str, str], file: Path, first: int) -> dict[str, int]:
    """ED and ES frame numbers, which must differ and not lie before `first`."""
    frames = {phase: frame_number(fields, phase, file, first) for phase in PHASES}
    if frames["ED"] == frames["ES"]:
        raise DataError(f"ED and ES are the same frame, {frames['ED']}", file=file, field="ED, ES",
                        remedy="give the frames of largest and smallest LV volume")
    return frames


def _files(files: PhaseFiles, table: Path, phase: str) -> PhaseFiles:
    """`files`, if they exist."""
    for kind in ("image", "mask", "tissues"):
        path = getattr(files, kind)
        if path is not None and not os.path.isfile(path):
            stem = path.name.removesuffix(".gz").removesuffix(".nii")
            beside = [name for e in ENDINGS if os.path.isfile(path.with_name(name := f"{stem}{e}"))]
            raise DataError(f"no such file ({phase} {kind} of {table})" + (f", but {beside[0]}" if beside else ""),
                            file=path, field=f"{phase} {kind}", remedy="copy the file there, or correct the table")
    return files


def _inside(text: str, column: str, table: Path) -> Path:
    """The file that a table names by its path from the table's folder."""
    parts = Path(os.path.normpath(text)).parts
    if os.path.isabs(text) or os.pardir in parts:
        raise DataError(f"{text!r} leads out of the cohort's folder", file=table, field=column,
                        remedy="move the file (or a link to it) into the folder and give its path from there")
    if any(hidden(part) for part in parts):
        raise DataError(f"{text!r} is a hidden file", file=table, field=column,
                        remedy="give files and folders names that do not begin with a dot")
    return table.parent / text


def _accepted(fields: dict[str, str], table: Path) -> frozenset[str]:
    return accepted_checks(fields.get("accept", ""), table)


def _stated(row: dict[str, str], column: str, table: Path) -> str:
    if not row[column]:
        raise DataError("empty value", file=table, field=column,
                        remedy="fill the column in every row ('unknown' will do)")
    return row[column]


def _unlisted(scans: Iterable[str], table: Path, column: str) -> Entries:
    """Entries for images that no row describes: reported like any bad case, never silently left out."""
    def refuse(scan: str) -> ScanFiles:
        raise DataError(f"images of {scan} have no row", file=table, field=column,
                        remedy="add the row, or move the images out of the folder")
    return {scan: partial(refuse, scan) for scan in scans}
