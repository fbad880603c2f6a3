"""A small U-Net for label maps: that of the frozen segmenter and of the students of samples."""

from __future__ import annotations

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn

#: Groups of every GroupNorm. Statistics of one image, not of a batch: a segmenter must not depend on its neighbours.
GROUPS = 8


class ConvBlock(nn.Sequential):
    """Two 3 × 3 convolutions, each with GroupNorm and SiLU: (B, C_in, H, W) → (B, C_out, H, W)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, outputs), nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, outputs), nn.SiLU())


class SegmentationUNet(nn.Module):
    """U-Net (Ronneberger et al., MICCAI 2015) with GroupNorm: (B, C_in, H, W) → logits (B, classes, H, W).

    H and W must be divisible by 2^(len(widths) − 1).

    Args:
        classes: labels including background.
        widths: channels per level, each divisible by 8; the first works at full resolution.
        inputs: channels of the image.
    """

    def __init__(self, classes: int = 4, widths: tuple[int, ...] = (16, 32, 64, 96), inputs: int = 1):
        super().__init__()
        self.down = nn.ModuleList(ConvBlock(a, b) for a, b in zip((inputs, *widths), widths))
        self.pool = nn.MaxPool2d(2)
        rising = list(zip(widths[:0:-1], widths[-2::-1]))
        # Transposed convolution: unlike interpolation its gradient is deterministic on GPUs.
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, high, 2, stride=2) for deep, high in rising)
        self.merge = nn.ModuleList(ConvBlock(2 * high, high) for _, high in rising)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        skips, x = [], images
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else self.pool(x))
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips[:-1])):
            x = merge(torch.cat([up(x), skip], dim=1))
        return self.head(x)


def dice_cross_entropy() -> nn.Module:
    """Loss of logits (B, K, H, W) against labels (B, 1, H, W): 1 − soft Dice of the foreground + cross-entropy.

    Dice is taken over the whole batch, so that a slice without a structure does not divide by nothing
    (Isensee et al., Nature Methods 18, 2021: batch Dice).
    """
    return DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
