"""Reading NIfTI-1 files that may be damaged, and writing them: the header is judged before a voxel is read or a byte allocated.

nibabel decodes the header and the affine. The voxels are read here, because a cohort's files come from strangers: a
header that declares 30000³ voxels must not allocate them, a truncated archive must be noticed even when the fault
lies behind the frames that were asked for, and of a cine only the ED and ES frames are to be kept in memory.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np

from cmri_lib.cohort.readers.geometry import Grid, disagreement, voxel_sizes
from cmri_lib.errors import DataError

HEADER_BYTES = 348
SINGLE_FILE_MAGIC = b"n+1"
#: NIfTI datatype codes of real numbers. Complex (32, 1792), RGB (128, 2304) and 128-bit types are refused.
DATATYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
#: Deflate cannot compress further than 1032 : 1 (zlib technical details), so a header that declares more is wrong.
LARGEST_COMPRESSION = 1032
#: Voxel sizes in mm outside this range are errors of unit, not of anatomy.
SPACING_RANGE = (0.05, 100.0)
_UNSTATED_OR_MM = (0, 2)  # xyzt_units, spatial part
_CHUNK = 1 << 20
_EXPORT_AGAIN = "export or download the file again"


@dataclass(frozen=True)
class NiftiHeader:
    """What the header of a single-file NIfTI-1 volume says, after it was found to be usable.

    Attributes:
        shape: (X, Y, Z) or (X, Y, Z, T), trailing axes of length one beyond the third dropped.
        spacing: (dz, dy, dx) in mm, in the order of the library's (Z, H, W).
        affine: (4, 4) voxel (x, y, z) to world, mm: the sform, else the qform, else the spacing alone.
        oriented: whether there is an sform or a qform.
        dtype: of the stored numbers, with their byte order.
        offset: byte at which the voxels begin.
        slope, intercept: stored number → value; (1, 0) where the header asks for no scaling.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, float, float]
    affine: np.ndarray
    oriented: bool
    dtype: np.dtype
    offset: int
    slope: float
    intercept: float

    @property
    def grid(self) -> Grid:
        """How the stored voxels lie."""
        return Grid(self.shape[:3], self.spacing[::-1], self.affine, self.oriented)

    @property
    def frames(self) -> int:
        """Number of time frames; 1 for a volume."""
        return self.shape[3] if len(self.shape) == 4 else 1

    @property
    def frame_bytes(self) -> int:
        """Bytes of one (X, Y, Z) frame as stored."""
        return int(np.prod(self.shape[:3], dtype=object)) * self.dtype.itemsize


def read_header(path: Path, ndim: int) -> NiftiHeader:
    """Read and judge the header of the volume (`ndim` 3) or cine (`ndim` 4) at `path`.

    Raises:
        DataError: if the file is absent, not NIfTI-1, of another dimension, of complex or colour type, or if its
            spacing, affine, scaling or declared size cannot be right, or its pixdim, qform and sform disagree.
    """
    if not path.is_file():
        raise DataError("no such file", file=path, field="path", remedy="copy the file there, or correct the table")
    with _opened(path) as stream:
        block = stream.read(HEADER_BYTES)
    if len(block) < HEADER_BYTES:
        raise DataError(f"only {len(block)} bytes, a header has {HEADER_BYTES}", file=path, field="header",
                        remedy=_EXPORT_AGAIN)
    raw = nib.Nifti1Header(block, check=False)
    if raw["sizeof_hdr"] != HEADER_BYTES or not bytes(raw["magic"]).startswith(SINGLE_FILE_MAGIC):
        raise DataError("not a single-file NIfTI-1 header", file=path, field="magic",
                        remedy="save the image as .nii or .nii.gz (NIfTI-1)")
    shape, spacing = _shape(raw, path, ndim), _spacing(raw, path)
    header = NiftiHeader(shape, spacing, *_affine(raw, path, shape[:3], spacing[::-1]), _dtype(raw, path),
                         _offset(raw, path), *_scaling(raw, path))
    _check_declared_size(header, path)
    return header


