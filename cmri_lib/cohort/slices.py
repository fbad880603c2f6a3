"""`Slices`: the one noun that flows through the study. A real set and a synthetic set are the same type.

Every generator returns one, every measure reads ``measure(real, synthetic)``; so a synthetic set can be saved,
shown, segmented or audited by what serves a real one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError

from cmri_lib.cohort.case import LABELS, TISSUES
from cmri_lib.cohort.mapped import blocks, mapped_arrays, write_arrays
from cmri_lib.errors import DataError, SplitError, StudyError

#: One row per slice. `patient` is the unit of splits and bootstraps; `height` is the position in the ventricle, 0 at
#: its most apical and 1 at its most basal labelled slice; `spacing` is mm per pixel after preprocessing; `slice_mm` the
#: distance between slices; `source` is "real" or the id of the system that made the slice.
COLUMNS = ("patient", "scan", "split", "dataset", "vendor", "centre", "disease", "phase", "level", "height", "index",
           "spacing", "slice_mm", "source")
#: Further columns that preprocessing fills where the cohort's table knows them: years, kg/m²; NaN where it does not.
COVARIATES = ("age", "bmi")
#: Columns that `cardiac_function.with_phenotypes` adds: ejection fractions in %, volumes in mL; `myoedv` is that of the wall.
PHENOTYPES = ("lvef", "rvef", "lvedv", "lvesv", "rvedv", "myoedv")
SPLITS = ("train", "validation", "test", "holdout")
#: Columns whose values are categories, and the value of what is unknown.
CATEGORIES = ("vendor", "disease", "phase", "level")
UNKNOWN = "unknown"
#: Columns of numbers that may be unknown, NaN.
NUMBERS = (*COVARIATES, *PHENOTYPES, "height", "spacing", "slice_mm")
#: Column of a saved table: which image, mask and tissues the row is about.
KEY = "digest"


@dataclass(frozen=True)
class Slices:
    """N short-axis slices.

    A patient has one split, in every set there is: whatever learns, draws or measures takes `Slices`, so none can meet a
    patient on both sides. Samples under a patient's mask bear that patient's name and split, and count as his or hers.

    Attributes:
        images: (N, 1, H, W) float32 in [−1, 1].
        masks: (N, H, W) uint8 of `LABELS`.
        table: N rows of `COLUMNS`.
        tissues: (N, H, W) uint8 of `TISSUES`, or None.
        partners: (N, 1, H, W) float32, the image that each is to be made from (`cohort.phase_pairs`), or None. Not saved.

    Raises:
        DataError: if lengths, shapes, dtypes, labels or columns disagree, or an image is not finite.
        SplitError: if a patient is in several splits.
    """

    images: np.ndarray
    masks: np.ndarray
    table: pd.DataFrame
    tissues: np.ndarray | None = None
    partners: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", self.table.reset_index(drop=True))
        n, shape = len(self.images), self.images.shape[2:]
        checks = {
            "images": (self.images.ndim == 4 and self.images.shape[1] == 1 and self.images.dtype == np.float32,
                       f"shape {self.images.shape} {self.images.dtype}, not (N, 1, H, W) float32"),
            "masks": (self.masks.shape == (n, *shape) and self.masks.dtype == np.uint8,
                      f"shape {self.masks.shape} {self.masks.dtype}, not {(n, *shape)} uint8"),
            "table": (len(self.table) == n, f"{len(self.table)} rows for {n} images"),
            "tissues": (self.tissues is None or self.tissues.shape == self.masks.shape, "tissues unlike masks"),
            "partners": (self.partners is None or self.partners.shape == self.images.shape, "partners unlike images"),
        }
        for field, (good, problem) in checks.items():
            if not good:
                raise DataError(problem, field=field, remedy="build Slices through preprocess or a Generator")
        if missing := [c for c in COLUMNS if c not in self.table]:
            raise DataError(f"columns {missing} are missing", field="table", remedy=f"give all of {COLUMNS}")
        if not all(np.isfinite(part).all() for part in blocks(self.images)):
            raise DataError("images hold NaN or infinite values", field="images", remedy="find the step that made them")
        if n and self.masks.max() > max(LABELS.values()):
            raise DataError(f"label {self.masks.max()} is unknown", field="masks", remedy=f"use {LABELS}")
        if n and self.tissues is not None and self.tissues.max() > max(TISSUES.values()):
            raise DataError(f"tissue {self.tissues.max()} is unknown", field="tissues", remedy=f"use {TISSUES}")
        _refuse_several_splits(self.table)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """Side of the square images in pixels."""
        return self.images.shape[-1]

    @property
    def patients(self) -> np.ndarray:
        """(N,) the patient of every slice."""
        return self.table["patient"].to_numpy()

    def take(self, index: Sequence[int] | np.ndarray) -> Slices:
        """The slices at `index` (integers or a boolean mask), in that order."""
        index = np.asarray(index)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(int)
        tissues, partners = (None if a is None else a[index] for a in (self.tissues, self.partners))
        return Slices(self.images[index], self.masks[index], self.table.iloc[index], tissues, partners)

    def where(self, **columns: object) -> Slices:
        """The slices whose columns have the given values: ``slices.where(split="train", vendor=["A", "B"])``. Raises
        DataError on an unknown column."""
        keep = np.ones(len(self), bool)
        for column, values in columns.items():
            if column not in self.table:
                raise DataError(f"no column {column!r}", field="table", remedy=f"choose among {list(self.table)}")
            values = values if isinstance(values, (list, tuple, set, np.ndarray)) else [values]
            keep &= self.table[column].isin(list(values)).to_numpy()
        return self.take(keep)

    def with_columns(self, **columns: object) -> Slices:
        """The same slices with table columns replaced."""
        return replace(self, table=self.table.assign(**columns))

    @classmethod
    def from_arrays(cls, images: np.ndarray, masks: np.ndarray | None = None, patient: Sequence[object] | None = None, *,
                    value_range: tuple[float, float] | None = None, **columns: object) -> Slices:
        """Anybody's images in one line, for the measures: ``Slices.from_arrays(images, source="my GAN")``.

        Args:
            images: (N, H, W) or (N, 1, H, W), H = W, of any number type.
            masks: (N, H, W) of `LABELS`; empty if not given.
            patient: (N,) whose slices they are, the unit of every interval. By default each is a patient of its own, with
                a name that no other set has.
            value_range: what becomes −1 and 1, e.g. (0, 255). Needed unless the images are floats that reach below 0 and
                stay within [−1, 1].
            columns: of the table, one value or one per slice. What is not given is unknown, and the split "test".
                Measures of size want `spacing`, in mm per pixel, and `slice_mm`.

        Raises:
            DataError: if shapes disagree, values lie outside the range, or the range cannot be known.
        """
        images = np.asarray(images)
        images = images[:, None] if images.ndim == 3 else images
        images = _rescaled(images, value_range)
        n, shape = len(images), images.shape[2:]
        if len(shape) != 2 or shape[0] != shape[1]:
            raise DataError(f"images of shape {images.shape}", field="images",
                            remedy="give square ones, (N, S, S) or (N, 1, S, S)")
        masks = np.zeros((n, *shape), np.uint8) if masks is None else _whole_labels(np.asarray(masks))
        if patient is None:
            own = hashlib.sha256(images.tobytes()).hexdigest()[:8]
            patient = [f"{own}-{i:05d}" for i in range(n)]
        for field, values in {"patient": patient, **columns}.items():
            if np.ndim(values) and len(values) != n:
                raise DataError(f"{len(values)} values for {n} images", field=field, remedy="give one per image")
        patient = pd.Series(list(patient), dtype=str)
        table = pd.DataFrame({"patient": patient, "scan": patient, "split": "test", "dataset": "arrays", "centre": UNKNOWN,
                              **dict.fromkeys(CATEGORIES, UNKNOWN), "height": np.nan, "spacing": np.nan, "slice_mm": np.nan,
                              "index": patient.groupby(patient).cumcount(), "source": "real"})
        return cls(images, masks, table[list(COLUMNS)].assign(**columns))

    def save(self, folder: str | Path) -> None:
        """Write ``slices.safetensors`` and ``slices.csv`` to `folder`; each row of the table names its image by a digest."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"images": self.images, "masks": self.masks}
        arrays |= {} if self.tissues is None else {"tissues": self.tissues}
        write_arrays(folder / "slices.safetensors", arrays)
        self.table.assign(**{KEY: self._digests()}).to_csv(folder / "slices.csv", index=False)

    @classmethod
    def load(cls, folder: str | Path) -> Slices:
        """What `save` wrote. Every slice is checked against its row, but none is kept: the arrays are memory maps of the file,
        so there may be more of them than memory, and processes that have loaded them share them.

        Raises:
            DataError: if a file is absent or cannot be read, or the table is not of these images in this order.
        """
        arrays_file, table_file = (Path(folder) / name for name in ("slices.safetensors", "slices.csv"))
        remedy = "delete the folder and run the notebook that makes it (dvc repro)"
        for file in (arrays_file, table_file):
            if not file.exists():
                raise DataError("no such file", file=file, remedy="run the notebook that makes it (dvc repro)")
        identifiers = {c: str for c in ("patient", "scan", "vendor", "centre", "disease", "dataset", "source", KEY)}
        try:
            arrays = mapped_arrays(arrays_file)
            table = pd.read_csv(table_file, dtype=identifiers, keep_default_na=False, na_values={c: [""] for c in NUMBERS})
        except (SafetensorError, ValueError, KeyError, UnicodeDecodeError, OSError) as error:
            raise DataError(f"a file of these slices is damaged: {error}", file=folder, remedy=remedy) from error
        if missing := sorted({"images", "masks"} - set(arrays)):
            raise DataError("not in the file", file=arrays_file, field=missing[0], remedy=remedy)
        if KEY not in table:
            raise DataError("the table says of no row which image it is about", file=table_file, field=KEY, remedy=remedy)
        try:
            slices = cls(arrays["images"], arrays["masks"], table.drop(columns=KEY), arrays.get("tissues"))
        except StudyError as error:
            raise type(error)(error.problem, file=folder, field=error.field, remedy=remedy) from error
        if (wrong := np.flatnonzero(table[KEY].to_numpy() != slices._digests())).size:
            raise DataError(f"{wrong.size} of {len(slices)} rows are not of the images at their place, the first is row "
                            f"{wrong[0] + 2} of the file", file=table_file, field=KEY,
                            remedy=f"{remedy}; neither file may be sorted or edited on its own")
        return slices

    def _digests(self) -> np.ndarray:
        """(N,) 16 hexadecimal digits of the SHA-256 of each slice's image, mask and tissues."""
        parts = [self.images, self.masks] + ([] if self.tissues is None else [self.tissues])
        return np.array([hashlib.sha256(b"".join(part[i].tobytes() for part in parts)).hexdigest()[:16]
                         for i in range(len(self))], object)


