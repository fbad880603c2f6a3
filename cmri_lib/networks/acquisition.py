"""The state in which an image was acquired, phase of the heartbeat and inversion time, as a condition."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cmri_lib.networks.conditioning.base import Batch, Conditioning


class AcquisitionState(Conditioning):
    """Numbers of the acquisition as planes of one value each, for networks that take planes at every level.

    A small perceptron turns the scaled numbers into `channels` values. Between the values of the training it can only go on
    smoothly, which sines and cosines of high frequency would not.

    Args:
        scales: column → (centre, spread) that bring its values to about −1 … 1.
        channels: planes.
        size: side of the images.
    """

    def __init__(self, scales: Mapping[str, tuple[float, float]], channels: int, size: int):
        super().__init__()
        self.scales, self.fields, self.channels, self.size = dict(scales), tuple(scales), channels, size
        self.name = " + ".join(scales)
        self.perceptron = nn.Sequential(nn.Linear(len(scales), channels), nn.SiLU(), nn.Linear(channels, channels), nn.SiLU(),
                                        nn.Linear(channels, channels))

    def extra_repr(self) -> str:
        """The scales, which a training depends on."""
        return repr(self.scales)

    def planes(self, batch: Batch) -> Tensor:
        """(B, channels, H, W), constant over H and W."""
        values = self.perceptron(torch.stack([batch[field] for field in self.fields], dim=1))
        return values[:, :, None, None].expand(-1, -1, self.size, self.size)
