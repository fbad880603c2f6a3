"""Feature spaces of principal components: of what the segmenter sees, and of the pixels themselves.

- **Anatomy**: the deepest map of the frozen segmenter, where a heart is already recognised and not yet cut out, pooled to
  4 × 4 cells. The layout stays, so that parts of a heart in wrong places are no heart. It hardly sees a mild blur: read
  it beside a space of appearance.
- **Components** of pixels: learnt without a label, a linear autoencoder of the training images. A check
  on the spaces that know labels.

Components are those of the training slices. They are **not whitened**: the map's strong directions are those of anatomy,
and whitening would lift what hardly varies in real hearts to their height.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cmri_lib.cohort.slices import Slices
from cmri_lib.measures.instruments.frozen import in_batches, refuse_all_but_training
from cmri_lib.measures.instruments.segmenter import Segmenter

#: Cells of the pooled map along each side, and components kept.
GRID, COMPONENTS = 4, 64
#: Side in pixels to which images are reduced for the pixel space.
REDUCED = 32

Raw = Callable[[np.ndarray], np.ndarray]


class PrincipalFeatures:
    """The first principal components of any description of images: (N, 1, H, W) → (N, `dimension`) float64.

    Args:
        name: of the space.
        raw: images → (N, P) float64.
        training: real training slices; the components are theirs.
        components: how many, at most one fewer than there are training slices.

    Raises:
        SplitError: if `training` holds any but real training slices.
    """

    def __init__(self, name: str, raw: Raw, training: Slices, components: int = COMPONENTS):
        refuse_all_but_training(training, f"feature space {name!r}")
        self.name, self.raw = name, raw
        values = raw(training.images)
        self.mean = values.mean(0)
        directions = np.linalg.svd(values - self.mean, full_matrices=False)[2]
        self.directions = directions[:min(components, len(values) - 1)]
        self.dimension = len(self.directions)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return (self.raw(images) - self.mean) @ self.directions.T


def anatomy_features(segmenter: Segmenter, training: Slices) -> PrincipalFeatures:
    """The space ``anatomy`` of a frozen segmenter."""
    return PrincipalFeatures("anatomy", lambda images: bottleneck(segmenter, images), training)


def component_features(training: Slices) -> PrincipalFeatures:
    """The space ``components``: principal components of the images, reduced to 32 × 32."""
    return PrincipalFeatures("components", reduced, training)


def bottleneck(segmenter: Segmenter, images: np.ndarray) -> np.ndarray:
    """The segmenter's deepest map, pooled to 4 × 4: images (N, 1, H, W) → (N, channels · 16) float64."""
    network = segmenter.network

    def deepest(x: Tensor) -> Tensor:
        for level, block in enumerate(network.down):
            x = block(x if level == 0 else network.pool(x))
        return F.adaptive_avg_pool2d(x, GRID).flatten(1)

    return in_batches(deepest, images, segmenter.device).double().numpy()


def reduced(images: np.ndarray) -> np.ndarray:
    """Means over cells of the images: (N, 1, H, W) → (N, 32²) float64."""
    return F.adaptive_avg_pool2d(torch.from_numpy(np.ascontiguousarray(images)), REDUCED).flatten(1).double().numpy()