def concatenate(parts: Sequence[Slices]) -> Slices:
    """One `Slices` of all parts, in order; tissues and partners are kept only if every part has them.

    Raises:
        DataError: if the parts differ in size.
        SplitError: if a patient is in several splits.
    """
    if len(sizes := sorted({p.images.shape[2:] for p in parts})) > 1:
        raise DataError(f"images of {sizes} pixels", field="images", remedy="preprocess all parts at one size")
    optional = [None if any(a is None for a in arrays) else np.concatenate(arrays)
                for arrays in ([p.tissues for p in parts], [p.partners for p in parts])]
    return Slices(np.concatenate([p.images for p in parts]), np.concatenate([p.masks for p in parts]),
                  pd.concat([p.table for p in parts], ignore_index=True), *optional)


def refuse_overlap(first: Slices, second: Slices, names: tuple[str, str] = ("first", "second")) -> None:
    """Raise SplitError if a patient appears in both sets: such a comparison would measure memory, not skill."""
    if common := sorted(set(first.patients) & set(second.patients)):
        raise SplitError(f"{len(common)} patients are in both {names[0]} and {names[1]}, e.g. {common[:3]}",
                         field="patient", remedy="split by patient (cmri_lib.cohort.splits)")


def known(table: pd.DataFrame, column: str) -> np.ndarray:
    """(N,) numbers of `column`, for what cannot do without. Raises DataError if one is not known."""
    values = table[column].to_numpy(float)
    if not np.isfinite(values).all():
        raise DataError(f"unknown in {int((~np.isfinite(values)).sum())} slices", field=column,
                        remedy=f"say how many mm: Slices.from_arrays(..., {column}=...) or with_columns({column}=...)")
    return values


