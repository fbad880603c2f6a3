"""The first stage of 3D latent diffusion: an autoencoder of whole stacks, image and label map together.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022 (arXiv 2112.10752),
in three dimensions. Slices of a heart lie about 10 mm apart and pixels about 2 mm, so a stack is compressed
within its planes and not along its axis; convolutions are split into those within the plane and one along the
axis (Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018), for less
than half the cost of full ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from cmri_lib.errors import DataError
from cmri_lib.networks.autoencoder import KLSettings, GaussianAutoencoder, Weight
from cmri_lib.networks.conditioning.base import one_hot


@dataclass(frozen=True)
class StackSettings(KLSettings):
    """Those of images, whose widths halve the sides of the planes here; `planes` of a stack; `labels` weighs the error of
    the label map beside that of the image."""

    widths: tuple[int, ...] = (24, 48)
    planes: Annotated[int, Field(ge=2)] = 8
    labels: Weight = 1.0


def with_labels(images: Tensor, masks: Tensor, labels: int) -> Tensor:
    """Images (B, 1, D, H, W) and label maps (B, D, H, W) → (B, 1 + labels, D, H, W): the image, and a plane of −1 and 1
    for each label, background included."""
    return torch.cat([images, 2 * one_hot(masks, labels) - 1], dim=1)


class PlaneAndAxis(nn.Module):
    """Residual block without normalisation (as in `networks.autoencoder`): a convolution within the planes, one along the axis.
    (B, C_in, D, H, W) → (B, C_out, D, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.branch = nn.Sequential(nn.SiLU(), nn.Conv3d(inputs, outputs, (1, 3, 3), (1, stride, stride), (0, 1, 1)),
                                    nn.SiLU(), nn.Conv3d(outputs, outputs, (3, 1, 1), padding=(1, 0, 0)),
                                    nn.SiLU(), nn.Conv3d(outputs, outputs, (1, 3, 3), padding=(0, 1, 1)))
        nn.init.zeros_(self.branch[-1].weight)
        unchanged = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if unchanged else nn.Conv3d(inputs, outputs, 1, (1, stride, stride))

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.branch(x)


class StackAutoencoder(GaussianAutoencoder):
    """Stacks (B, 1 + labels, D, H, W) ↔ latents (B, C, D, H / 2^levels, W / 2^levels). What is decoded is the image in about
    [−1, 1] and, for each label, a score (logit) whose largest names the label.

    Args:
        settings: sizes and weights.
        labels: planes of the label map, background included.
    """

    def __init__(self, settings: StackSettings, labels: int):
        super().__init__(settings, _encoder(settings, 1 + labels), _decoder(settings, 1 + labels))
        self.planes, self.labels, self.label_weight = settings.planes, labels, settings.labels

    def latent_shape(self, size: int) -> tuple[int, ...]:
        """(C, D, h, w) of the latents of planes of `size` × `size`. Raises ParameterError if they cannot be halved so often."""
        channels, *sides = super().latent_shape(size)
        return channels, self.planes, *sides

    def posterior(self, stacks: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each (B, C, D, h, w), of the latents' distribution.

        Raises:
            DataError: on stacks of other channels or planes than the network was made for.
        """
        if stacks.dim() != 5 or stacks.shape[1:3] != (1 + self.labels, self.planes):
            raise DataError(f"stacks of shape {tuple(stacks.shape)}, not (B, {1 + self.labels}, {self.planes}, H, W)",
                            field="image", remedy="make them with generators.stacks.stack_batch")
        return super().posterior(unshuffled(stacks))

    def image_loss(self, stacks: Tensor, target: Tensor) -> Tensor:
        """That of the image, + labels · cross-entropy of the label map."""
        labels = F.cross_entropy(stacks[:, 1:].float(), target[:, 1:].argmax(dim=1))
        return super().image_loss(stacks[:, :1], target[:, :1]) + self.label_weight * labels


def _encoder(settings: StackSettings, inputs: int) -> nn.Sequential:
    """(B, 4 · inputs, D, H / 2, W / 2) → (B, 2 C, D, h, w)."""
    widths = settings.widths
    layers: list[nn.Module] = [nn.Conv3d(4 * inputs, widths[0], (1, 3, 3), padding=(0, 1, 1))]
    for level, width in enumerate(widths):
        layers += [PlaneAndAxis(widths[level - 1], width, stride=2)] if level else []
        layers += [PlaneAndAxis(width, width) for _ in range(settings.blocks)]
    return nn.Sequential(*layers, nn.SiLU(), nn.Conv3d(widths[-1], 2 * settings.channels, (1, 3, 3), padding=(0, 1, 1)))


def _decoder(settings: StackSettings, outputs: int) -> nn.Sequential:
    """(B, C, D, h, w) → (B, outputs, D, H, W)."""
    widths = settings.widths
    layers: list[nn.Module] = [nn.Conv3d(settings.channels, widths[-1], 3, padding=1)]
    for level in reversed(range(len(widths))):
        layers += [PlaneAndAxis(widths[level], widths[level]) for _ in range(settings.blocks + 1)]
        layers += [nn.Conv3d(widths[level], 4 * widths[level - 1], 1), Shuffle()] if level else []
    return nn.Sequential(
        *layers, nn.SiLU(), nn.Conv3d(widths[0], 4 * outputs, (1, 3, 3), padding=(0, 1, 1)), Shuffle())


def unshuffled(stacks: Tensor) -> Tensor:
    """(B, C, D, H, W) → (B, 4 C, D, H / 2, W / 2): the four pixels of a square in every plane become four channels."""
    return F.pixel_unshuffle(stacks.movedim(2, 1), 2).movedim(1, 2)


class Shuffle(nn.Module):
    """(B, 4 C, D, h, w) → (B, C, D, 2 h, 2 w), the inverse of `unshuffled`."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(x.movedim(2, 1), 2).movedim(1, 2)
