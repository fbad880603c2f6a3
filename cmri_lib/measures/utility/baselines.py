"""As what every arm of the utility study is trained: a plain U-Net, and one in nnU-Net's manner.

What samples add depends on what they are added to: against a weak baseline without augmentation nearly
everything helps. All arms of a baseline share its network, its augmentation and the number of optimiser
steps, and none is stopped early.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.measures.instruments.learned_features import Cached
from cmri_lib.measures.instruments.segmenter import SegmentationTraining, Segmenter
from cmri_lib.measures.utility.augmentation import StrongAugment
from cmri_lib.networks.residual_unet import DeepSupervision, Mirrored, ResidualUNet
from cmri_lib.training import Augment, Trainable, TrainSettings, train

Batch = dict[str, Tensor]


class NothingLabelled(DataError):
    """A training set without a single mask."""


class ResidualTraining(Trainable):
    """Deep supervision of a residual U-Net on batches of "image" (B, 1, H, W) and "mask" (B, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.network = ResidualUNet(len(LABELS) + 1)
        self.criterion = DeepSupervision()

    def loss(self, batch: Batch, group: str) -> Tensor:
        return self.criterion(self.network.pyramid(batch["image"]), batch["mask"])


@dataclass(frozen=True)
class Baseline:
    """How a segmenter learns.

    Attributes:
        build: the untrained model; its `network` turns images into logits.
        augment: what each batch goes through.
    """

    build: Callable[[], Trainable]
    augment: Callable[[Batch], Batch]


BASELINES = {
    "U-Net": Baseline(lambda: SegmentationTraining((16, 32, 64, 96)), Augment()),
    "residual U-Net": Baseline(ResidualTraining, StrongAugment()),
}


def baseline(name: str) -> Baseline:
    """The baseline of that name. Raises ParameterError with the known names."""
    if name not in BASELINES:
        raise ParameterError(f"unknown baseline {name!r}", field="baseline",
                             remedy=f"choose among {list(BASELINES)}")
    return BASELINES[name]


def fit(of: Baseline, training: Slices, settings: TrainSettings, folder: str | Path,
        start: Trainable | None = None) -> Trainable:
    """A model trained on images and masks of `training`, or loaded if `folder` holds this very training.

    Args:
        start: a trained model of the same baseline, to start from its weights and not from random ones.

    Raises:
        NothingLabelled: if there is no mask to learn from.
    """
    if not training.masks.any():
        raise NothingLabelled("every mask is empty", field="masks", remedy="label the samples first (pseudo_label)")
    torch.manual_seed(settings.seed)
    model = of.build()
    if start is not None:
        model.load_state_dict(start.state_dict())
    data = {"image": torch.from_numpy(training.images), "mask": torch.from_numpy(training.masks)}
    train(model, data, settings, folder, augment=of.augment)
    return model


def frozen(model: Trainable, seed: int, *, mirror: bool = False) -> Cached:
    """Images (N, 1, H, W) → masks (N, H, W) of a trained model, each image once. `mirror`: see `Mirrored`."""
    return Cached(Segmenter(Mirrored(model.network) if mirror else model.network, seed))
