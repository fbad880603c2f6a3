"""First stages: autoencoders whose latents the latent systems learn to draw instead of pixels.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022 (arXiv 2112.10752), in both of
its kinds: a slight pull of the latents towards a normal distribution (KL), or a codebook (VQ). Two things are given up
for sharpness at a small budget: nothing works at full resolution (pixels enter and leave in blocks of 2 × 2), and
features of a pretrained network are no part of the loss, since the study measures with features.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.training.loop import Batch, Trainable

Weight = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class AutoencoderSettings:
    """Every width is a level and halves the image: two of them make 16 × 16 latents of a 64 × 64 image. `detail` weighs
    the error of the image's slopes beside that of its values."""

    widths: tuple[int, ...] = (32, 64)
    blocks: int = 1  # residual blocks per level
    channels: int = 4  # of the latents
    detail: Weight = 1.0

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1:
            raise ParameterError(f"{self.widths}", field="widths", remedy="give at least one, all positive")

    def side(self, size: int) -> int:
        """Of the latents of an image of size × size pixels."""
        return size // 2 ** len(self.widths)

    def refuse(self, size: int) -> None:
        """Raises ParameterError if images of size × size pixels cannot be halved as often as there are levels."""
        if size % 2 ** len(self.widths):
            raise ParameterError(f"{size} pixels cannot be halved {len(self.widths)} times", field="widths",
                                 remedy=f"use a multiple of {2 ** len(self.widths)}, or fewer levels")


@dataclass(frozen=True)
class KLSettings(AutoencoderSettings):
    """`kl` weighs the divergence from N(0, 1), in nats per latent value; tiny, so that images stay sharp."""

    kl: Weight = 1.0e-4


@dataclass(frozen=True)
class VQSettings(AutoencoderSettings):
    """`codes` in the codebook; `decay` of their moving averages; a code used less than `revive` times as often as the
    mean code is replaced."""

    codes: int = 256
    commitment: Weight = 0.25
    decay: float = 0.98
    revive: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codes < 2 or not 0 < self.decay < 1:
            raise ParameterError(f"{self.codes} codes, decay {self.decay}", field="codes",
                                 remedy="give at least two codes and a decay between 0 and 1")


class Residual(nn.Module):
    """Residual block without normalisation: (B, C_in, H, W) → (B, C_out, H/stride, W/stride).

    Normalisation costs time and takes away the brightness that the decoder needs to know; since the branch starts at
    zero, the network trains without it (Zhang et al., "Fixup Initialization", ICLR 2019).
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.branch = nn.Sequential(nn.SiLU(), nn.Conv2d(inputs, outputs, 3, stride, 1),
                                    nn.SiLU(), nn.Conv2d(outputs, outputs, 3, 1, 1))
        nn.init.zeros_(self.branch[-1].weight)
        unchanged = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if unchanged else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.branch(x)


def image_encoder(widths: tuple[int, ...], blocks: int, outputs: int) -> nn.Sequential:
    """(B, 1, H, W) → (B, outputs, H / 2^levels, W / 2^levels)."""
    layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(4, widths[0], 3, padding=1)]
    for level, width in enumerate(widths):
        if level:
            layers.append(Residual(widths[level - 1], width, stride=2))
        layers += [Residual(width, width) for _ in range(blocks)]
    return nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(widths[-1], outputs, 3, padding=1))


def image_decoder(widths: tuple[int, ...], blocks: int, inputs: int) -> nn.Sequential:
    """(B, inputs, h, w) → (B, 1, h · 2^levels, w · 2^levels); one block more per level than the encoder, for the
    decoder has to invent what the encoder may drop."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, widths[-1], 3, padding=1)]
    for level in reversed(range(len(widths))):
        layers += [Residual(widths[level], widths[level]) for _ in range(blocks + 1)]
        if level:
            # Pixel shuffle: unlike interpolation its gradient is deterministic on GPUs.
            layers += [nn.Conv2d(widths[level], 4 * widths[level - 1], 1), nn.PixelShuffle(2)]
    return nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(widths[0], 4, 3, padding=1), nn.PixelShuffle(2))


