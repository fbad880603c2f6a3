"""A small convolutional encoder whose pooled map is the study's feature vector."""

from __future__ import annotations

from torch import Tensor, nn

GROUPS = 8


class Residual(nn.Module):
    """Pre-activation residual block (He et al., ECCV 2016): (B, C_in, H, W) → (B, C_out, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.branch = nn.Sequential(
            nn.GroupNorm(GROUPS, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.GroupNorm(GROUPS, outputs), nn.SiLU(), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False))
        unchanged = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if unchanged else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.branch(x)


class Encoder(nn.Module):
    """Image (B, 1, H, W) → map (B, dimension, H/8, W/8); its mean over positions is the feature vector.

    Works at any side divisible by 8, because nothing but the pooling depends on the side.
    """

    def __init__(self, dimension: int = 64, widths: tuple[int, int, int] = (16, 32, 48)):
        super().__init__()
        self.dimension = dimension
        self.stem = nn.Conv2d(1, widths[0], 3, padding=1)
        self.body = nn.Sequential(
            Residual(widths[0], widths[1], 2), Residual(widths[1], widths[2], 2), Residual(widths[2], dimension, 2),
            Residual(dimension, dimension), nn.GroupNorm(GROUPS, dimension), nn.SiLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.body(self.stem(images))
