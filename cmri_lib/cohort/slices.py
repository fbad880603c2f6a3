"""`Slices`: the one noun that flows through the study. A real set and a synthetic set are the same type.

Every generator returns one, every measure reads ``measure(real, synthetic)``; so a synthetic set can be saved,
shown, segmented or audited by what serves a real one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from cmri_lib.cohort.case import LABELS, TISSUES
from cmri_lib.errors import DataError, SplitError

#: One row per slice. `patient` is the unit of splits and bootstraps; `height` is the position in the ventricle, 0 at
#: its most apical and 1 at its most basal labelled slice; `spacing` is mm per pixel after preprocessing; `slice_mm` the
#: distance between slices; `source` is "real" or the id of the system that made the slice.
COLUMNS = ("patient", "scan", "split", "dataset", "vendor", "centre", "disease", "phase", "level", "height", "index",
           "spacing", "slice_mm", "source")
#: Further columns that preprocessing fills where the cohort's table knows them: years, kg/m²; NaN where it does not.
COVARIATES = ("age", "bmi")
SPLITS = ("train", "validation", "test", "holdout")
#: Columns whose values are categories, and the value of what is unknown.
CATEGORIES = ("vendor", "disease", "phase", "level")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Slices:
    """N short-axis slices.

    Attributes:
        images: (N, 1, H, W) float32 in [−1, 1].
        masks: (N, H, W) uint8 of `LABELS`.
        table: N rows of `COLUMNS`.
        tissues: (N, H, W) uint8 of `TISSUES`, or None.

    Raises:
        DataError: if lengths, shapes, dtypes, labels or columns disagree, or an image is not finite.
    """

    images: np.ndarray
    masks: np.ndarray
    table: pd.DataFrame
    tissues: np.ndarray | None = None

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
        }
        for field, (good, problem) in checks.items():
            if not good:
                raise DataError(problem, field=field, remedy="build Slices through preprocess or a Generator")
        if missing := [c for c in COLUMNS if c not in self.table]:
            raise DataError(f"columns {missing} are missing", field="table", remedy=f"give all of {COLUMNS}")
        if not np.isfinite(self.images).all():
            raise DataError("images hold NaN or infinite values", field="images", remedy="find the step that made them")
        if n and self.masks.max() > max(LABELS.values()):
            raise DataError(f"label {self.masks.max()} is unknown", field="masks", remedy=f"use {LABELS}")
        if n and self.tissues is not None and self.tissues.max() > max(TISSUES.values()):
            raise DataError(f"tissue {self.tissues.max()} is unknown", field="tissues", remedy=f"use {TISSUES}")

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
        tissues = None if self.tissues is None else self.tissues[index]
        return Slices(self.images[index], self.masks[index], self.table.iloc[index], tissues)

    def where(self, **columns: object) -> Slices:
        """The slices whose columns have the given values: ``slices.where(split="train", vendor=["A", "B"])``."""
        keep = np.ones(len(self), bool)
        for column, values in columns.items():
            if column not in self.table:
                raise DataError(f"no column {column!r}", field="table", remedy=f"choose among {list(self.table)}")
            values = values if isinstance(values, (list, tuple, set, np.ndarray)) else [values]
            keep &= self.table[column].isin(list(values)).to_numpy()
        return self.take(keep)

    def with_columns(self, **columns: object) -> Slices:
        """The same slices with table columns replaced."""
        return Slices(self.images, self.masks, self.table.assign(**columns), self.tissues)

    def save(self, folder: str | Path) -> None:
        """Write ``slices.safetensors`` and ``slices.csv`` to `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"images": self.images, "masks": self.masks}
        arrays |= {} if self.tissues is None else {"tissues": self.tissues}
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / "slices.safetensors")
        self.table.to_csv(folder / "slices.csv", index=False)

    @classmethod
    def load(cls, folder: str | Path) -> Slices:
        """Read what `save` wrote. Raises DataError if a file is absent."""
        folder = Path(folder)
        for name in ("slices.safetensors", "slices.csv"):
            if not (folder / name).exists():
                raise DataError("no such file", file=folder / name, remedy="run the notebook that makes it (dvc repro)")
        arrays = load_file(folder / "slices.safetensors")
        identifiers = {c: str for c in ("patient", "scan", "vendor", "centre", "disease", "dataset", "source")}
        table = pd.read_csv(folder / "slices.csv", dtype=identifiers, keep_default_na=False,
                            na_values={c: [""] for c in COVARIATES})
        return cls(arrays["images"], arrays["masks"], table, arrays.get("tissues"))


def concatenate(parts: Sequence[Slices]) -> Slices:
    """One `Slices` of all parts, in order; tissues are kept only if every part has them."""
    tissues = [p.tissues for p in parts]
    joined = None if any(t is None for t in tissues) else np.concatenate(tissues)
    return Slices(np.concatenate([p.images for p in parts]), np.concatenate([p.masks for p in parts]),
                  pd.concat([p.table for p in parts], ignore_index=True), joined)


def refuse_overlap(first: Slices, second: Slices, names: tuple[str, str] = ("first", "second")) -> None:
    """Raise SplitError if a patient appears in both sets: such a comparison would measure memory, not skill."""
    if common := sorted(set(first.patients) & set(second.patients)):
        raise SplitError(f"{len(common)} patients are in both {names[0]} and {names[1]}, e.g. {common[:3]}",
                         field="patient", remedy="split by patient (cmri_lib.cohort.splits)")