class Autoencoder(Trainable):
    """What all kinds share: an encoder, a decoder, and latents scaled to mean 0 and variance 1 per channel. Latents are
    (B, C, h, w), or (B, C, D, h, w) of stacks of D planes.

    The scale is measured while training (Rombach et al. 2022, section D.1: "latent scaling"), because a diffusion's
    noise schedule is made for unit variance; see `standardise`.
    """

    momentum = 0.02  # of the running mean and variance of the latents

    def __init__(self, settings: AutoencoderSettings, encoder: nn.Sequential, decoder: nn.Sequential):
        super().__init__()
        self.channels, self.levels, self.detail = settings.channels, len(settings.widths), settings.detail
        self.encoder, self.decoder = encoder, decoder
        self.register_buffer("mean", torch.zeros(settings.channels))
        self.register_buffer("variance", torch.ones(settings.channels))

    def latent_shape(self, size: int) -> tuple[int, ...]:
        """(C, h, w) of the latents of an image of `size` × `size`. Raises ParameterError if it cannot be halved so often."""
        side, rest = divmod(size, 2**self.levels)
        if rest:
            raise ParameterError(f"{size} pixels cannot be halved {self.levels} times", field="size",
                                 remedy=f"use a multiple of {2**self.levels}")
        return self.channels, side, side

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 1, H, W) → latents (B, C, h, w), each channel of about mean 0 and variance 1."""
        return self.standardise(self.raw_latents(images))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w), scaled as `encode` gives them → images (B, 1, H, W) of about [−1, 1]."""
        return self.decoder(self.restore(latents))

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images through the bottleneck and back."""
        return self.decode(self.encode(images))

    @abstractmethod
    def raw_latents(self, images: Tensor) -> Tensor:
        """Latents on the scale that encoder and decoder have found for themselves."""

    def standardise(self, raw: Tensor) -> Tensor:
        """(raw − mean) / standard deviation, channel by channel."""
        return (raw - _along(self.mean, raw)) / _along(self.variance, raw).sqrt()

    def restore(self, latents: Tensor) -> Tensor:
        """The inverse of `standardise`."""
        return latents * _along(self.variance, latents).sqrt() + _along(self.mean, latents)

    @torch.no_grad()
    def measure_scale(self, raw: Tensor) -> None:
        """Move the running mean and variance towards those of `raw` (B, C, …)."""
        variance, mean = torch.var_mean(raw.float(), dim=(0, *range(2, raw.dim())))
        self.mean.lerp_(mean, self.momentum)
        self.variance.lerp_(variance, self.momentum)

    def image_loss(self, images: Tensor, target: Tensor) -> Tensor:
        """Mean absolute error of the values and, times `detail`, of the slopes along both axes: an edge in the wrong
        place costs little in values and much in slopes."""
        error = images - target
        slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        return error.abs().mean() + self.detail * slopes


class GaussianAutoencoder(Autoencoder):
    """Latents are normal with a mean and a variance of the encoder's choice, slightly pulled towards N(0, 1)."""

    recordable = True

    def __init__(self, settings: KLSettings, encoder: nn.Sequential, decoder: nn.Sequential):
        super().__init__(settings, encoder, decoder)
        self.kl = settings.kl

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each of the latents' shape, of their distribution given `images`."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 10)

    def raw_latents(self, images: Tensor) -> Tensor:
        return self.posterior(images)[0]

    def loss(self, batch: Batch, group: str) -> Tensor:
        """Reconstruction from a sample of the posterior, + kl · divergence (Kingma & Welling 2014, appendix B)."""
        mean, log_variance = self.posterior(batch["image"])
        if self.training:
            self.measure_scale(mean)
        sample = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return self.image_loss(self.decoder(sample), batch["image"]) + self.kl * divergence


class KLAutoencoder(GaussianAutoencoder):
    """The Gaussian autoencoder of images (B, 1, H, W): latents (B, C, h, w)."""

    def __init__(self, settings: KLSettings = KLSettings()):
        sizes = settings.widths, settings.blocks
        super().__init__(settings, image_encoder(*sizes, 2 * settings.channels), image_decoder(*sizes, settings.channels))


