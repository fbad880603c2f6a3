"""How sure the frozen segmenter is of the hearts it finds. Apart from the segmenter, so that nothing is trained anew."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cmri_lib.measures.instruments.frozen import in_batches
from cmri_lib.measures.instruments.segmenter import Segmenter


class HeartCertainty:
    """Images (N, 1, H, W) → (N,) mean probability of the label chosen, over the pixels that the segmenter does not call
    background; 0 where there are none."""

    def __init__(self, segmenter: Segmenter):
        self.segmenter = segmenter

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return in_batches(self._sure, images, self.segmenter.device).double().numpy()

    def _sure(self, images: Tensor) -> Tensor:
        chosen = self.segmenter.network(images).softmax(1).max(1)
        heart = chosen.indices > 0
        return (chosen.values * heart).sum((1, 2)) / heart.sum((1, 2)).clamp(min=1)
