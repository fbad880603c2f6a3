"""U4's two networks, which grow from 8×8 to the full image while they learn, and the layers that U5 shares with them.

Karras et al., "Progressive Growing of GANs for Improved Quality, Stability, and Variation", ICLR 2018 (arXiv
1710.10196), sections cited below. One thing differs: a network always takes or returns images at full size, and
resamples them itself while it is small, so the objective needs to know nothing of growth. A critic that averages first
has gradients f times smaller in full-size pixels, f being the factor, but images at that size are f times further
apart as well: a penalty on the slope means the same at every stage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.networks.conditioning.base import Batch

#: Side of the lowest resolution.
BASE = 4


@dataclass(frozen=True)
class ProgressiveSettings:
    """`channels` at 4×4, 8×8, … up to the image, of side 4 · 2^(levels − 1); a share `growing` of the training is spent
    on growing. The paper's equal number of images per stage would leave the full size, the only one measured, a
    short time of a short training."""

    channels: tuple[int, ...] = (64, 64, 64, 32, 16)
    growing: float = 0.4

    def __post_init__(self) -> None:
        if len(self.channels) < 2 or not 0 <= self.growing <= 1:
            raise ParameterError(f"channels {self.channels}, growing {self.growing}", field="channels, growing",
                                 remedy="give at least two levels, and a share between 0 and 1")

    def refuse(self, size: int) -> None:
        """Raises ParameterError if the levels end in another size than size × size pixels."""
        refuse_levels(len(self.channels), size)


def refuse_levels(levels: int, size: int) -> None:
    """Raises ParameterError if so many levels, from 4×4 up, end in images of another side than `size`."""
    if (side := BASE * 2 ** (levels - 1)) != size:
        raise ParameterError(f"{levels} levels make {side}², the images have side {size}", field="channels",
                             remedy="give one number of channels per level from 4×4 up")


class EqualisedConv(nn.Module):
    """Convolution whose stored weights are N(0, 1) and scaled by He's constant at each use (sec. 4.1), so that Adam's
    steps, all of one size, move every layer by the same relative amount.

    Args:
        inputs, outputs: channels.
        kernel: odd side.
        gain: √2 before a leaky ReLU, 1 for a linear output.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, gain: float = math.sqrt(2)):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale, self.padding = gain / math.sqrt(inputs * kernel**2), kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.scale * self.weight, self.bias, padding=self.padding)


class EqualisedLinear(nn.Module):
    """The same for a fully connected layer.

    Args:
        inputs, outputs: features.
        gain: as in `EqualisedConv`.
        rate: of learning, relative to the other layers (StyleGAN's mapping network learns a hundred times slower).
        bias: its initial value.
    """

    def __init__(self, inputs: int, outputs: int, gain: float = math.sqrt(2), rate: float = 1.0, bias: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale, self.rate = gain * rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.scale * self.weight, self.rate * self.bias)


def pixel_norm(x: Tensor) -> Tensor:
    """Each pixel's feature vector to mean square 1 (sec. 4.2)."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def minibatch_deviation(x: Tensor, group: int = 4) -> Tensor:
    """(B, C, H, W) → (B, C + 1, H, W): the last plane is the standard deviation over a group of images, averaged over
    channels and pixels (sec. 3). It tells the critic how varied a batch is. Groups of 4, or the whole batch
    if 4 does not divide it."""
    b, _, h, w = x.shape
    groups = x.view(-1, group, *x.shape[1:]) if b % group == 0 else x[None]  # (groups, members, C, H, W)
    deviation = (groups.var(1, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    plane = deviation.repeat_interleave(b // len(deviation)).view(b, 1, 1, 1).expand(b, 1, h, w)
    return torch.cat([x, plane], 1)


def position(progress: float, levels: int, growing: float) -> float:
    """Which level is reached when a share `progress` of the training has passed: 1 is 8×8, levels − 1 the image; 2.3
    has level 2 whole and level 3 faded in by 0.3 (sec. 2). Half of each level's share is steady, in the other
    half the next one fades in."""
    if progress >= growing:
        return float(levels - 1)
    stage, within = divmod(progress / growing * (levels - 2), 1)
    return 1 + stage + max(0.0, 2 * within - 1)


class Growing(nn.Module):
    """What both networks share: how far they have grown."""

    def __init__(self, settings: ProgressiveSettings):
        super().__init__()
        self.levels, self.growing = len(settings.channels), settings.growing
        self.size = BASE * 2 ** (self.levels - 1)
        self.grow(1.0)

    def grow(self, progress: float) -> None:
        """Called before each step with the share of the training that has passed."""
        self.position = position(progress, self.levels, self.growing)

    def reached(self) -> tuple[int, float]:
        """Whole level, and how far the next is faded in; in eval mode all has grown."""
        whole = math.floor(self.position) if self.training else self.levels - 1
        return whole, self.position - whole if self.training else 0.0


def up(x: Tensor, factor: int = 2) -> Tensor:
    """Nearest neighbour."""
    return F.interpolate(x, scale_factor=factor, mode="nearest") if factor > 1 else x


def down(x: Tensor, factor: int = 2) -> Tensor:
    """Mean over squares. Sums of strided views are several times faster on a CPU than pooling two by two."""
    if factor == 2:
        rows = x[..., ::2, :] + x[..., 1::2, :]
        return (rows[..., ::2] + rows[..., 1::2]) / 4
    return F.avg_pool2d(x, factor) if factor > 1 else x


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2."""
    return F.leaky_relu(x, 0.2)


