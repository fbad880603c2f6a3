"""Conditional adversarial networks: generators from masks, and critics that judge image and mask together.

Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017 (arXiv 1611.07004); Wang et al.,
pix2pixHD, CVPR 2018 (arXiv 1711.11585); Park et al., "Semantic Image Synthesis with Spatially-Adaptive Normalization", CVPR
2019 (arXiv 1903.07291); Miyato & Koyama, "cGANs with Projection Discriminator", ICLR 2018 (arXiv 1802.05637).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from monai.networks.blocks.spade_norm import SPADE
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from cmri_lib.errors import ParameterError
from cmri_lib.networks.adversarial import coarsest
from cmri_lib.networks.conditioning.base import Batch, Conditioning

#: Channels of the small network inside a SPADE layer.
SPADE_WIDTH = 16


@dataclass(frozen=True)
class MaskToImageSettings:
    """Channels, finest level first (each has half the side of the one before, the first half the image's); `scales` at
    which a critic judges, each half as large as the one before (1: Pix2Pix, 2: as in the HD variant)."""

    generator: tuple[int, ...] = (32, 48, 64, 128)
    critic: tuple[int, ...] = (32, 64, 128)
    scales: int = 1

    def refuse(self, size: int) -> None:
        """Raises ParameterError if images of size × size pixels cannot be halved as often as there are levels, by the critic at
        its smallest scale too."""
        coarsest(size, self.generator)
        coarsest(size, self.critic)
        if self.scales < 1 or size < 2 ** (self.scales - 1 + len(self.critic)):
            raise ParameterError(f"critics {self.critic} at {self.scales} scales for images of {size}²", field="scales",
                                 remedy="give at least one scale, and so few that the smallest can be halved as often")


class Norm(nn.Module):
    """Normalisation of a generator's features: by SPADE where the conditioning has regions, else by the batch."""

    def __init__(self, channels: int, conditioning: Conditioning):
        super().__init__()
        self.spade = bool(conditioning.regions)
        self.norm = (SPADE(conditioning.regions, channels, kernel_size=3, hidden_channels=SPADE_WIDTH, norm="BATCH")
                     if self.spade else nn.BatchNorm2d(channels))

    def forward(self, x: Tensor, maps: Tensor | None) -> Tensor:
        return self.norm(x, maps) if self.spade else self.norm(x)


class UpBlock(nn.Module):
    """Doubles the side; sees the planes at its own resolution, concatenated, and the maps through its norms."""

    def __init__(self, before: int, after: int, conditioning: Conditioning):
        super().__init__()
        self.norms = nn.ModuleList([Norm(before, conditioning), Norm(after, conditioning)])
        self.first = nn.Conv2d(before + conditioning.channels, after, 3, padding=1)
        self.second = nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor, planes: Tensor | None, maps: Tensor | None) -> Tensor:
        y = F.interpolate(F.relu(self.norms[0](x, maps)), scale_factor=2)
        y = self.first(y if planes is None else torch.cat([y, resized(planes, y)], 1))
        y = self.second(F.relu(self.norms[1](y, maps)))
        return y + F.interpolate(self.shortcut(x), scale_factor=2)


def resized(planes: Tensor, like: Tensor) -> Tensor:
    """Planes at the resolution of `like`, as the share of each label in a pixel."""
    return F.adaptive_avg_pool2d(planes, like.shape[-2:])


