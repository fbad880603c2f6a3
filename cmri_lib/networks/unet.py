"""The denoising U-Net that diffusion, flow and latent systems share: MONAI's, with our way of conditioning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.networks.conditioning import Batch, Conditioning


@dataclass(frozen=True)
class UNetSettings:
    """Channels per level (each multiple of 8; every level but the first halves the image); attention at the lowest
    level only, where an image of 64² is 8²."""

    channels: tuple[int, ...] = (16, 32, 64, 64)
    blocks: int = 1  # residual blocks per level
    head_channels: int = 32  # per attention head


class Denoiser(nn.Module):
    """(x_t, t, condition) → an image of x_t's shape: velocity, noise or clean image, as the objective decides.

    Args:
        settings: sizes.
        conditioning: its planes are concatenated to the input.
        channels: image channels (1 in pixel space).
    """

    def __init__(self, settings: UNetSettings, conditioning: Conditioning, channels: int = 1):
        super().__init__()
        if any(c % 8 for c in settings.channels):
            raise ParameterError(f"{settings.channels}", field="channels", remedy="use multiples of 8 (group norm)")
        self.conditioning = conditioning
        levels = len(settings.channels)
        self.unet = DiffusionModelUNet(
            spatial_dims=2, in_channels=channels + conditioning.channels, out_channels=channels,
            channels=settings.channels, num_res_blocks=settings.blocks, norm_num_groups=8,
            attention_levels=(False,) * (levels - 1) + (True,), num_head_channels=settings.head_channels)

    def forward(self, x: Tensor, t: Tensor, batch: Batch) -> Tensor:
        """x (B, C, H, W); t (B,) in [0, 1]; `batch` holds what the conditioning reads."""
        planes = self.conditioning.planes(batch)
        inputs = x if planes is None else torch.cat([x, planes.to(x.dtype)], dim=1)
        return self.unet(inputs, 1000.0 * t)  # the sinusoidal embedding expects diffusion's 0 … 1000
