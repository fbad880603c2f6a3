"""Two-stage generators: an autoencoder makes images small, a prior learns to draw what the autoencoder makes of them.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022 (arXiv 2112.10752).
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from cmri_lib.generators.base import Generator
from cmri_lib.generators.prior import PriorGenerator
from cmri_lib.networks.autoencoder import Autoencoder
from cmri_lib.networks.conditioning.base import Batch
from cmri_lib.training.loop import Trainable


class TwoStage(Generator):
    """A generator that never sees pixels: its data are images as a frozen autoencoder compresses them.

    The autoencoder must be trained before `prepare`, which freezes it.

    Args:
        autoencoder: the first stage.
    """

    def __init__(self, autoencoder: Autoencoder):
        super().__init__()
        self.autoencoder = autoencoder

    @property
    def first_stage(self) -> Trainable:
        return self.autoencoder

    @abstractmethod
    def compress(self, images: Tensor) -> Tensor:
        """Images (B, 1, H, W) → what the prior learns to draw."""

    @torch.no_grad()
    def prepare(self, data: Batch, batch: int = 32) -> Batch:
        """`data` with its images compressed, `batch` at a time; all on the CPU."""
        self.autoencoder.requires_grad_(False).eval()
        device = next(self.autoencoder.parameters()).device
        small = [self.compress(part.to(device)).cpu() for part in data["image"].split(batch)]
        return {**data, "image": torch.cat(small)}

    def train(self, mode: bool = True) -> TwoStage:
        """As `nn.Module.train`, except that the autoencoder stays in eval mode."""
        super().train(mode)
        self.autoencoder.eval()
        return self


class Latent(PriorGenerator, TwoStage):
    """A generator of latents, diffusion or flow, followed by the decoder.

    Args:
        autoencoder: the first stage, with continuous latents of unit variance.
        prior: made for the latents' channels; it must not clip them.
    """

    def __init__(self, autoencoder: Autoencoder, prior: Generator):
        super().__init__(autoencoder)
        self.prior, self.conditioning = prior, prior.conditioning

    def compress(self, images: Tensor) -> Tensor:
        return self.autoencoder.encode(images)

    def noise_shape(self, size: int) -> tuple[int, ...]:
        return self.autoencoder.latent_shape(size)

    @torch.no_grad()
    def sample(self, noise: Tensor, batch: Batch, **choices: object) -> Tensor:
        """Images (B, 1, H, W) from noise (B, C, h, w); `choices` are for the prior's sampler."""
        return self.autoencoder.decode(self.prior.sample(noise, batch, **choices))
