"""The frozen segmenter: what turns an image, real or synthetic, back into a label map.

It stands apart from the measures that read its label maps, so that editing a measure retrains nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.slices import Slices
from cmri_lib.measures.instruments.frozen import fingerprint, freeze, in_batches, refuse_all_but_training
from cmri_lib.networks.segmentation import SegmentationUNet, dice_cross_entropy
from cmri_lib.training import Augment, TrainSettings, Trainable, train


class SegmentationTraining(Trainable):
    """Dice + cross-entropy of a U-Net on batches of "image" (B, 1, H, W) and "mask" (B, H, W)."""

    recordable = True

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        self.network = SegmentationUNet(len(LABELS) + 1, widths)
        self.criterion = dice_cross_entropy()

    def loss(self, batch: dict[str, Tensor], group: str) -> Tensor:
        return self.criterion(self.network(batch["image"]), batch["mask"][:, None])


class Segmenter:
    """A frozen U-Net: images (N, 1, H, W) float32 in [−1, 1] → masks (N, H, W) uint8 of `LABELS`.

    Attributes:
        fingerprint: hash of the weights.
        seed: the seed it was trained with.
    """

    def __init__(self, network: SegmentationUNet, seed: int):
        self.network, self.seed = freeze(network), seed
        self.fingerprint = fingerprint(network)
        self.device = next(network.parameters()).device

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return in_batches(lambda x: self.network(x).argmax(1).to(torch.uint8), images, self.device).numpy()


def train_segmenter(training: Slices, settings: TrainSettings, folder: str | Path, *,
                    widths: tuple[int, ...] = (16, 32, 64, 96), augment: Augment | None = Augment()) -> Segmenter:
    """Train the segmenter on real training slices, or load it if `folder` already holds this training.

    Raises:
        SplitError: if a slice is not of the training split, or is synthetic.
    """
    refuse_all_but_training(training, "segmenter")
    torch.manual_seed(settings.seed)
    model = SegmentationTraining(widths)
    data = {"image": torch.from_numpy(training.images), "mask": torch.from_numpy(training.masks)}
    train(model, data, settings, folder, augment=augment)
    return Segmenter(model.network, settings.seed)
