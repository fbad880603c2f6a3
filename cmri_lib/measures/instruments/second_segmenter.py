"""A second frozen segmenter, of another architecture and seed: does a sample follow its mask in the eyes of both?

A generator can please one network by drawing what that network likes. Here a residual encoder and decoder whose levels are
added, not concatenated, reads the same images after the same training. It stands in a module of its own, so that nothing of
it changes the training of the first.
"""

from __future__ import annotations

from pathlib import Path

import torch
from monai.networks.nets import SegResNet
from monai.utils import UpsampleMode

from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.slices import Slices
from cmri_lib.measures.instruments.frozen import refuse_all_but_training
from cmri_lib.measures.instruments.segmenter import Segmenter
from cmri_lib.networks.segmentation import GROUPS, dice_cross_entropy
from cmri_lib.training import Augment, TrainSettings, Trainable, train


class ResidualSegmentationTraining(Trainable):
    """Dice + cross-entropy of a SegResNet (Myronenko, BrainLes 2018) on batches of "image" (B, 1, H, W) and "mask"
    (B, H, W). H and W must be divisible by 8."""

    def __init__(self, width: int):
        super().__init__()
        self.network = SegResNet(spatial_dims=2, init_filters=width, in_channels=1, out_channels=len(LABELS) + 1,
                                 norm=("group", {"num_groups": GROUPS}), blocks_down=(1, 1, 2, 2), blocks_up=(1, 1, 1),
                                 upsample_mode=UpsampleMode.DECONV)  # its gradient is deterministic on GPUs
        self.criterion = dice_cross_entropy()

    def loss(self, batch: dict[str, torch.Tensor], group: str) -> torch.Tensor:
        return self.criterion(self.network(batch["image"]), batch["mask"][:, None])


def train_second_segmenter(training: Slices, settings: TrainSettings, folder: str | Path, *, width: int = 8) -> Segmenter:
    """Train the second segmenter on real training slices, or load it if `folder` already holds this training.

    Raises:
        SplitError: if a slice is not of the training split, or is synthetic.
    """
    refuse_all_but_training(training, "second segmenter")
    torch.manual_seed(settings.seed)
    model = ResidualSegmentationTraining(width)
    data = {"image": torch.from_numpy(training.images), "mask": torch.from_numpy(training.masks)}
    train(model, data, settings, folder, augment=Augment())
    return Segmenter(model.network, settings.seed)