class VQAutoencoder(Autoencoder):
    """Every latent vector is replaced by the nearest of `codes` vectors (van den Oord et al. 2017, arXiv 1711.00937).

    `encode` gives the vectors before this replacement and `decode` replaces them, as latent diffusion does it: what a
    prior draws need not lie on a code. A masked transformer uses `tokens` and `decode_tokens`.
    """

    def __init__(self, settings: VQSettings = VQSettings()):
        sizes = settings.widths, settings.blocks, settings.channels
        super().__init__(settings, image_encoder(*sizes), image_decoder(*sizes))
        self.commitment = settings.commitment
        self.quantiser = Codebook(settings.codes, settings.channels, settings.decay, settings.revive)

    @property
    def codes(self) -> int:
        """Number of different tokens."""
        return len(self.quantiser.counts)

    def raw_latents(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def decode(self, latents: Tensor) -> Tensor:
        return self.decode_tokens(self.quantiser.nearest(self.restore(latents)))

    def tokens(self, images: Tensor) -> Tensor:
        """Images (B, 1, H, W) → tokens (B, h, w), long, in [0, codes)."""
        return self.quantiser.nearest(self.raw_latents(images))

    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """Tokens (B, h, w) → images (B, 1, H, W)."""
        return self.decoder(self.quantiser.vectors(tokens))

    def loss(self, batch: Batch, group: str) -> Tensor:
        """Reconstruction + commitment, eq. 3 of van den Oord et al. 2017, its codebook term by moving averages.
        Gradients pass the replacement as if it were not there."""
        raw = self.raw_latents(batch["image"])
        if self.training:
            self.measure_scale(raw)
            self.quantiser.learn(raw.detach())
        quantised = self.quantiser.vectors(self.quantiser.nearest(raw)).to(raw.dtype)
        commitment = F.mse_loss(raw, quantised)
        through = raw + (quantised - raw).detach()
        return self.image_loss(self.decoder(through), batch["image"]) + self.commitment * commitment


class Codebook(nn.Module):
    """K vectors of C channels, each the moving average of the latents that it is nearest to (van den Oord et al. 2017,
    eq. 6–8), so that it needs no gradient and no learning rate.

    Two buffers hold all: `counts` (K,) N and `sums` (K, C) m; the vectors are m / N. Codes that hardly any latent
    chooses are moved onto latents of the batch, else most of the codebook would never be used. All are moved at the
    very first batch, from which the codebook thus takes its start.
    """

    def __init__(self, codes: int, channels: int, decay: float, revive: float):
        super().__init__()
        self.decay, self.revive = decay, revive
        self.register_buffer("counts", torch.full((codes,), 1.0e-6))
        self.register_buffer("sums", 1.0e-6 * torch.randn(codes, channels))

    @property
    def book(self) -> Tensor:
        """(K, C), the vectors."""
        return self.sums / self.counts[:, None]

    def vectors(self, tokens: Tensor) -> Tensor:
        """Tokens (B, h, w) → their vectors (B, C, h, w)."""
        return F.embedding(tokens, self.book).movedim(-1, 1)

    @torch.no_grad()
    def nearest(self, raw: Tensor) -> Tensor:
        """Latents (B, C, h, w) → index (B, h, w) of the nearest vector."""
        rows, book = raw.movedim(1, -1).float(), self.book
        with torch.autocast(rows.device.type, enabled=False):  # eight bits do not tell near codes apart
            # ‖z − e‖² = ‖z‖² − 2 z·e + ‖e‖², of which ‖z‖² is the same for all codes.
            return (book.square().sum(1) - 2 * rows @ book.T).argmin(-1)

    @torch.no_grad()
    def learn(self, raw: Tensor) -> None:
        """Move the averages towards latents `raw` (B, C, h, w): N ← γN + (1 − γ)n, m ← γm + (1 − γ)Σz."""
        self._move_idle(raw)
        chosen = F.one_hot(self.nearest(raw).flatten(), len(self.counts)).float()  # (B·h·w, K)
        with torch.autocast(raw.device.type, enabled=False):
            sums = chosen.T @ raw.movedim(1, -1).flatten(0, 2).float()  # unlike scattering, deterministic on GPUs
        self.counts.lerp_(chosen.sum(0), 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)

    def _move_idle(self, raw: Tensor) -> None:
        """Put each code that is nearly never chosen onto a random latent of the batch."""
        rows = raw.movedim(1, -1).flatten(0, 2).float()
        usual = len(rows) / len(self.counts)
        idle = self.counts < self.revive * usual
        picked = rows[torch.randint(len(rows), (len(self.counts),), device=rows.device)]
        self.counts.copy_(torch.where(idle, usual, self.counts))
        self.sums.copy_(torch.where(idle[:, None], usual * picked, self.sums))


def perplexity(tokens: Tensor, codes: int) -> float:
    """exp of the entropy of how often each code occurs: how many of `codes` are effectively in use."""
    share = torch.bincount(tokens.flatten(), minlength=codes).double() / tokens.numel()
    return math.exp(-torch.special.xlogy(share, share).sum().item())


def _along(values: Tensor, latents: Tensor) -> Tensor:
    """(C,) → (C, 1, 1, …), to act on the channels of latents (B, C, …)."""
    return values.view(-1, *[1] * (latents.dim() - 2))
