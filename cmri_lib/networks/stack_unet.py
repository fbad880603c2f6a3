"""The denoising U-Net of stacks: MONAI's in three dimensions, without a condition."""

from __future__ import annotations

from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.networks.conditioning.base import Batch
from cmri_lib.networks.unet import TIMES, UNetSettings


class StackDenoiser(nn.Module):
    """(x_t, t) → a stack of x_t's shape: noise, v or clean latents, as the objective decides.

    Args:
        settings: sizes; a patch is not used, for latents are small already.
        channels: of the latents.

    Planes and sides of the latents must be as often divisible by 2 as there are levels below the first.
    """

    def __init__(self, settings: UNetSettings, channels: int):
        super().__init__()
        if settings.patch != 1:
            raise ParameterError(f"{settings.patch}", field="patch", remedy="use 1: latents are small already")
        self.unet = DiffusionModelUNet(
            spatial_dims=3, in_channels=channels, out_channels=channels, channels=settings.channels,
            num_res_blocks=settings.blocks, norm_num_groups=8, num_head_channels=settings.head_channels,
            attention_levels=(False,) * (len(settings.channels) - 1) + (True,))

    def forward(self, x: Tensor, t: Tensor, batch: Batch) -> Tensor:
        """x (B, C, D, h, w); t (B,) in [0, 1]; `batch` is not looked at."""
        return self.unet(x, TIMES * t)
