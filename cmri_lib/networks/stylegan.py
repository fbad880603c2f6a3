"""U5's two networks: a generator steered by styles at every resolution, and a residual critic.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020 (arXiv 1912.04958), sections and
equations cited below. Two regularisers are left out. Path-length regularisation costs a second-order pass through
the generator, and what it buys is a latent space that is easy to invert, hardly fidelity (table 1, C to D); style
mixing buys control of single resolutions. Neither is measured here, and the time they take is. Lazy R1 is part of the
objective.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.networks.conditioning.base import Batch
from cmri_lib.networks.progressive import (BASE, EqualisedConv, EqualisedLinear, activate, down, minibatch_deviation,
                                           pixel_norm, refuse_levels)


@dataclass(frozen=True)
class StyleGANSettings:
    """`channels` at 4×4, 8×8, … up to the image, of side 4 · 2^(levels − 1); `style` numbers in w, made from z by
    `mapping` layers that learn at `mapping_rate` of the others' rate."""

    channels: tuple[int, ...] = (64, 64, 64, 32, 16)
    style: int = 64
    mapping: int = 4
    mapping_rate: float = 0.01

    def __post_init__(self) -> None:
        if len(self.channels) < 2 or self.mapping < 1:
            raise ParameterError(f"channels {self.channels}, {self.mapping} mapping layers", field="channels, mapping",
                                 remedy="give at least two levels and one mapping layer")

    def refuse(self, size: int) -> None:
        """Raises ParameterError if the levels end in another size than size × size pixels."""
        refuse_levels(len(self.channels), size)


class Mapping(nn.Module):
    """z (B, latent) → w (B, style): z is put on a sphere, then bent by a slow perceptron."""

    def __init__(self, latent: int, settings: StyleGANSettings):
        super().__init__()
        sizes = [latent] + [settings.style] * settings.mapping
        self.layers = nn.ModuleList(EqualisedLinear(a, b, rate=settings.mapping_rate) for a, b in zip(sizes, sizes[1:]))

    def forward(self, z: Tensor) -> Tensor:
        w = pixel_norm(z)
        for layer in self.layers:
            w = activate(layer(w))
        return w


class ModulatedConv(nn.Module):
    """Convolution whose weights are scaled per input channel by the style (eq. 1) and, if `demodulate`, per output
    channel to unit norm (eq. 3). Scaling what goes in and what comes out is the same as scaling the weights of each
    sample, and faster than a convolution in as many groups as there are samples."""

    def __init__(self, inputs: int, outputs: int, style: int, kernel: int = 3, demodulate: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.scales = EqualisedLinear(style, inputs, gain=1, bias=1.0)  # s_i of eq. 1
        self.fan_in, self.padding, self.demodulate = inputs * kernel**2, kernel // 2, demodulate

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        s = self.scales(w)  # (B, inputs)
        weight = self.weight / math.sqrt(self.fan_in)
        x = F.conv2d(x * s[:, :, None, None].to(x), weight, padding=self.padding)
        if self.demodulate:
            norm = (s.square() @ weight.square().sum((2, 3)).T + 1e-8).rsqrt()  # (B, outputs)
            x = x * norm[:, :, None, None].to(x)
        return x


class StyledLayer(nn.Module):
    """Modulated convolution, ×2 if it is the first of its resolution, noise, bias, leaky ReLU (fig. 2d).

    Bilinear interpolation is the paper's blur of an upsampled image; here it follows the convolution, which is linear
    too and costs a quarter at the lower resolution.
    """

    def __init__(self, inputs: int, outputs: int, style: int, enlarge: bool):
        super().__init__()
        self.conv, self.enlarge = ModulatedConv(inputs, outputs, style), enlarge
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(1, outputs, 1, 1))

    def forward(self, x: Tensor, w: Tensor, streams: list[torch.Generator]) -> Tensor:
        x = self.conv(x, w)
        x = enlarged(x) if self.enlarge else x
        return activate(x + self.strength * pixel_noise(x, streams) + self.bias) * math.sqrt(2)


