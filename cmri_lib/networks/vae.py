"""Convolutional encoder and decoder between images and one vector per image, the code of a variational autoencoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.networks.conditioning.base import Batch, Conditioning
from cmri_lib.networks.encoder import GROUPS, Residual

#: Side of the smallest map, where the image becomes a vector.
BASE = 4


@dataclass(frozen=True)
class VAESettings:
    """`channels` per level (multiples of 8; every level but the first halves the image, and the last is 4 × 4, so their
    number sets the side of the images); `latent`: length of the code."""

    channels: tuple[int, ...] = (16, 32, 64, 64, 64)
    latent: int = 64

    def __post_init__(self) -> None:
        if not self.channels or any(c < GROUPS or c % GROUPS for c in self.channels):
            raise ParameterError(f"{self.channels}", field="channels", remedy="use multiples of 8 (group norm)")
        if self.latent < 1:
            raise ParameterError(f"{self.latent}", field="latent", remedy="give at least 1")

    @property
    def size(self) -> int:
        """Side of the images."""
        return BASE * 2 ** (len(self.channels) - 1)

    def refuse(self, size: int) -> None:
        """Raises ParameterError if the levels end in another size than size × size pixels."""
        if size != self.size:
            raise ParameterError(f"{len(self.channels)} levels end in images of {self.size}², not {size}²", field="channels",
                                 remedy=f"give as many levels as halve the image down to {BASE} pixels")


class Encoder(nn.Module):
    """Image (B, C, H, W) → mean and log-variance of its code, each (B, latent): q(z|x), a diagonal Gaussian.

    Args:
        channels: C, 1 for images; as many as there are labels for label maps.

    Raises:
        ParameterError: if the images are not `settings.size` pixels wide, or the conditioning gives more than planes.
    """

    def __init__(self, settings: VAESettings, conditioning: Conditioning, channels: int = 1):
        super().__init__()
        conditioning.refuse_unused("planes")
        self.conditioning, self.size, widths = conditioning, settings.size, settings.channels
        self.stem = nn.Conv2d(channels + conditioning.channels, widths[0], 3, padding=1)
        halves = [Residual(before, after, 2) for before, after in zip(widths, widths[1:])]
        self.body = nn.Sequential(*halves, nn.GroupNorm(GROUPS, widths[-1]), nn.SiLU(), nn.Flatten())
        self.head = nn.Linear(widths[-1] * BASE**2, 2 * settings.latent)

    def forward(self, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """images (B, 1, H, W) → mean and log-variance, each (B, latent). Raises ParameterError if the levels end elsewhere than
        at the smallest side."""
        if images.shape[-2:] != (self.size, self.size):
            raise ParameterError(f"{len(self.body) - 2} levels end in images of {self.size}², not {tuple(images.shape[-2:])}",
                                 field="channels", remedy=f"give as many levels as halve the image down to {BASE} pixels")
        planes = self.conditioning.planes(batch)
        inputs = images if planes is None else torch.cat([images, planes.to(images.dtype)], dim=1)
        mean, log_variance = self.head(self.body(self.stem(inputs))).chunk(2, dim=1)
        return mean, log_variance


class Decoder(nn.Module):
    """Code (B, latent) → mean image (B, C, H, W). The condition's planes, shrunk to each level, are added there.

    Args:
        channels: C, as of `Encoder`.

    Raises:
        ParameterError: if the conditioning gives more than planes.
    """

    def __init__(self, settings: VAESettings, conditioning: Conditioning, channels: int = 1):
        super().__init__()
        conditioning.refuse_unused("planes")
        self.conditioning, widths = conditioning, settings.channels[::-1]
        self.first = nn.Linear(settings.latent, widths[0] * BASE**2)
        # Doubling before a convolution leaves no chequerboard, as transposed convolutions do, and linearly no blocks.
        self.levels = nn.ModuleList(Residual(before, after) for before, after in zip(widths, widths[1:]))
        planes = conditioning.channels
        self.options = nn.ModuleList(nn.Conv2d(planes, width, 1) for width in widths[:-1]) if planes else None
        self.last = nn.Sequential(nn.GroupNorm(GROUPS, widths[-1]), nn.SiLU(),
                                  nn.Conv2d(widths[-1], channels, 3, padding=1))

    def forward(self, code: Tensor, batch: Batch) -> Tensor:
        planes = self.conditioning.planes(batch)
        x = self.first(code).unflatten(1, (-1, BASE, BASE))
        for place, level in enumerate(self.levels):
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear")
            if planes is not None:
                x = x + self.options[place](F.adaptive_avg_pool2d(planes.to(x.dtype), x.shape[-2:]))
            x = level(x)
        return self.last(x)
