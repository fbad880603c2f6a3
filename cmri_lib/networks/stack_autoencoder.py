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

from cmri_lib.errors import DataError, ParameterError
from cmri_lib.networks.conditioning.base import one_hot
from cmri_lib.training.loop import Batch, Trainable

Weight = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class StackSettings:
    """Every width is a level that halves the planes' sides: two of them make 16 × 16 latents of 64 × 64 planes.
    `planes` of a stack; `channels` of the latents. `labels` weighs the error of the label map beside that of the image,
    `detail` the error of the image's slopes beside that of its values, `kl` the divergence from N(0, 1), in nats per
    latent value; tiny, so that images stay sharp."""

    widths: tuple[int, ...] = (24, 48)
    blocks: int = 1
    channels: int = 4
    planes: Annotated[int, Field(ge=2)] = 8
    labels: Weight = 1.0
    detail: Weight = 1.0
    kl: Weight = 1.0e-4

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1:
            raise ParameterError(f"{self.widths}", field="widths", remedy="give at least one, all positive")


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


class StackAutoencoder(Trainable):
    """Stacks (B, 1 + labels, D, H, W) ↔ latents (B, C, D, H / 2^levels, W / 2^levels), each channel of mean 0 and variance 1.

    Args:
        settings: sizes and weights.
        labels: planes of the label map, background included.
    """

    momentum = 0.02  # of the running mean and variance of the latents

    def __init__(self, settings: StackSettings, labels: int):
        super().__init__()
        self.channels, self.levels, self.planes, self.labels = settings.channels, len(settings.widths), settings.planes, labels
        self.label_weight, self.detail, self.kl = settings.labels, settings.detail, settings.kl
        widths, inputs = settings.widths, 1 + labels
        layers: list[nn.Module] = [nn.Conv3d(4 * inputs, widths[0], (1, 3, 3), padding=(0, 1, 1))]
        for level, width in enumerate(widths):
            layers += [PlaneAndAxis(widths[level - 1], width, stride=2)] if level else []
            layers += [PlaneAndAxis(width, width) for _ in range(settings.blocks)]
        self.encoder = nn.Sequential(
            *layers, nn.SiLU(), nn.Conv3d(widths[-1], 2 * settings.channels, (1, 3, 3), padding=(0, 1, 1)))
        layers = [nn.Conv3d(settings.channels, widths[-1], 3, padding=1)]
        for level in reversed(range(len(widths))):
            layers += [PlaneAndAxis(widths[level], widths[level]) for _ in range(settings.blocks + 1)]
            layers += [nn.Conv3d(widths[level], 4 * widths[level - 1], 1), Shuffle()] if level else []
        self.decoder = nn.Sequential(
            *layers, nn.SiLU(), nn.Conv3d(widths[0], 4 * inputs, (1, 3, 3), padding=(0, 1, 1)), Shuffle())
        self.register_buffer("mean", torch.zeros(settings.channels))
        self.register_buffer("variance", torch.ones(settings.channels))

    def latent_shape(self, size: int) -> tuple[int, int, int, int]:
        """(C, D, h, w) of the latents of planes of `size` × `size`. Raises ParameterError if they cannot be halved so often."""
        side, rest = divmod(size, 2**self.levels)
        if rest:
            raise ParameterError(f"{size} pixels cannot be halved {self.levels} times", field="size",
                                 remedy=f"use a multiple of {2**self.levels}")
        return self.channels, self.planes, side, side

    def posterior(self, stacks: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each (B, C, D, h, w), of the latents' distribution.

        Raises:
            DataError: on stacks of other channels or planes than the network was made for.
        """
        if stacks.dim() != 5 or stacks.shape[1:3] != (1 + self.labels, self.planes):
            raise DataError(f"stacks of shape {tuple(stacks.shape)}, not (B, {1 + self.labels}, {self.planes}, H, W)",
                            field="image", remedy="make them with generators.stacks.stack_batch")
        mean, log_variance = self.encoder(unshuffled(stacks)).chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 10)

    def encode(self, stacks: Tensor) -> Tensor:
        """Stacks → latents (B, C, D, h, w), each channel of about mean 0 and variance 1."""
        return (self.posterior(stacks)[0] - _cells(self.mean)) / _cells(self.variance).sqrt()

    def decode(self, latents: Tensor) -> Tensor:
        """Latents, scaled as `encode` gives them → (B, 1 + labels, D, H, W): the image in about [−1, 1] and, for each label, a
        score (logit) whose largest names the label."""
        return self.decoder(latents * _cells(self.variance).sqrt() + _cells(self.mean))

    def loss(self, batch: Batch, group: str) -> Tensor:
        """Absolute error of the image and of its slopes, + labels · cross-entropy of the label map, + kl · divergence, of a
        reconstruction from a sample of the posterior (Kingma & Welling 2014, appendix B)."""
        stacks = batch["image"]
        mean, log_variance = self.posterior(stacks)
        if self.training:
            self._measure_scale(mean)
        made = self.decoder(mean + (0.5 * log_variance).exp() * torch.randn_like(mean))
        error = made[:, :1] - stacks[:, :1]
        slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        labels = F.cross_entropy(made[:, 1:].float(), stacks[:, 1:].argmax(dim=1))
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return error.abs().mean() + self.detail * slopes + self.label_weight * labels + self.kl * divergence

    @torch.no_grad()
    def _measure_scale(self, mean: Tensor) -> None:
        """Move the running mean and variance towards those of latents (B, C, D, h, w)."""
        variance, centre = torch.var_mean(mean.float(), dim=(0, 2, 3, 4))
        self.mean.lerp_(centre, self.momentum)
        self.variance.lerp_(variance, self.momentum)


def unshuffled(stacks: Tensor) -> Tensor:
    """(B, C, D, H, W) → (B, 4 C, D, H / 2, W / 2): the four pixels of a square in every plane become four channels."""
    return F.pixel_unshuffle(stacks.movedim(2, 1), 2).movedim(1, 2)


class Shuffle(nn.Module):
    """(B, 4 C, D, h, w) → (B, C, D, 2 h, 2 w), the inverse of `unshuffled`."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(x.movedim(2, 1), 2).movedim(1, 2)


def _cells(values: Tensor) -> Tensor:
    """(C,) → (C, 1, 1, 1), to act on (B, C, D, h, w)."""
    return values[:, None, None, None]
