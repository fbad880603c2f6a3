"""Anybody's samples from a folder: arrays, pictures or NIfTI files, with masks or without, as `Slices`.

Samples are taken as what the study's own systems draw: short-axis slices, square, cropped around the heart to the study's
field of view. They may have any number of pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError

from cmri_lib.cohort.readers.files import ENDINGS, visible_files
from cmri_lib.cohort.readers.tables import read_table
from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.errors import DataError

#: The table that says more than file names can, if there is one.
TABLE = "samples.csv"
#: What may follow the name of an image in the name of its mask.
MASK_ENDINGS = ("_mask", "_gt")
KINDS = (".npy", ".png", *ENDINGS)
#: Columns of the table that are kept.
KEPT = ("vendor", "disease", "phase", "level")
#: Labels of the file → those of the study, by the name of a convention.
CONVENTIONS = {"study": {0: 0, 1: 1, 2: 2, 3: 3}, "acdc": {0: 0, 1: 3, 2: 2, 3: 1}}


def read_samples(folder: str | Path, *, like: Slices, value_range: tuple[float, float] | None = None,
                 labels: str = "study") -> Slices:
    """All samples below `folder`.

    Without a table ``samples.csv`` every ``.npy`` (N, S, S) or (S, S), ``.png`` (grey) and ``.nii(.gz)`` (S, S) or (S, S, N)
    is read in order of name; ``NAME_mask`` and ``NAME_gt`` are masks of ``NAME``. A table has a column `image`, paths below the
    folder, and may have `mask`, `patient`, and those of `KEPT`. The slices of one file, and files of one `patient`, count as
    one patient in every interval; an array or a picture without that column is a patient per image.

    Args:
        like: real slices, whose size, pixels and distance of slices in mm (medians) the samples are taken to have. Samples with
            other numbers of pixels are resampled, masks by their nearest label.
        value_range: what becomes −1 and 1. Not needed for integers of 8 or 16 bits, nor for numbers within [−1, 1].
        labels: convention of the masks, of `CONVENTIONS`.

    Raises:
        DataError: if there are no samples, or a file, a mask or a value cannot be understood.
    """
    folder = Path(folder)
    if labels not in CONVENTIONS:
        raise DataError(f"{labels!r}", field="labels", remedy=f"choose among {list(CONVENTIONS)}")
    rows = list(_rows(folder))
    parts = [_part(folder, row, like, value_range, CONVENTIONS[labels]) for row in rows]
    if not parts:
        raise DataError("no samples", file=folder, remedy=f"put files that end in {', '.join(KINDS)} there, or a {TABLE}")
    masked = {bool(part.masks.any()) for part in parts}
    if masked == {True, False} and any(row.get("mask") for row in rows):
        empty = sum(not part.masks.any() for part in parts)
        raise DataError(f"{empty} of {len(parts)} files have no mask, or one without a heart", file=folder, field="mask",
                        remedy="give every image its mask, or none")
    return concatenate(parts)


def _rows(folder: Path) -> Iterator[dict[str, str]]:
    if (folder / TABLE).exists():
        yield from read_table(folder / TABLE, ["image"])
        return
    if not folder.is_dir():
        raise DataError("no such folder", file=folder, remedy="name the folder of the samples")
    files = {f.relative_to(folder).as_posix() for f in visible_files(folder) if f.name.endswith(KINDS)}
    mask_of = {name: next((mask for ending in MASK_ENDINGS if (mask := _with_ending(name, ending)) in files), "")
               for name in files}
    yield from ({"image": name, "mask": mask_of[name]} for name in sorted(files - set(mask_of.values())))


def _with_ending(name: str, ending: str) -> str:
    kind = next(kind for kind in (*ENDINGS, *KINDS) if name.endswith(kind))
    return f"{name.removesuffix(kind)}{ending}{kind}"


def _part(folder: Path, row: dict[str, str], like: Slices, value_range: tuple[float, float] | None,
          labels: dict[int, int]) -> Slices:
    """The slices of one file."""
    file = folder / row["image"]
    images = _array(file)
    masks = _labelled(folder / row["mask"], images.shape, labels) if row.get("mask") else None
    if value_range is None and images.dtype in (np.uint8, np.uint16):
        value_range = (0, np.iinfo(images.dtype).max)
    name = row.get("patient") or (row["image"] if file.name.endswith(ENDINGS) else None)
    owners = [f"sample {name}"] * len(images) if name else [f"sample {row['image']} {i}" for i in range(len(images))]
    given = {column: row[column] for column in KEPT if row.get(column)}
    given |= {column: float(like.table[column].median()) for column in ("spacing", "slice_mm")}
    try:
        part = Slices.from_arrays(images, masks, owners, value_range=value_range, source="samples", **given)
    except DataError as error:
        more = "; on the command line: --range LOW HIGH" if error.field == "images" else ""
        raise DataError(error.problem, file=file, field=error.field, remedy=f"{error.remedy}{more}") from error
    return _resampled(part, like.size)


def _array(file: Path) -> np.ndarray:
    """(N, H, W) of a file."""
    try:
        if file.name.endswith(".npy"):
            found = np.load(file, allow_pickle=False)
        elif file.name.endswith(".png"):
            with Image.open(file) as picture:
                wide = picture.mode.startswith(("I", "F"))
                found = np.asarray(picture).astype(np.uint16) if wide else np.asarray(picture.convert("L"))
        elif file.name.endswith(ENDINGS):
            found = np.moveaxis(np.atleast_3d(np.asanyarray(nib.load(file).dataobj)), -1, 0)
        else:
            raise DataError("of an unknown kind", file=file, field="image", remedy=f"give files that end in {', '.join(KINDS)}")
    except (OSError, ValueError, UnidentifiedImageError, nib.filebasedimages.ImageFileError) as cause:
        raise DataError(f"cannot be read ({cause})", file=file, field="image", remedy="write the file again") from cause
    found = found[:, 0] if found.ndim == 4 and found.shape[1] == 1 else found
    found = found[None] if found.ndim == 2 else found
    if found.ndim != 3 or not found.size:
        raise DataError(f"an array of shape {found.shape}", file=file, field="image", remedy="give (N, S, S) or (S, S)")
    return found


def _labelled(file: Path, shape: Sequence[int], labels: dict[int, int]) -> np.ndarray:
    mask = _array(file)
    if mask.shape != tuple(shape):
        raise DataError(f"a mask of shape {mask.shape} for images of {tuple(shape)}", file=file, field="mask",
                        remedy="give one label per pixel of the images")
    if strange := sorted(set(np.unique(mask).tolist()) - set(labels)):
        raise DataError(f"labels {strange[:5]}", file=file, field="mask", remedy=f"use {sorted(labels)}")
    return np.vectorize(labels.get, otypes=[np.uint8])(mask)


def _resampled(part: Slices, size: int) -> Slices:
    """The same slices at `size` × `size` pixels."""
    if part.size == size:
        return part
    images = F.interpolate(torch.from_numpy(part.images), size=(size, size), mode="bilinear", antialias=True,
                           align_corners=False)
    masks = F.interpolate(torch.from_numpy(part.masks)[:, None].float(), size=(size, size), mode="nearest-exact")[:, 0]
    return replace(part, images=images.clamp(-1, 1).numpy(), masks=masks.to(torch.uint8).numpy())
