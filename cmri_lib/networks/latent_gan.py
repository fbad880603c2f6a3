"""A generator of latents, as small as these: the convolutional network of C18, which does not mix the images of a batch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from cmri_lib.networks.adversarial import AdversarialSettings, coarsest
from cmri_lib.networks.conditioning.base import Batch

#: Channels of a group that is normalised together.
GROUP = 8


class LatentGenerator(nn.Module):
    """z → latents: from a vector up, each level twice as wide as the one before. Group norm, for batch norm would let samples
    depend on their neighbours.

    Args:
        latent: numbers in z. size: side of the latents. outputs: their channels. settings: channels, finest level first.
    """

    def __init__(self, latent: int, size: int, outputs: int, settings: AdversarialSettings):
        super().__init__()
        channels, self.side = settings.generator[::-1], coarsest(size, settings.generator)
        self.start = nn.Linear(latent, channels[0] * self.side**2)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(channels, (*channels[1:], channels[-1])))
        self.norms = nn.ModuleList(nn.GroupNorm(max(1, c // GROUP), c) for c in channels)
        self.last = nn.Conv2d(channels[-1], outputs, 3, padding=1)

    def forward(self, z: Tensor, batch: Batch) -> Tensor:
        """z (B, latent) → (B, outputs, size, size), without bounds, as latents are."""
        x = self.start(z).unflatten(1, (-1, self.side, self.side))
        for layer, norm in zip(self.layers, self.norms):
            x = layer(F.interpolate(F.relu(norm(x)), scale_factor=2))
        return self.last(F.relu(x))