def _refuse_several_splits(table: pd.DataFrame) -> None:
    splits = table["split"].to_numpy()
    if (splits == splits[:1]).all():  # as nearly always, and a thousand times a notebook
        return
    pairs = table[["patient", "split"]].drop_duplicates()
    twice = pairs["patient"].duplicated()
    if twice.any():
        patient = pairs["patient"][twice].iloc[0]
        splits = sorted(pairs["split"][pairs["patient"] == patient].astype(str))
        raise SplitError(f"{int(twice.sum())} patients are in several splits, e.g. {patient} in {' and '.join(splits)}",
                         field="split", remedy="split by patient (cmri_lib.cohort.splits); if these are different people or "
                         "samples of several banks, give each a name of its own")


def _rescaled(images: np.ndarray, value_range: tuple[float, float] | None) -> np.ndarray:
    """(N, 1, H, W) float32 in [−1, 1] from images whose `value_range` becomes −1 and 1."""
    if not np.issubdtype(images.dtype, np.number):
        raise DataError(f"images of type {images.dtype}", field="images", remedy="give numbers")
    if not images.size:
        return images.astype(np.float32)
    least, most = float(images.min()), float(images.max())
    found = f"images reach from {least:.6g} to {most:.6g}"
    if value_range is None:
        # Of [0, 1] and [−1, 1] only the one is meant, and taking it for the other gives wrong numbers without a word.
        if np.issubdtype(images.dtype, np.integer) or least >= 0 or not (-1 <= least and most <= 1):
            raise DataError(f"{found}: it cannot be known what is −1 and what 1", field="images",
                            remedy="say what becomes −1 and 1: value_range=(0, 1), or (-1, 1) if they are scaled already")
        return images.astype(np.float32)
    low, high = map(float, value_range)
    if not (low < high and low <= least and most <= high):
        raise DataError(f"{found}, outside ({low:g}, {high:g})", field="value_range",
                        remedy="give a range that holds every value, or clip the images first")
    if (low, high) == (-1, 1):
        return images.astype(np.float32)
    return (2 * (images - low) / (high - low) - 1).astype(np.float32)


def _whole_labels(masks: np.ndarray) -> np.ndarray:
    """Label maps of any number type as uint8; what is no whole number of a byte is refused."""
    with np.errstate(invalid="ignore"):
        labels = masks.astype(np.uint8)
    if not np.array_equal(labels, masks):
        raise DataError("a mask holds what is no label", field="masks", remedy=f"use {LABELS}, 0 for background")
    return labels
