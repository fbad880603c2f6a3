"""Generators and critics of the adversarial systems that neither grow nor have styles: DCGAN's, and residual ones.

Radford et al., "Unsupervised Representation Learning with Deep Convolutional GANs", ICLR 2016 (arXiv 1511.06434);
Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017 (arXiv 1704.00028), residual blocks of app. F.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.networks.conditioning.base import Batch


@dataclass(frozen=True)
class AdversarialSettings:
    """Channels of both networks, finest level first; each level has half the side of the one before, and the first
    half the side of the image."""

    generator: tuple[int, ...] = (32, 64, 128, 256)
    critic: tuple[int, ...] = (32, 64, 128, 256)

    def refuse(self, size: int) -> None:
        """Raises ParameterError if images of size × size pixels cannot be halved as often as there are levels."""
        coarsest(size, self.generator)
        coarsest(size, self.critic)


def coarsest(size: int, channels: tuple[int, ...]) -> int:
    """Side of the coarsest level of an image of `size`. Raises ParameterError if it cannot be halved so often."""
    if not channels or size % 2 ** len(channels):
        raise ParameterError(f"{channels} for images of {size}²", field="network",
                             remedy="give as many channels as the side can be halved, at least one")
    return size // 2 ** len(channels)


class DCGANGenerator(nn.Module):
    """z → image by strided transposed convolutions, batch norm and ReLU; tanh at the end (Radford et al., fig. 1)."""

    def __init__(self, latent: int, size: int, settings: AdversarialSettings):
        super().__init__()
        self.side, channels = coarsest(size, settings.generator), settings.generator[::-1]
        layers: list[nn.Module] = [nn.Unflatten(1, (latent, 1, 1)),
                                   nn.ConvTranspose2d(latent, channels[0], self.side, bias=False)]
        for before, after in zip(channels, channels[1:]):
            layers += [nn.BatchNorm2d(before), nn.ReLU(inplace=True), nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(channels[-1]), nn.ReLU(inplace=True), nn.ConvTranspose2d(channels[-1], 1, 4, 2, 1), nn.Tanh()]
        self.layers = nn.Sequential(*layers).apply(_dcgan_weights)

    def forward(self, z: Tensor, batch: Batch) -> Tensor:
        """z (B, latent) → (B, 1, H, W) in [−1, 1]."""
        return self.layers(z)


class DCGANCritic(nn.Module):
    """Image → logit by strided convolutions and leaky ReLU (Radford et al.), without their batch norm: R1 is the
    gradient of one image's logit, and batch norm would mix the images of a batch.

    Args:
        size: side of the images. settings: channels, finest level first. inputs: channels of the images, or of latents.
    """

    def __init__(self, size: int, settings: AdversarialSettings, inputs: int = 1):
        super().__init__()
        side, channels = coarsest(size, settings.critic), (inputs, *settings.critic)
        layers: list[nn.Module] = []
        for before, after in zip(channels, channels[1:]):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * side**2, 1))

    def forward(self, images: Tensor, batch: Batch) -> Tensor:
        """images (B, inputs, H, W) → logits (B,)."""
        return self.layers(images).squeeze(1)


def _dcgan_weights(layer: nn.Module) -> None:
    """Normal with standard deviation 0.02 (Radford et al., sec. 4), around 1 for the scales of batch norm."""
    if isinstance(layer, nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)


class ResidualUp(nn.Module):
    """Doubles the side: a linear way by nearest neighbours, and two normalised 3×3 convolutions beside it."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(before), nn.BatchNorm2d(after)])
        self.convolutions = nn.ModuleList([nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)])
        self.shortcut = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.interpolate(F.relu(self.norms[0](x)), scale_factor=2)
        y = self.convolutions[1](F.relu(self.norms[1](self.convolutions[0](y))))
        return y + F.interpolate(self.shortcut(x), scale_factor=2)


class ResidualDown(nn.Module):
    """Halves the side: a linear way and two 3×3 convolutions beside it, both averaged. No batch norm, because the
    gradient penalty is on each image alone (Gulrajani et al., sec. 4)."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)])
        self.shortcut = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolutions[1](F.leaky_relu(self.convolutions[0](F.leaky_relu(x, 0.2)), 0.2))
        return F.avg_pool2d(y, 2) + self.shortcut(F.avg_pool2d(x, 2))


class ResidualGenerator(nn.Module):
    """z → image by residual blocks that double the side; tanh at the end. The last doubling, to the image itself, is
    by a transposed convolution: features at full size would cost most of the time."""

    def __init__(self, latent: int, size: int, settings: AdversarialSettings):
        super().__init__()
        side, channels = coarsest(size, settings.generator), settings.generator[::-1]
        self.first = nn.Sequential(nn.Linear(latent, channels[0] * side**2), nn.Unflatten(1, (channels[0], side, side)))
        self.blocks = nn.Sequential(*[ResidualUp(before, after) for before, after in zip(channels, channels[1:])])
        self.last = nn.Sequential(nn.BatchNorm2d(channels[-1]), nn.ReLU(),
                                  nn.ConvTranspose2d(channels[-1], 1, 4, 2, 1), nn.Tanh())

    def forward(self, z: Tensor, batch: Batch) -> Tensor:
        """z (B, latent) → (B, 1, H, W) in [−1, 1]."""
        return self.last(self.blocks(self.first(z)))


class ResidualCritic(nn.Module):
    """Image → logit by a strided convolution, then residual blocks that halve the side."""

    def __init__(self, size: int, settings: AdversarialSettings):
        super().__init__()
        side, channels = coarsest(size, settings.critic), settings.critic
        self.first = nn.Conv2d(1, channels[0], 4, 2, 1)
        self.blocks = nn.Sequential(*[ResidualDown(before, after) for before, after in zip(channels, channels[1:])])
        self.last = nn.Sequential(nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(channels[-1] * side**2, 1))

    def forward(self, images: Tensor, batch: Batch) -> Tensor:
        """images (B, 1, H, W) → logits (B,)."""
        return self.last(self.blocks(self.first(images))).squeeze(1)