class GeneratorBlock(nn.Module):
    """(B, inputs, H, W) → (B, outputs, 2H, 2W). The first convolution comes before the upsampling, not after it as in
    the paper, and so costs a quarter."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first, self.second = EqualisedConv(inputs, outputs), EqualisedConv(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = pixel_norm(activate(self.first(x)))
        return pixel_norm(activate(self.second(up(x))))


class CriticBlock(nn.Module):
    """(B, inputs, H, W) → (B, outputs, H/2, W/2), likewise with the second convolution after the downsampling."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first, self.second = EqualisedConv(inputs, inputs), EqualisedConv(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return activate(self.second(down(activate(self.first(x)))))


class ProgressiveGenerator(Growing):
    """z (B, latent) → images (B, 1, size, size). The output is linear, as in the paper.

    Args:
        settings: sizes and schedule.
        latent: numbers in z.
    """

    def __init__(self, settings: ProgressiveSettings, latent: int):
        super().__init__(settings)
        channels = settings.channels
        self.start = EqualisedLinear(latent, channels[0] * BASE**2)
        self.mix = EqualisedConv(channels[0], channels[0])
        # Block k leads from level k to k + 1.
        self.blocks = nn.ModuleList(GeneratorBlock(a, b) for a, b in zip(channels, channels[1:]))
        self.to_image = nn.ModuleList(EqualisedConv(c, 1, kernel=1, gain=1) for c in channels)

    def forward(self, z: Tensor, batch: Batch) -> Tensor:
        whole, fade = self.reached()
        x = self.start(pixel_norm(z)).view(len(z), -1, BASE, BASE)
        x = pixel_norm(activate(self.mix(pixel_norm(activate(x)))))
        for block in self.blocks[:whole]:
            x = block(x)
        image = self.to_image[whole](x)
        if fade:
            image = torch.lerp(up(image), self.to_image[whole + 1](self.blocks[whole](x)), fade)
            whole += 1
        return up(image, self.size >> (whole + 2))  # level 0 has side 4 = 2²


class ProgressiveCritic(Growing):
    """Images (B, 1, size, size) → logits (B,), the generator's mirror image.

    Args:
        settings: those of the generator.
    """

    def __init__(self, settings: ProgressiveSettings):
        super().__init__(settings)
        channels = settings.channels
        self.from_image = nn.ModuleList(EqualisedConv(1, c, kernel=1) for c in channels)
        # Block k leads from level k + 1 to k.
        self.blocks = nn.ModuleList(CriticBlock(b, a) for a, b in zip(channels, channels[1:]))
        self.mix = EqualisedConv(channels[0] + 1, channels[0])
        self.dense = EqualisedLinear(channels[0] * BASE**2, channels[0])
        self.end = EqualisedLinear(channels[0], 1, gain=1)

    def forward(self, images: Tensor, batch: Batch) -> Tensor:
        """images (B, 1, H, W) → logits (B,). Raises ParameterError if the levels make another H."""
        refuse_levels(self.levels, images.shape[-1])
        whole, fade = self.reached()
        x = self._enter(images, whole)
        if fade:
            x = torch.lerp(x, self.blocks[whole](self._enter(images, whole + 1)), fade)
        for block in reversed(self.blocks[:whole]):
            x = block(x)
        x = activate(self.mix(minibatch_deviation(x)))
        return self.end(activate(self.dense(x.flatten(1))))[:, 0]

    def _enter(self, images: Tensor, level: int) -> Tensor:
        return activate(self.from_image[level](down(images, self.size >> (level + 2))))
