"""`Case`: one scan of one patient, as every reader returns it and every preprocessing step receives it.

The labels and phases defined here are the library's only convention; readers map to it. A `Case` checks
itself on construction, so whatever holds one can rely on finite images, known labels and matching shapes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cmri_lib.errors import DataError

#: What ground truth marks. Papillary muscles count as cavity, as in ACDC and M&Ms.
LABELS = {"LV": 1, "Myo": 2, "RV": 3}
#: A complete tissue map, where the cohort has one (the phantom does): `LABELS` plus the surroundings.
TISSUES = {**LABELS, "blood": 4, "fat": 5, "lung": 6, "muscle": 7, "liver": 8, "stomach": 9, "bone": 10}
PHASES = ("ED", "ES")
#: Largest magnitude of an intensity. Squares and sums of larger ones overflow single precision.
LARGEST_INTENSITY = 1e9


@dataclass(frozen=True)
class Volume:
    """One phase of a scan: image (Z, H, W) float32 in scanner units; mask (Z, H, W) uint8 of `LABELS`, 0 elsewhere;
    tissues (Z, H, W) uint8 of `TISSUES`, or None where the cohort does not know them. The axes are those of
    `cmri_lib.cohort.readers.geometry`: slices from base to apex, rows downwards, columns to the patient's left."""

    image: np.ndarray
    mask: np.ndarray
    tissues: np.ndarray | None = None


@dataclass(frozen=True, eq=False)  # a scan is itself alone, and what is known of it can be looked up
class Case:
    """One short-axis scan of one patient.

    Attributes:
        patient: the person; the unit of every split and every bootstrap.
        scan: the scan's own id; differs from `patient` only where one person was scanned more than once.
        volumes: phase ("ED", "ES") → `Volume`, all of one shape.
        spacing: (slice distance, row, column) in mm.
        affine: (4, 4) matrix from (column, row, slice) to NIfTI's world in mm.
        vendor, centre, disease, dataset: as the cohort's table says; "unknown" where it is silent.
        covariates: further columns of the table (age, BMI, …).
        file: where the scan was read from, for messages.
        findings: what `cmri_lib.cohort.plausibility` found and the cohort's table accepts.

    Raises:
        DataError: on a missing phase, an image that is not finite or too large, mask of another shape, unknown
            label, empty mask, or a spacing that is not positive.
    """

    patient: str
    scan: str
    volumes: dict[str, Volume]
    spacing: tuple[float, float, float]
    affine: np.ndarray
    vendor: str = "unknown"
    centre: str = "unknown"
    disease: str = "unknown"
    dataset: str = "unknown"
    covariates: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None
    findings: tuple[str, ...] = ()

    @cached_property
    def digests(self) -> dict[str, str]:
        """Phase → SHA-256 of its image: equal voxels are the same recording, whatever their files are called."""
        return {phase: digest(self.volumes[phase].image) for phase in PHASES}

    def __post_init__(self) -> None:
        for phase in PHASES:
            if phase not in self.volumes:
                self._refuse(f"phase {phase} is missing", phase, "give both the ED and the ES frame of every patient")
        if len(self.spacing) != 3 or not all(np.isfinite(s) and s > 0 for s in self.spacing):
            self._refuse(f"voxel spacing {self.spacing} mm is not positive", "spacing",
                         "correct pixdim in the NIfTI header (mm)")
        for phase, volume in self.volumes.items():
            self._check_volume(phase, volume)
        if len(shapes := {volume.image.shape for volume in self.volumes.values()}) > 1:
            self._refuse(f"phases have shapes {sorted(shapes)}", "ES image", "export both frames of one acquisition")

    def _check_volume(self, phase: str, volume: Volume) -> None:
        image, mask = volume.image, volume.mask
        if image.ndim != 3 or 0 in image.shape:
            self._refuse(f"image has shape {image.shape}, not (Z, H, W)", f"{phase} image", "store a stack of slices")
        if not np.isfinite(image).all():
            self._refuse(f"{int((~np.isfinite(image)).sum())} voxels are NaN or infinite", f"{phase} image",
                         "export the image again, or replace the voxels before adding the cohort")
        if np.abs(image).max() > LARGEST_INTENSITY:
            self._refuse(f"intensities reach {np.abs(image).max():.3g}, more than {LARGEST_INTENSITY:.0e}",
                         f"{phase} image", "divide the image (or scl_slope) by a power of ten")
        if mask.shape != image.shape:
            self._refuse(f"mask has shape {mask.shape}, its image {image.shape}", f"{phase} mask",
                         "resample the mask to its image")
        for name, labels, known in (("mask", mask, LABELS), ("tissues", volume.tissues, TISSUES)):
            foreign = [] if labels is None else sorted(set(np.unique(labels).tolist()) - {0, *known.values()})
            if foreign:
                self._refuse(f"labels {foreign} are not among {known}", f"{phase} {name}",
                             "map the labels to 0 background, 1 LV, 2 Myo, 3 RV")
        if not mask.any():
            self._refuse("mask is empty", f"{phase} mask", "segment the frame, or leave the patient out of the table")

    def _refuse(self, problem: str, where: str, remedy: str) -> None:
        raise DataError(f"scan {self.scan}: {problem}", file=self.file, field=where, remedy=remedy)


def digest(voxels: np.ndarray) -> str:
    """SHA-256 of an array's shape, type and values."""
    told = f"{voxels.shape} {voxels.dtype.str}".encode()
    return hashlib.sha256(told + np.ascontiguousarray(voxels).tobytes()).hexdigest()
