"""Attacks by likelihood: a generator deems more likely what it has learnt from.

Of a diffusion or a flow it is the density that its deterministic sampler implies, of a VAE the evidence
lower bound, of a masked transformer how well it guesses hidden tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from cmri_lib.cohort.slices import Slices
from cmri_lib.generators.masked import MaskGIT, lowest
from cmri_lib.generators.vae import VAE, divergence_from_prior
from cmri_lib.networks.conditioning.base import Batch
from cmri_lib.privacy.attack import Attack, Target, batches_of
from cmri_lib.privacy.attacks.noise_path import FIRST, NoisePath, noise_path

#: Where the ODE ends: there a diffusion's image is below 1 % of its noise, see `diffusion.LEAST_LOG_RATIO`.
LAST = 0.996


@dataclass(frozen=True)
class ODELikelihood(Attack):
    """Log-density by the instantaneous change of variables along the probability-flow ODE, the trace by
    Hutchinson's estimate (Song et al., "Score-Based Generative Modeling through Stochastic Differential
    Equations", ICLR 2021, arXiv 2011.13456, eq. 39 and 40; Lipman et al. 2023, app. C). Of latents it is the
    density of latents.

    `steps` of the midpoint method (two evaluations, with gradients, each) and `probes` of ±1, the same for
    every slice.
    """

    steps: int = 8
    probes: int = 1
    seed: int = 0

    name = "ode"

    def suits(self, target: Target) -> bool:
        return noise_path(target.generator) is not None

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        path = noise_path(target.generator)
        found = torch.cat([self.log_density(path, x0, batch) for x0, batch in path.batches(slices)])
        return pd.DataFrame({"log-density": found.cpu().numpy()})

    def log_density(self, path: NoisePath, x0: Tensor, batch: Batch) -> Tensor:
        """(B,) float64 log-density in nats of a(u) x_0 at the first time u, plus D log a(u)."""
        size = x0[0].numel()
        signs = torch.randint(0, 2, (self.probes, 1, *x0.shape[1:]),
                              generator=torch.Generator().manual_seed(self.seed))
        probes = (2 * signs - 1).to(x0)
        a = path.levels(FIRST)[0]
        x, change = a * x0, torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
        width = (LAST - FIRST) / self.steps
        for k in range(self.steps):
            u = FIRST + k * width
            slope, _ = self._slope(path, x, u, batch, probes[:0])
            slope, trace = self._slope(path, x + width / 2 * slope, u + width / 2, batch, probes)
            x, change = x + width * slope, change + width * trace
        spread = path.levels(LAST)[1]
        end = -0.5 * (x / spread).double().square().flatten(1).sum(1) - size / 2 * math.log(2 * math.pi * spread**2)
        return (end + change + size * math.log(a)).detach()

    @staticmethod
    def _slope(path: NoisePath, x: Tensor, u: float, batch: Batch, probes: Tensor) -> tuple[Tensor, Tensor]:
        """dx/du and its divergence, the mean over probes of pᵀ J p; the latter 0 without probes."""
        da, db = path.slopes(u)
        with torch.set_grad_enabled(bool(len(probes))):
            x = x.detach().requires_grad_(bool(len(probes)))
            x0, noise = path.estimates(x, u, batch)
            slope = da * x0 + db * noise
            trace = torch.zeros(len(x), dtype=torch.float64, device=x.device)
            for probe in probes:
                along = torch.autograd.grad((slope * probe).sum(), x, retain_graph=True)[0]
                trace = trace + (along * probe).double().flatten(1).sum(1) / len(probes)
        return slope.detach(), trace


@dataclass(frozen=True)
class ELBO(Attack):
    """Of a VAE: the two terms of the evidence lower bound, and the bound (Kingma & Welling 2014, eq. 10),
    mean over `draws` codes. The decoder's σ² is at its optimum for the one image, its mean squared error
    (Rybkin et al. 2021, eq. 5 and 6)."""

    draws: int = 8
    seed: int = 0

    name = "elbo"

    def suits(self, target: Target) -> bool:
        return isinstance(target.generator, VAE)

    @torch.no_grad()
    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        vae, errors, divergences = target.generator, [], []
        codes = torch.randn(self.draws, 1, vae.latent,
                            generator=torch.Generator().manual_seed(self.seed)).to(vae.device)
        for part in batches_of(vae, slices):
            mean, log_variance = vae.encoder(part["image"], part)
            drawn = [vae.decoder(mean + (log_variance / 2).exp() * z, part) for z in codes]
            errors.append(torch.stack([(x - part["image"]).double().square().flatten(1).mean(1)
                                       for x in drawn]).mean(0))
            divergences.append(divergence_from_prior(mean, log_variance).double())
        error, divergence = torch.cat(errors).cpu(), torch.cat(divergences).cpu()
        variance, size = error.clamp_min(vae.least_variance), slices.images[0].size
        bound = -size / 2 * (math.log(2 * math.pi) + variance.log() + error / variance) - divergence
        return pd.DataFrame({"reconstruction": -error.numpy(), "divergence": -divergence.numpy(),
                             "bound": bound.numpy()})


@dataclass(frozen=True)
class TokenLikelihood(Attack):
    """Of a masked transformer: the mean log-probability of tokens that are hidden, given the others, at
    several shares of hidden ones (Chang et al. 2022, eq. 1, on one image); `draws` of places, the same for
    every slice."""

    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    draws: int = 8
    seed: int = 0

    name = "tokens"

    def suits(self, target: Target) -> bool:
        return isinstance(target.generator, MaskGIT)

    @torch.no_grad()
    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        model, found = target.generator, {share: [] for share in self.shares}
        for part in batches_of(model, slices):
            tokens = part["image"]
            places = tokens[0].numel()
            order = torch.rand(self.draws, places, generator=torch.Generator().manual_seed(self.seed))
            for share in self.shares:
                total = torch.zeros(len(tokens), dtype=torch.float64)
                for hidden in lowest(order, torch.full((self.draws,), max(1, round(share * places)))):
                    hidden = hidden.view(1, *tokens.shape[1:]).expand_as(tokens).to(tokens.device)
                    logits = model.network(tokens.masked_fill(hidden, model.hidden), part).double()
                    nats = F.cross_entropy(logits.flatten(0, -2), tokens.flatten(),
                                           reduction="none").view_as(tokens)
                    mean = -(nats * hidden).flatten(1).sum(1) / hidden.flatten(1).sum(1)
                    total += mean.cpu() / self.draws
                found[share].append(total)
        return pd.DataFrame({f"{share:.0%} hidden": torch.cat(parts).numpy() for share, parts in found.items()})