class ConditionalGenerator(nn.Module):
    """(z, condition) → image: from a vector up, the mask entering at every level (Park et al., fig. 4, without the encoder).

    What is given as a vector (vendor, age, …) joins z, so it sets the style that the mask leaves open.

    Args:
        latent: numbers in z.
        size: side of the images.
        settings: channels.
        conditioning: planes are concatenated, maps modulate (SPADE), the vector joins z.

    Raises:
        ParameterError: if the conditioning gives more, here and in the other networks of this file.
    """

    def __init__(self, latent: int, size: int, settings: MaskToImageSettings, conditioning: Conditioning):
        super().__init__()
        conditioning.refuse_unused("planes", "maps", "vector")
        self.conditioning, channels = conditioning, settings.generator[::-1]
        self.side = coarsest(size, settings.generator)
        self.start = nn.Linear(latent + conditioning.width, channels[0] * self.side**2)
        self.blocks = nn.ModuleList(UpBlock(a, b, conditioning) for a, b in zip(channels, channels[1:]))
        self.norm = Norm(channels[-1], conditioning)
        self.last = nn.ConvTranspose2d(channels[-1], channels[-1] // 2, 4, 2, 1)
        self.image = nn.Conv2d(channels[-1] // 2 + conditioning.channels + conditioning.regions, 1, 3, padding=1)

    def forward(self, z: Tensor, batch: Batch, control: tuple[Tensor, ...] | None = None) -> Tensor:
        """z (B, latent) → (B, 1, H, W) in [−1, 1]. `control`: what is added to the features of every level, coarsest first:
        (B, channels, h, w) for each of the settings' channels, then half the finest's channels at full size."""
        condition = self.conditioning
        batch = condition.apply_dropout(batch) if self.training else batch
        planes, maps, vector = condition.planes(batch), condition.maps(batch), condition.vector(batch)
        x = self.start(z if vector is None else torch.cat([z, vector], 1)).unflatten(1, (-1, self.side, self.side))
        x = x if control is None else x + control[0]
        for level, block in enumerate(self.blocks, 1):
            x = block(x, planes, maps)
            x = x if control is None else x + control[level]
        x = self.last(F.relu(self.norm(x, maps)))
        x = F.relu(x if control is None else x + control[-1])
        return torch.tanh(self.image(torch.cat([x, *(m for m in (planes, maps) if m is not None)], 1)))


class TranslationUNet(nn.Module):
    """(z, mask) → image by a U-Net over the mask, z spread over the picture: Pix2Pix's generator (Isola et al., sec. 3.2).

    The paper's dropout as a source of noise would make a sample depend on its neighbours in the batch; z does not. Either
    is mostly ignored, for the L1 loss punishes variety.
    """

    def __init__(self, latent: int, size: int, settings: MaskToImageSettings, conditioning: Conditioning):
        super().__init__()
        conditioning.refuse_unused("planes")
        coarsest(size, settings.generator)
        self.conditioning, widths = conditioning, settings.generator
        before = (conditioning.channels + latent, *widths)
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 4, 2, 1), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)) for a, b in zip(before, widths))
        ups = list(zip(widths[::-1], (*widths[-2::-1], widths[0] // 2)))
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(a if k == 0 else 2 * a, b, 4, 2, 1), nn.BatchNorm2d(b), nn.ReLU())
            for k, (a, b) in enumerate(ups))
        self.image = nn.Conv2d(widths[0] // 2 + conditioning.channels, 1, 3, padding=1)

    def forward(self, z: Tensor, batch: Batch) -> Tensor:
        planes = self.conditioning.planes(batch)
        x, kept = torch.cat([planes, z[:, :, None, None].expand(-1, -1, *planes.shape[-2:])], 1), []
        for layer in self.down:
            x = layer(x)
            kept.append(x)
        for k, layer in enumerate(self.up):
            x = layer(x if k == 0 else torch.cat([x, kept[-1 - k]], 1))
        return torch.tanh(self.image(torch.cat([x, planes], 1)))


class PatchCritic(nn.Module):
    """(image, condition) → logits (B, n) of n patches at one scale or several (Isola et al., sec. 3.2; Wang et al., sec. 3.2).

    The mask is concatenated to the image; the vector is compared with the pooled features (projection, Miyato & Koyama,
    eq. 3). Spectral norm keeps the critic's slope bounded and, unlike batch norm, judges each image alone.
    """

    def __init__(self, settings: MaskToImageSettings, conditioning: Conditioning):
        super().__init__()
        conditioning.refuse_unused("planes", "maps", "vector")
        self.conditioning = conditioning
        self.judges = nn.ModuleList(_judge(1 + conditioning.channels + conditioning.regions, settings.critic)
                                    for _ in range(settings.scales))
        self.verdicts = nn.ModuleList(spectral_norm(nn.Conv2d(settings.critic[-1], 1, 3, padding=1)) for _ in self.judges)
        self.project = nn.Linear(conditioning.width, settings.critic[-1]) if conditioning.width else None

    def forward(self, images: Tensor, batch: Batch) -> Tensor:
        return self.judge(images, batch)[0]

    def judge(self, images: Tensor, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """The logits, and what every layer at every scale made of the images: what feature matching compares."""
        condition, logits, features = self.conditioning, [], []
        given = (condition.planes(batch), condition.maps(batch))
        x = torch.cat([images, *(m.to(images.dtype) for m in given if m is not None)], 1)
        for scale, (layers, verdict) in enumerate(zip(self.judges, self.verdicts)):
            y = F.avg_pool2d(x, 2**scale) if scale else x
            for layer in layers:
                y = layer(y)
                if isinstance(layer, nn.LeakyReLU):
                    features.append(y)
            logit = verdict(y).flatten(1)
            if self.project is not None:
                logit = logit + (self.project(condition.vector(batch)) * y.mean((2, 3))).sum(1, keepdim=True)
            logits.append(logit)
        return torch.cat(logits, 1), features


def _judge(inputs: int, widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip((inputs, *widths), widths):
        layers += [spectral_norm(nn.Conv2d(before, after, 4, 2, 1)), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)
