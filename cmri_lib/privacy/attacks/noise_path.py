"""Diffusion and flow matching as an attacker sees them: one path from image to noise, and a network that
tells both apart.

x_u = a(u) x_0 + b(u) ε, from the image at u = 0 to noise at u = 1. Whatever a network predicts (ε, v, x_0,
velocity), at a given x_u it amounts to an estimate of x_0 and one of ε; they never go through the sampler's
clipping. The path's probability-flow ODE is dx/du = a'(u) x̂_0 + b'(u) ε̂, since the velocity of a path is
the conditional mean of its derivative (Lipman et al. 2023, eq. 9; Song et al. 2021, eq. 13, in other
coordinates).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cmri_lib.cohort.slices import Slices
from cmri_lib.generators.base import Generator
from cmri_lib.generators.diffusion import Diffusion
from cmri_lib.generators.flow import FlowMatching
from cmri_lib.generators.latent import Latent
from cmri_lib.networks.conditioning.base import Batch
from cmri_lib.privacy.attack import batches_of

#: The time that stands for the image itself: neither a diffusion nor a flow learns anything at u = 0.
FIRST = 0.01


@dataclass(frozen=True)
class NoisePath:
    """`generator` as it was trained, `denoiser` the diffusion or flow in it: the same, or the prior of its
    latents."""

    generator: Generator
    denoiser: Diffusion | FlowMatching

    def batches(self, slices: Slices) -> Iterator[tuple[Tensor, Batch]]:
        """What the denoiser has learnt from, images or latents (B, ...), with the conditions of the same
        slices."""
        return ((part["image"], part) for part in batches_of(self.generator, slices))

    def levels(self, u: float) -> tuple[float, float]:
        """a(u) and b(u)."""
        if isinstance(self.denoiser, FlowMatching):
            return 1 - u, u
        alpha_bar = float(self.denoiser.alpha_bar[self._step(u)])
        return alpha_bar**0.5, (1 - alpha_bar) ** 0.5

    def slopes(self, u: float) -> tuple[float, float]:
        """a'(u) and b'(u); of a diffusion by differences between neighbouring levels."""
        if isinstance(self.denoiser, FlowMatching):
            return -1.0, 1.0
        last, n = self.denoiser.last, self._step(u)
        before, after = max(0, n - 1), min(last, n + 1)
        levels = self.denoiser.alpha_bar[[before, after]]
        width = (after - before) / last
        return tuple(float(level[1] - level[0]) / width for level in (levels.sqrt(), (1 - levels).sqrt()))

    def estimates(self, x: Tensor, u: float, batch: Batch) -> tuple[Tensor, Tensor]:
        """x̂_0 and ε̂ from x_u (B, ...)."""
        if isinstance(self.denoiser, FlowMatching):
            velocity = self.denoiser.network(x, torch.full((len(x),), 1 - u, dtype=x.dtype, device=x.device),
                                             batch)
            return x + u * velocity, x - (1 - u) * velocity
        n, (alpha, sigma) = self._step(u), self.levels(u)
        time = torch.full((len(x),), n / self.denoiser.last, dtype=x.dtype, device=x.device)
        answer = self.denoiser.network(x, time, batch)
        if self.denoiser.prediction == "epsilon":
            return (x - sigma * answer) / alpha, answer
        if self.denoiser.prediction == "v":
            return alpha * x - sigma * answer, sigma * x + alpha * answer
        return answer, (x - alpha * answer) / sigma

    def move(self, x: Tensor, u: float, w: float, batch: Batch) -> Tensor:
        """x_w from x_u in one deterministic step, to either side: DDIM (Song, Meng & Ermon 2021, eq. 12 with
        σ = 0), which for a flow is Euler's."""
        x0, noise = self.estimates(x, u, batch)
        a, b = self.levels(w)
        return a * x0 + b * noise

    def images(self, x0: Tensor) -> Tensor:
        """(B, 1, H, W) from what the denoiser has learnt from."""
        return self.generator.autoencoder.decode(x0) if isinstance(self.generator, Latent) else x0

    def _step(self, u: float) -> int:
        return max(1, round(u * self.denoiser.last))


def noise_path(generator: Generator | None) -> NoisePath | None:
    """The path of a diffusion, a flow, or either of latents; None for another generator."""
    denoiser = generator.prior if isinstance(generator, Latent) else generator
    return NoisePath(generator, denoiser) if isinstance(denoiser, Diffusion | FlowMatching) else None
