"""A segmentation network in nnU-Net's manner: residual encoder, strided convolutions, deep supervision.

Isensee et al., "nnU-Net", Nature Methods 18, 2021; its residual encoder: "nnU-Net Revisited", MICCAI 2024.
The plain U-Net of `segmentation` is the measures' instrument; this is the stronger baseline of downstream
segmentation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmri_lib.networks.segmentation import dice_cross_entropy

#: Of every LeakyReLU.
SLOPE = 0.01


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions, added to their input: (B, C_in, H, W) → (B, C_out, H / stride, W / stride).

    With stride 2 the way around is an average of 2 × 2 pixels, then a 1 × 1 convolution (ResNet-D, He et al.,
    CVPR 2019).
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.body = nn.Sequential(_convolution(inputs, outputs, stride), nn.LeakyReLU(SLOPE),
                                  _convolution(outputs, outputs))
        way = [nn.AvgPool2d(stride)] if stride > 1 else []
        if inputs != outputs:
            way += [nn.Conv2d(inputs, outputs, 1, bias=False), nn.InstanceNorm2d(outputs, affine=True)]
        self.around = nn.Sequential(*way)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.body(x) + self.around(x), SLOPE)


class ResidualUNet(nn.Module):
    """(B, C_in, H, W) → logits (B, classes, H, W). H and W are divisible by 2^(len(widths) − 1), and larger.

    Args:
        classes: labels including background.
        widths: channels per level; the first works at full resolution.
        blocks: residual blocks per level of the encoder; the decoder has one convolution per level.
        inputs: channels of the image.
    """

    def __init__(self, classes: int = 4, widths: tuple[int, ...] = (16, 32, 64, 96),
                 blocks: tuple[int, ...] = (1, 1, 2, 2), inputs: int = 1):
        super().__init__()
        self.stem = nn.Sequential(_convolution(inputs, widths[0]), nn.LeakyReLU(SLOPE))
        before = (widths[0], *widths[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(ResidualBlock(above, width, 2 if level else 1),
                          *(ResidualBlock(width, width) for _ in range(1, n)))
            for level, (above, width, n) in enumerate(zip(before, widths, blocks, strict=True)))
        rising = list(zip(widths[:0:-1], widths[-2::-1]))
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, high, 2, stride=2) for deep, high in rising)
        self.merge = nn.ModuleList(nn.Sequential(_convolution(2 * high, high), nn.LeakyReLU(SLOPE))
                                   for high in widths[-2::-1])
        # Not for the coarsest level of the decoder, whose pixels are larger than the wall is thick.
        self.heads = nn.ModuleList(nn.Conv2d(width, classes, 1) for width in widths[:max(1, len(widths) - 2)])

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Logits at full resolution, at half of it, …: one per head."""
        skips, x = [], self.stem(images)
        for level in self.down:
            x = level(x)
            skips.append(x)
        rising = []
        for up, merge, skip in zip(self.up, self.merge, reversed(skips[:-1])):
            x = merge(torch.cat([up(x), skip], dim=1))
            rising.append(x)
        return [head(x) for head, x in zip(self.heads, reversed(rising))]

    def forward(self, images: Tensor) -> Tensor:
        return self.pyramid(images)[0]


class DeepSupervision(nn.Module):
    """Mean of a loss over a pyramid of logits, each resolution at half the weight of the one above.

    Small label maps hold the nearest label, not shares, so that Dice and cross-entropy mean the same on each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.criterion = dice_cross_entropy()

    def forward(self, pyramid: list[Tensor], masks: Tensor) -> Tensor:
        """Scalar loss of logits [(B, K, H, W), (B, K, H/2, W/2), …] against label maps (B, H, W)."""
        labels = masks[:, None].float()
        small = [F.interpolate(labels, logits.shape[-2:], mode="nearest-exact") for logits in pyramid]
        weights = [0.5**level for level in range(len(pyramid))]
        return sum(w * self.criterion(x, y) for w, x, y in zip(weights, pyramid, small)) / sum(weights)


class Mirrored(nn.Module):
    """Mean answer of a network to an image and its mirror images, as probabilities (B, K, H, W).

    Hearts are not symmetric: worth a try only for a network that has met mirrored images in training.
    """

    #: Axes of (B, C, H, W).
    AXES = ((), (3,), (2,), (2, 3))

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        answers = [self.network(images.flip(axes)).softmax(1).flip(axes) for axes in self.AXES]
        return torch.stack(answers).mean(0)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3 × 3, then instance normalisation, so that no image depends on its neighbours in the batch."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
                         nn.InstanceNorm2d(outputs, affine=True))