def read_frames(path: Path, header: NiftiHeader, frames: Sequence[int]) -> dict[int, np.ndarray]:
    """The frames of `path` with the given indices (from 0), each (Z, H, W) float64 with the header's scaling applied.

    The file is read to its end, so that a truncated or corrupted archive is always noticed.

    Raises:
        DataError: if the file is damaged, its length is not the declared one, or a voxel is not finite.
    """
    stored: dict[int, bytes] = {}
    with _opened(path) as stream:
        _read(stream, header.offset, path, keep=False)
        for frame in range(header.frames):
            content = _read(stream, header.frame_bytes, path, keep=frame in frames)
            if frame in frames:
                stored[frame] = content
        if stream.read(1):
            raise DataError("the file is longer than its header declares", file=path, field="dim",
                            remedy=_EXPORT_AGAIN)
    return {frame: _decode(content, header, path) for frame, content in stored.items()}


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The uncompressed bytes of `path`; whatever goes wrong while they are read becomes a DataError."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            if path.suffix == ".gz" and not zipped:
                raise DataError("named .gz but not a gzip archive", file=path, field="gzip", remedy=_EXPORT_AGAIN)
            file.seek(0)
            if zipped:
                with gzip.GzipFile(fileobj=file) as stream:
                    yield stream
            else:
                yield file
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be read to its end ({error})", file=path, field="content",
                        remedy=_EXPORT_AGAIN) from error


def _read(stream: BinaryIO, size: int, path: Path, *, keep: bool) -> bytes:
    """Exactly `size` bytes, in chunks so that nothing is allocated that the file does not hold; b"" if not kept."""
    parts, missing = [], size
    while missing:
        part = stream.read(min(missing, _CHUNK))
        if not part:
            raise DataError(f"truncated: {missing} of {size} bytes are missing", file=path, field="content",
                            remedy=_EXPORT_AGAIN)
        missing -= len(part)
        if keep:
            parts.append(part)
    return b"".join(parts)


def _decode(content: bytes, header: NiftiHeader, path: Path) -> np.ndarray:
    """Stored bytes, x fastest, → (Z, H, W) float64."""
    # NIfTI stores x fastest, i.e. Fortran order (X, Y, Z), which is C order (Z, Y, X) = (Z, H, W).
    voxels = np.frombuffer(content, header.dtype).reshape(header.shape[2::-1]).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        if (header.slope, header.intercept) != (1.0, 0.0):
            voxels = voxels * header.slope + header.intercept
        finite = np.isfinite(voxels.astype(np.float32))
    if not finite.all():
        raise DataError(f"{int((~finite).sum())} voxels are NaN or infinite", file=path, field="voxels",
                        remedy="export the image again, or replace the voxels before adding the cohort")
    return voxels


def _shape(raw: nib.Nifti1Header, path: Path, ndim: int) -> tuple[int, ...]:
    dim = [int(d) for d in raw["dim"]]
    if not 1 <= dim[0] <= 7:
        raise DataError(f"{dim[0]} dimensions", file=path, field="dim", remedy=_EXPORT_AGAIN)
    shape = dim[1:dim[0] + 1]
    while len(shape) > ndim and shape[-1] == 1:
        shape.pop()
    if len(shape) != ndim:
        raise DataError(f"image has shape {tuple(shape)}, {ndim}D is due", file=path, field="dim",
                        remedy="store (x, y, slice)" + (" and the time frames as fourth axis; where only ED and ES are "
                                                        "there, list their files in the layout 'folder'" if ndim == 4
                                                        else ", one file per phase"))
    if min(shape) < 1:
        raise DataError(f"shape {tuple(shape)} has an empty axis", file=path, field="dim", remedy=_EXPORT_AGAIN)
    return tuple(shape)


def _spacing(raw: nib.Nifti1Header, path: Path) -> tuple[float, float, float]:
    if int(raw["xyzt_units"]) & 7 not in _UNSTATED_OR_MM:
        raise DataError("spatial unit is not mm", file=path, field="xyzt_units", remedy="store pixdim in mm (code 2)")
    dx, dy, dz = (float(p) for p in raw["pixdim"][1:4])
    smallest, largest = SPACING_RANGE
    if not all(smallest <= d <= largest for d in (dx, dy, dz)):
        raise DataError(f"voxel spacing {(dx, dy, dz)} is not within {smallest}–{largest} mm", file=path,
                        field="pixdim", remedy="correct pixdim[1..3] in the header (mm)")
    return dz, dy, dx


