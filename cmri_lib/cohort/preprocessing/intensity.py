"""Steps that change the intensities of one scan: bias field, percentile clip, standardisation, normalisation.

Every function takes and returns (P, Z, H, W) float32: P phases of Z slices of one scan. Statistics are taken over all
of it at once. One scan has one receive coil and one scaling, and a window chosen per phase would turn the change of
blood volume between ED and ES into a change of myocardial grey. No function sees a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk

from cmri_lib.errors import DataError

#: Standard deviations that z-scores map to ±1: at 3, a Gaussian loses 0.3 % of its voxels to the clip.
ZSCORE_RANGE = 3.0
#: Percentiles of the landmarks: both ends and the deciles between (Nyúl, Udupa and Zhang 2000, set L4).
LANDMARK_PERCENTILES = (1.0, *np.arange(10.0, 100.0, 10.0).tolist(), 99.0)
_N4_GRID = 40  # longest in-plane side on which the field is estimated; it varies over centimetres
_N4_ITERATIONS = (30, 20, 10)  # per resolution of the B-spline


def foreground(image: np.ndarray) -> np.ndarray:
    """The voxels of `image` above its minimum, flat: leaves out padding and air that was stored as one value."""
    inside = image[image > image.min()]
    return inside if inside.size else image.ravel()


def correct_bias_field(image: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """`image` (P, Z, H, W) divided by one smooth field, estimated by N4 on the mean of the phases.

    The receive coil does not move with the heart, so a scan has one field. It is estimated on a grid shrunk in plane
    and inside Otsu's foreground, then evaluated at full resolution and scaled to leave the foreground's mean as it is.
    Source: Tustison et al., N4ITK: improved N3 bias correction, IEEE TMI 29(6), 2010.

    Args:
        spacing: (slice, row, column) in mm.
    """
    mean = image.mean(axis=0)
    span = float(mean.max() - mean.min())
    if span == 0:
        return image.copy()
    # N4 works on logarithms: intensities must be positive.
    positive = sitk.GetImageFromArray((mean - min(float(mean.min()), 0.0) + 1e-3 * span).astype(np.float32))
    positive.SetSpacing(tuple(float(s) for s in spacing[::-1]))
    shrink = max(1, round(max(image.shape[-2:]) / _N4_GRID))
    small = sitk.Shrink(positive, [min(shrink, image.shape[-1]), min(shrink, image.shape[-2]), 1])
    body = sitk.OtsuThreshold(small, 0, 1)
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(1)  # sums in one order: the same bits on any machine; scans run side by side instead
    n4.SetMaximumNumberOfIterations(_N4_ITERATIONS)
    n4.Execute(small, body)
    fieldmap = np.exp(sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(positive))).astype(np.float32)
    corrected = image / fieldmap
    bright = mean > np.median(foreground(mean))
    return corrected * (image[:, bright].mean() / corrected[:, bright].mean())


def clip_percentiles(image: np.ndarray, percentiles: tuple[float, float]) -> np.ndarray:
    """`image` with values outside the given percentiles of its foreground set to them."""
    low, high = np.percentile(foreground(image), percentiles).astype(np.float32)
    return np.clip(image, low, high)


def minmax(image: np.ndarray) -> np.ndarray:
    """`image` mapped linearly so that its minimum is −1 and its maximum 1; a constant image becomes −1."""
    low, high = float(image.min()), float(image.max())
    if high == low:
        return np.full_like(image, -1.0)
    return np.clip((image - low) * np.float32(2.0 / (high - low)) - 1.0, -1.0, 1.0)


def zscore(image: np.ndarray) -> np.ndarray:
    """`image` with its foreground's mean at 0 and `ZSCORE_RANGE` of its standard deviations at ±1, clipped there."""
    inside = foreground(image).astype(np.float64)
    scale = max(inside.std(), np.finfo(np.float32).tiny)
    return np.clip((image - np.float32(inside.mean())) / np.float32(scale * ZSCORE_RANGE), -1.0, 1.0)


@dataclass(frozen=True)
class Landmarks:
    """The standard scale of intensities, in [−1, 1], learnt on training patients.

    Attributes:
        scale: values of `LANDMARK_PERCENTILES` on the standard scale, increasing from −1 to 1.
        patients: whom it was learnt on.
    """

    scale: tuple[float, ...]
    patients: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if len(self.scale) != len(LANDMARK_PERCENTILES) or not (np.diff(self.scale) >= 0).all():
            raise DataError(f"standard scale {self.scale} is not {len(LANDMARK_PERCENTILES)} increasing values",
                            field="landmarks", remedy="learn it again with fit_landmarks")


def image_landmarks(image: np.ndarray) -> np.ndarray:
    """(L,) the intensities of `image` at `LANDMARK_PERCENTILES` of its foreground."""
    return np.percentile(foreground(image), LANDMARK_PERCENTILES)


def standard_scale(images: Sequence[np.ndarray], patients: Sequence[str] = ()) -> Landmarks:
    """Learn the standard scale: each image's landmarks mapped so that its ends lie at ±1, then averaged.

    Source: Nyúl, Udupa and Zhang, New variants of a method of MRI scale standardization, IEEE TMI 19(2), 2000.

    Raises:
        DataError: if there is no image, or one has no contrast.
    """
    if not len(images):
        raise DataError("no image to learn from", field="landmarks", remedy="give the scans of the training patients")
    marks = np.stack([image_landmarks(image) for image in images])
    ends = marks[:, -1] - marks[:, 0]
    if not (ends > 0).all():
        raise DataError(f"image {int(np.argmin(ends))} has no contrast", field="landmarks",
                        remedy="look at the scan; take it out of the cohort if it is blank")
    scaled = 2.0 * (marks - marks[:, :1]) / ends[:, None] - 1.0
    return Landmarks(tuple(scaled.mean(axis=0).tolist()), tuple(patients))


def standardise(image: np.ndarray, landmarks: Landmarks) -> np.ndarray:
    """`image` mapped piecewise linearly so that its landmarks fall on the standard scale; beyond the ends, ±1.

    Monotone: of two voxels the brighter stays at least as bright. Where landmarks of `image` coincide, the mean of
    their places on the scale is taken.
    """
    marks = image_landmarks(image)
    places, group = np.unique(marks, return_inverse=True)
    targets = np.bincount(group, weights=landmarks.scale) / np.bincount(group)
    return np.interp(image, places, targets).astype(np.float32)
