"""Slices that are points, of which distances can be counted by hand."""

from __future__ import annotations

import numpy as np

from cmri_lib.cohort.slices import Slices


class First:
    """The first pixels as features: of a plane, unless another dimension is given."""

    name = "first"

    def __init__(self, dimension: int = 2):
        self.dimension = dimension

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, :self.dimension].astype(float)


def cloud(points: np.ndarray, prefix: str, per_patient: int = 1, split: str = "train") -> Slices:
    """Images whose first pixels are points (N, D), so many of each patient in a row."""
    images = np.zeros((len(points), 1, 8, 8), np.float32)
    images.reshape(len(points), -1)[:, :points.shape[1]] = points
    images[:, 0, 7, :2] = [-1, 1]  # a range
    names = [f"{prefix}{i // per_patient}" for i in range(len(points))]
    return Slices.from_arrays(images, patient=names, value_range=(-1, 1), split=split)