def _affine(raw: nib.Nifti1Header, path: Path, shape: tuple[int, ...], pixdim: tuple[float, ...]
            ) -> tuple[np.ndarray, bool]:
    """The affine that counts, and whether a form states it; every form that is stated must agree with the others."""
    forms: dict[str, np.ndarray] = {}
    try:
        with np.errstate(all="ignore"):
            for name, decode in (("sform", raw.get_sform), ("qform", raw.get_qform)):
                if int(raw[f"{name}_code"]) > 0:
                    forms[name] = np.asarray(decode(), np.float64)
            affine = np.asarray(next(iter(forms.values())) if forms else raw.get_base_affine(), np.float64)
            usable = all(np.isfinite(form).all() and abs(np.linalg.det(form[:3, :3])) > 0
                         for form in (affine, *forms.values()))
    except (ValueError, nib.spatialimages.HeaderDataError) as error:
        raise DataError(f"orientation cannot be decoded ({error})", file=path, field="sform/qform",
                        remedy=_EXPORT_AGAIN) from error
    if not usable:
        raise DataError("voxel-to-world matrix is singular or not finite", file=path, field="sform/qform",
                        remedy="write a valid sform or qform")
    grids = {name: Grid(shape, voxel_sizes(form), form) for name, form in forms.items()}
    grids["pixdim"] = Grid(shape, pixdim, affine, oriented=False)
    (name, first), *others = grids.items()
    for other, second in others:
        if found := disagreement(first, second):
            raise DataError(f"{name} and {other} contradict each other: {found[1]} against {found[2]}", file=path,
                            field=f"{other}, {name}", remedy="find out which is right, and write it to both")
    return affine, bool(forms)


def _dtype(raw: nib.Nifti1Header, path: Path) -> np.dtype:
    code, bits = int(raw["datatype"]), int(raw["bitpix"])
    if code not in DATATYPES:
        raise DataError(f"datatype code {code} is not a real number type (complex, RGB or unknown)", file=path,
                        field="datatype", remedy="save as int16 or float32")
    dtype = np.dtype(raw.endianness + DATATYPES[code])
    if bits != 8 * dtype.itemsize:
        raise DataError(f"bitpix {bits} does not fit datatype {dtype.name}", file=path, field="bitpix",
                        remedy=_EXPORT_AGAIN)
    return dtype


def _offset(raw: nib.Nifti1Header, path: Path) -> int:
    offset = float(raw["vox_offset"])
    if offset == 0:  # some writers leave it blank; the voxels then follow the 4 bytes after the header
        return HEADER_BYTES + 4
    if not np.isfinite(offset) or offset < HEADER_BYTES + 4 or offset != int(offset) or offset >= 2**31:
        raise DataError(f"voxels begin at byte {offset}", file=path, field="vox_offset", remedy=_EXPORT_AGAIN)
    return int(offset)


def _scaling(raw: nib.Nifti1Header, path: Path) -> tuple[float, float]:
    slope, intercept = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0 or np.isnan(slope):  # NIfTI-1: no scaling
        return 1.0, 0.0
    if not np.isfinite([slope, intercept]).all():
        raise DataError(f"scaling {slope} x + {intercept} is not finite", file=path, field="scl_slope/scl_inter",
                        remedy="set scl_slope 1 and scl_inter 0, or export the file again")
    return slope, intercept


def _check_declared_size(header: NiftiHeader, path: Path) -> None:
    """Compare the declared bytes with what the file can hold at most, before any of them is read."""
    declared = header.offset + header.frame_bytes * header.frames
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    available = path.stat().st_size * (LARGEST_COMPRESSION if zipped else 1)
    if declared > available:
        raise DataError(f"shape {header.shape} of {header.dtype.name} needs {declared} bytes, the file holds at most "
                        f"{available}", file=path, field="dim", remedy=_EXPORT_AGAIN)


def write_nifti(array: np.ndarray, pixel: tuple[float, ...], affine: np.ndarray, path: Path) -> None:
    """Write a gzipped NIfTI whose bytes depend on its content only (no time stamp, no file name)."""
    image = nib.Nifti1Image(array, affine)
    image.header.set_zooms(pixel)
    image.header.set_xyzt_units("mm", "sec")
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=9, mtime=0))
