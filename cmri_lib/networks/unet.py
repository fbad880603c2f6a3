"""The denoising U-Net that diffusion, flow and latent systems share: MONAI's, with our way of conditioning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from monai.networks.nets import DiffusionModelUNet, SPADEDiffusionModelUNet
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.networks.conditioning.base import Batch, Conditioning

#: The sinusoidal embedding of time expects diffusion's 0 … 1000.
TIMES = 1000.0
#: Channels of the small network that turns a label map into scale and shift; the paper's 128 would cost more than the rest.
SPADE_WIDTH = 16

#: Residuals for the skip connections, finest first, and for the middle.
Control = tuple[tuple[Tensor, ...], Tensor]


@dataclass(frozen=True)
class UNetSettings:
    """Channels per level (each multiple of 8; every level but the first halves the image); attention at the lowest
    level only, where an image of 64² is 8². With `patch` 2 the four pixels of a square are four channels of one place
    (space to depth, Shi et al., CVPR 2016), and the first level is half as wide as the image."""

    channels: tuple[int, ...] = (16, 32, 64, 64)
    blocks: int = 1  # residual blocks per level
    head_channels: int = 32  # per attention head
    patch: int = 1  # side of the squares of pixels that share a place

    def __post_init__(self) -> None:
        if not self.channels or any(c < 8 or c % 8 for c in self.channels):
            raise ParameterError(f"{self.channels}", field="channels", remedy="use multiples of 8 (group norm)")
        if self.patch < 1:
            raise ParameterError(f"{self.patch}", field="patch", remedy="give at least 1")

    def refuse(self, size: int) -> None:
        """Raises ParameterError if images of size × size pixels cannot be halved as often as there are levels."""
        if size % (times := self.patch * 2 ** (len(self.channels) - 1)):
            raise ParameterError(f"patch {self.patch} and channels {self.channels} for images of {size}²", field="channels",
                                 remedy=f"give a side that {times} divides, or fewer levels")


class Denoiser(nn.Module):
    """(x_t, t, condition) → an image of x_t's shape: velocity, noise or clean image, as the objective decides.

    Args:
        settings: sizes.
        conditioning: its planes are concatenated to the input, its maps modulate the decoder's normalisation (SPADE, Park et
            al. 2019), its vector is added to the embedding of the time, its tokens are attended to at the lowest level.
        channels: image channels (1 in pixel space).

    H and W must be multiples of the patch, and then as often divisible by 2 as there are levels below the first.
    """

    patch = 1  # of the instance, where it is more

    def __init__(self, settings: UNetSettings, conditioning: Conditioning, channels: int = 1):
        super().__init__()
        self.conditioning = conditioning
        if settings.patch > 1:
            self.patch = settings.patch
        levels, pixels = len(settings.channels), self.patch ** 2
        kind, options = DiffusionModelUNet, {}
        if conditioning.regions:
            kind, options = SPADEDiffusionModelUNet, {"label_nc": pixels * conditioning.regions,
                                                      "spade_intermediate_channels": SPADE_WIDTH}
        if conditioning.context:
            options |= {"with_conditioning": True, "cross_attention_dim": conditioning.context}
        if conditioning.width:
            options |= {"num_class_embeds": 1}
        self.unet = kind(
            spatial_dims=2, in_channels=pixels * (channels + conditioning.channels), out_channels=pixels * channels,
            channels=settings.channels, num_res_blocks=settings.blocks, norm_num_groups=8,
            attention_levels=(False,) * (levels - 1) + (True,), num_head_channels=settings.head_channels, **options)
        if conditioning.width:  # any vector in the place of MONAI's table of classes
            self.unet.class_embedding = nn.Linear(conditioning.width, 4 * settings.channels[0])

    def forward(self, x: Tensor, t: Tensor, batch: Batch, control: Control | None = None) -> Tensor:
        """x (B, C, H, W); t (B,) in [0, 1]; `batch` holds what the conditioning reads; `control`: what a ControlNet adds
        to the skip connections and in the middle."""
        condition = self.conditioning
        batch = condition.apply_dropout(batch) if self.training else batch
        maps = condition.maps(batch)
        options = {} if maps is None else {"seg": self.places(maps.to(x.dtype))}
        if control is not None:
            options |= {"down_block_additional_residuals": control[0], "mid_block_additional_residual": control[1]}
        out = self.unet(self.inputs(x, batch), TIMES * t, context=condition.tokens(batch),
                        class_labels=condition.vector(batch), **options)
        return F.pixel_shuffle(out, self.patch) if self.patch > 1 else out

    def inputs(self, x: Tensor, batch: Batch) -> Tensor:
        """What the first layer sees: x and, behind it, the planes of the condition."""
        planes = self.conditioning.planes(batch)
        return self.places(x if planes is None else torch.cat([x, planes.to(x.dtype)], dim=1))

    def places(self, images: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C · patch², H / patch, W / patch); the first channel's pixels come first."""
        return F.pixel_unshuffle(images, self.patch) if self.patch > 1 else images