def enlarged(x: Tensor) -> Tensor:
    """Twice the side, bilinear: the [1, 3, 3, 1] filter of the paper."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def noise_streams(z: Tensor) -> list[torch.Generator]:
    """One source of random numbers per sample, seeded by its z, so that an image depends on its own z alone."""
    words = z.detach().cpu().float()[:, :2].contiguous().view(torch.int32).long() & 0xFFFFFFFF
    return [torch.Generator().manual_seed(a << 31 ^ b) for a, b in words.tolist()]


def pixel_noise(x: Tensor, streams: list[torch.Generator]) -> Tensor:
    """Standard normal (B, 1, H, W) for feature maps x: from the samples' own streams, or while learning, when there are
    none, from torch's global state."""
    if not streams:
        return torch.randn(len(x), 1, *x.shape[2:], device=x.device, dtype=x.dtype)
    return torch.stack([torch.randn(1, *x.shape[2:], generator=stream) for stream in streams]).to(x)


class StyleGenerator(nn.Module):
    """z (B, latent) → images (B, 1, size, size), the sum of what each resolution adds (skip generator, fig. 7b).

    Args:
        settings: sizes.
        latent: numbers in z.
    """

    def __init__(self, settings: StyleGANSettings, latent: int):
        super().__init__()
        channels, style = settings.channels, settings.style
        self.mapping = Mapping(latent, settings)
        self.constant = nn.Parameter(torch.randn(1, channels[0], BASE, BASE))
        self.start = StyledLayer(channels[0], channels[0], style, enlarge=False)
        self.layers = nn.ModuleList(
            nn.ModuleList([StyledLayer(a, b, style, enlarge=True), StyledLayer(b, b, style, enlarge=False)])
            for a, b in zip(channels, channels[1:]))
        self.to_image = nn.ModuleList(ModulatedConv(c, 1, style, kernel=1, demodulate=False) for c in channels)
        self.bias = nn.Parameter(torch.zeros(()))
        self.register_buffer("mean_style", torch.zeros(style))

    def forward(self, z: Tensor, batch: Batch, truncation: float = 1.0) -> Tensor:
        """`truncation` < 1 pulls styles towards their mean: more typical images, fewer kinds of them."""
        w = self.mapping(z)
        if self.training:
            self.mean_style.lerp_(w.detach().mean(0).to(self.mean_style), 0.01)
        elif truncation != 1:
            w = torch.lerp(self.mean_style.expand_as(w), w, truncation)
        streams = [] if self.training else noise_streams(z)
        x = self.start(self.constant.expand(len(z), -1, -1, -1), w, streams)
        image = self.to_image[0](x, w)
        for layers, to_image in zip(self.layers, self.to_image[1:]):
            for layer in layers:
                x = layer(x, w, streams)
            image = enlarged(image) + to_image(x, w)
        return image + self.bias


class StyleCritic(nn.Module):
    """Images (B, 1, size, size) → logits (B,): residual blocks that halve the side, then the batch's own deviation
    (sec. 4.1, fig. 7c).

    Args:
        settings: those of the generator.
    """

    def __init__(self, settings: StyleGANSettings):
        super().__init__()
        channels = settings.channels
        self.size = BASE * 2 ** (len(channels) - 1)
        self.enter = EqualisedConv(1, channels[-1], kernel=1)
        pairs = list(zip(channels, channels[1:]))[::-1]
        self.blocks = nn.ModuleList(ResidualBlock(b, a) for a, b in pairs)
        self.mix = EqualisedConv(channels[0] + 1, channels[0])
        self.dense = EqualisedLinear(channels[0] * BASE**2, channels[0])
        self.end = EqualisedLinear(channels[0], 1, gain=1)

    def forward(self, images: Tensor, batch: Batch) -> Tensor:
        """images (B, 1, H, W) → logits (B,). Raises ParameterError if the levels make another H."""
        refuse_levels(len(self.blocks) + 1, images.shape[-1])
        x = activate(self.enter(images))
        for block in self.blocks:
            x = block(x)
        x = activate(self.mix(minibatch_deviation(x)))
        return self.end(activate(self.dense(x.flatten(1))))[:, 0]


class ResidualBlock(nn.Module):
    """(B, inputs, H, W) → (B, outputs, H/2, W/2); the sum is scaled to keep its variance."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first, self.second = EqualisedConv(inputs, inputs), EqualisedConv(inputs, outputs)
        self.skip = EqualisedConv(inputs, outputs, kernel=1, gain=1)

    def forward(self, x: Tensor) -> Tensor:
        inside = activate(self.second(down(activate(self.first(x)))))
        return (inside + self.skip(down(x))) / math.sqrt(2)
