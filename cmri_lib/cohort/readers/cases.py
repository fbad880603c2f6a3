"""From a folder of files to `Case`s: the same for every layout of `cmri_lib.cohort.readers.layouts`.

    cohort = read_cohort("data/acdc", "acdc")          # stops at the first bad case
    cohort = read_dataset("data/phantom")              # the layout is the data set's own
    cohort.cases, cohort.report, cohort.table
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import yaml
from joblib import delayed

from cmri_lib.cohort.case import PHASES, TISSUES, Case, Volume
from cmri_lib.cohort.jobs import results
from cmri_lib.cohort.plausibility import require_plausible
from cmri_lib.cohort.readers.geometry import Arrangement, Grid, arrange, disagreement
from cmri_lib.cohort.readers.layouts import LAYOUTS, Entries, ScanFiles
from cmri_lib.cohort.readers.nifti import read_frames, read_header
from cmri_lib.errors import DataError, ParameterError, StudyError

#: Names a data set's layout, beside its files.
COHORT_FILE = "cohort.yaml"
OnBadCase = Literal["stop", "skip"]
_TISSUE_LABELS = {value: value for value in TISSUES.values()}


@dataclass(frozen=True)
class Cohort:
    """The scans of one data set.

    Attributes:
        cases: those that could be read.
        report: one row per scan found: scan, patient, status ("read", "bad", "unlabelled"), problem, and findings:
            what looks unlike a heart and was accepted in the table.
    """

    cases: list[Case]
    report: pd.DataFrame

    @property
    def table(self) -> pd.DataFrame:
        """One row per case: patient, scan, dataset, vendor, centre, disease, and the covariates."""
        names = ("patient", "scan", "dataset", "vendor", "centre", "disease")
        return pd.DataFrame([{**case.covariates, **{n: getattr(case, n) for n in names}} for case in self.cases],
                            columns=None if self.cases else list(names))

    def of_patients(self, patients: Collection[str]) -> Cohort:
        """The same without the scans of anybody else; the report stays that of all."""
        return replace(self, cases=[case for case in self.cases if case.patient in patients])


@dataclass(frozen=True)
class _Content:
    """One phase of one file, brought to the library's axes: how, its grid then, the number of frames in the file, and
    the (Z, H, W) voxels."""

    arrangement: Arrangement
    grid: Grid
    frames: int
    voxels: np.ndarray


def find_scans(folder: str | Path, layout: str) -> list[ScanFiles]:
    """The scans of `folder`, from its tables and file names alone; no voxel is read.

    Raises:
        DataError: on the first scan whose row or files cannot be used, or if the folder or its table cannot be.
        ParameterError: if there is no such layout.
    """
    return [find() for find in _entries(Path(folder), layout).values()]


def read_scan(files: ScanFiles, dataset: str = "unknown") -> Case:
    """Read one scan; `dataset` is the name the case will carry.

    Images are (Z, H, W) float32 with the header's scaling; masks are mapped to the library's labels; spacing is
    (dz, dy, dx) mm. Axes are exchanged and reversed as the affine says (`cmri_lib.cohort.readers.geometry`). Of a cine
    only ED and ES are kept.

    Raises:
        DataError: naming the file and the field that cannot be used, that contradicts another of the scan's files, or
            that cannot be a heart (`cmri_lib.cohort.plausibility`).
    """
    if not files.labelled:
        raise DataError(f"scan {files.scan} has no ground truth", file=files.table, field="mask",
                        remedy="segment it, or leave it out of the table")
    images = _read_kind(files, "image")
    _check_same_grid(files, "ES", "image", images["ES"].grid, images["ED"].grid, "ED image")
    masks = {phase: _mapped(files.phases[phase].mask, content, files.labels)
             for phase, content in _read_kind(files, "mask", images).items()}
    tissues = {phase: _mapped(files.phases[phase].tissues, content, _TISSUE_LABELS)
               for phase, content in _read_kind(files, "tissues", images).items()}
    for phase, mask in masks.items():
        if not mask.any():
            raise DataError(f"scan {files.scan}: mask of {phase} is empty", file=files.phases[phase].mask,
                            field=f"{phase} mask", remedy="segment the frame, or leave the scan out of the table")
    volumes = {phase: Volume(images[phase].voxels.astype(np.float32), masks[phase], tissues.get(phase))
               for phase in PHASES}
    grid = images["ED"].grid
    case = Case(patient=files.patient, scan=files.scan, volumes=volumes, spacing=grid.spacing[::-1],
                affine=grid.affine, vendor=files.vendor, centre=files.centre, disease=files.disease, dataset=dataset,
                covariates={**files.covariates, **({"official": files.official} if files.official else {})},
                file=files.phases["ED"].image)
    return replace(case, findings=require_plausible(case, files.accept, files.table))


def read_cohort(folder: str | Path, layout: str, *, dataset: str | None = None, on_bad_case: OnBadCase = "stop",
                limit: int | None = None, patients: Collection[str] | None = None) -> Cohort:
    """Read every scan of `folder` (the first `limit` of them, and those of `patients` alone, if given).

    A bad case stops the reading, or with ``on_bad_case="skip"`` is listed in the report with its problem. Scans that a
    challenge published without ground truth are listed as "unlabelled". The name of the data set is that of the
    layout unless `dataset` says otherwise. Scans of several patients with the same voxels are all bad: which of them
    is whose cannot be known, and one person's images must not come to lie in several splits. Scans are read through joblib.

    Raises:
        DataError: on a bad case ("stop"), an unusable table, or a folder without any readable scan.
        ParameterError: if `layout` or `on_bad_case` is unknown.
    """
    if on_bad_case not in ("stop", "skip"):
        raise ParameterError(f"{on_bad_case!r} is unknown", field="on_bad_case", remedy="use stop or skip")
    folder, cases, rows = Path(folder), [], []
    jobs = (delayed(_read_entry)(scan, find, dataset or layout, patients)
            for scan, find in list(_entries(folder, layout).items())[:limit])
    for row, case, error in results(jobs, threads=True):
        if error is not None and on_bad_case == "stop":
            raise error
        rows += [row] if row else []
        cases += [case] if case else []
    shared = _shared_voxels(cases)
    if shared and on_bad_case == "stop":
        raise next(iter(shared.values()))
    for row in rows:
        row |= {"status": "bad", "problem": str(shared[row["scan"]])} if row["scan"] in shared else {}
    cases = [case for case in cases if case.scan not in shared]
    if not cases:
        raise DataError(f"none of {len(rows)} scans can be read" + (f"; {rows[0]['problem']}" if rows else ""),
                        file=folder, field="scans", remedy=f"correct the scans, or the layout (now {layout!r})")
    return Cohort(cases, pd.DataFrame(rows))


def _read_entry(scan: str, find: Callable[[], ScanFiles], dataset: str, patients: Collection[str] | None
                ) -> tuple[dict[str, str] | None, Case | None, StudyError | None]:
    """Row of the report and case of a scan, or what is wrong with it; nothing of a scan of none of `patients`."""
    row = {"scan": scan, "patient": scan, "status": "read", "problem": "", "findings": ""}
    try:
        files = find()
        row["patient"] = files.patient
        if patients is not None and files.patient not in patients:
            return None, None, None
        if not files.labelled:
            return row | {"status": "unlabelled", "problem": "published without ground truth"}, None, None
        case = read_scan(files, dataset)
        return row | {"findings": "; ".join(case.findings)}, case, None
    except StudyError as error:
        return row | {"status": "bad", "problem": str(error)}, None, error


def read_dataset(folder: str | Path, *, on_bad_case: OnBadCase = "stop", limit: int | None = None,
                 patients: Collection[str] | None = None) -> Cohort:
    """Read the data set ``data/NAME``: its layout is the one in its ``cohort.yaml``, else recognised from its files."""
    folder = Path(folder)
    return read_cohort(folder, layout_of(folder), dataset=folder.name, on_bad_case=on_bad_case, limit=limit,
                       patients=patients)


def layout_of(folder: str | Path) -> str:
    """The layout named in ``cohort.yaml``, else the one layout under which `folder` lists any scan.

    Raises:
        DataError: if ``cohort.yaml`` is unusable, or none or several layouts fit.
    """
    file = Path(folder) / COHORT_FILE
    if file.is_file():
        try:
            layout = yaml.safe_load(file.read_text(encoding="utf-8"))["layout"]
        except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError) as error:
            raise DataError("names no layout", file=file, field="layout",
                            remedy=f"write 'layout: NAME' with one of {', '.join(LAYOUTS)}") from error
        if layout not in list(LAYOUTS):  # the file may hold an unhashable value
            raise DataError(f"layout {layout!r} is unknown", file=file, field="layout",
                            remedy=f"use one of {', '.join(LAYOUTS)}")
        return layout
    _refuse_missing(Path(folder))  # else no layout would fit
    fitting = list(_fitting_layouts(Path(folder)))
    if len(fitting) != 1:
        raise DataError(f"{'several layouts fit' if fitting else 'no layout fits'} {fitting}", file=folder,
                        field="layout", remedy=f"add {COHORT_FILE} with 'layout: NAME', one of {', '.join(LAYOUTS)}")
    return fitting[0]


def _refuse_missing(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError("no such folder", file=folder, field="path", remedy="run dvc pull data.dvc, or add the data set: "
                        "python -m cmri_lib.cohort.add NAME PATH --layout LAYOUT")


def _fitting_layouts(folder: Path) -> Iterator[str]:
    for layout in LAYOUTS:
        try:
            _entries(folder, layout)
        except DataError:
            continue
        yield layout


def _entries(folder: Path, layout: str) -> Entries:
    if layout not in LAYOUTS:
        raise ParameterError(f"layout {layout!r} is unknown", field="layout", remedy=f"use one of {', '.join(LAYOUTS)}")
    _refuse_missing(folder)
    entries = LAYOUTS[layout](folder)
    if not entries:
        raise DataError(f"no scan in the layout {layout!r}", file=folder, field="scans",
                        remedy=f"give the folder that holds the patients, or another layout of {', '.join(LAYOUTS)}")
    return entries


def _read_kind(files: ScanFiles, kind: str, images: dict[str, _Content] | None = None) -> dict[str, _Content]:
    """Phase → content of its `kind` file ("image", "mask", "tissues"); a cine is read once for both phases.

    `images` are the contents whose grid these must have. Phases without such a file are left out.
    """
    phases_of: dict[Path, list[str]] = {}
    for phase in PHASES:
        if path := getattr(files.phases[phase], kind):
            phases_of.setdefault(path, []).append(phase)
    contents = {}
    for path, phases in phases_of.items():
        frames = {phase: files.phases[phase].frame for phase in phases}
        header = read_header(path, ndim=3 if frames[phases[0]] is None else 4)
        if "orientation" in files.accept:
            arrangement = Arrangement()
        elif images and not header.oriented:
            arrangement = images[phases[0]].arrangement
        else:
            arrangement = arrange(header.grid, path, nominal=files.nominal)
        grid = arrangement.grid(header.grid)
        for phase, frame in frames.items():
            if images:
                _check_same_grid(files, phase, kind, grid, images[phase].grid, "its image")
                if header.frames != images[phase].frames:
                    raise DataError(f"{kind} has {header.frames} frames, its image {images[phase].frames}", file=path,
                                    field="dim", remedy="give both all frames of the cine")
            if frame is not None and frame >= header.frames:
                raise DataError(f"scan {files.scan}: {phase} is frame {frame}, but {path.name} has frames 0 to "
                                f"{header.frames - 1}", file=files.table, field=phase, remedy="correct it (from 0)")
        voxels = read_frames(path, header, [frame or 0 for frame in frames.values()])
        contents |= {phase: _Content(arrangement, grid, header.frames, arrangement.voxels(voxels[frame or 0]))
                     for phase, frame in frames.items()}
    return contents


def _check_same_grid(files: ScanFiles, phase: str, kind: str, grid: Grid, other: Grid, name: str) -> None:
    if found := disagreement(grid, other):
        field, first, second = found
        raise DataError(f"{phase} {kind} has {first}, {name} {second}", file=getattr(files.phases[phase], kind),
                        field=field, remedy="give files of one acquisition, resampled to one grid, with its header")


def _shared_voxels(cases: Iterable[Case]) -> dict[str, DataError]:
    """Scan → the error that it holds the voxels of another patient's scan."""
    owners: dict[str, list[Case]] = {}
    for case in cases:
        for digest in set(case.digests.values()):
            owners.setdefault(digest, []).append(case)
    errors = {}
    for group in owners.values():
        for case in group if len({case.patient for case in group}) > 1 else ():
            twin = next(other for other in group if other.patient != case.patient)
            errors[case.scan] = DataError(
                f"scan {case.scan} of patient {case.patient} has the same voxels as scan {twin.scan} of patient "
                f"{twin.patient}", file=case.file, field="voxels",
                remedy="remove one of the scans; if they are one person's, give both the same patient, so that one "
                       "split holds them")
    return errors


def _mapped(file: Path, content: _Content, labels: dict[int, int]) -> np.ndarray:
    """(Z, H, W) uint8: stored labels → library labels."""
    mapped = np.zeros(content.voxels.shape, np.uint8)
    for stored, label in labels.items():
        mapped[content.voxels == stored] = label
    if (foreign := np.unique(content.voxels[(mapped == 0) & (content.voxels != 0)])).size:
        raise DataError(f"labels {foreign[:8].tolist()} are not among 0 and {sorted(labels)}", file=file,
                        field="labels", remedy="store the whole-number labels of the layout, or choose another")
    return mapped
