"""Attacks on GANs and VAEs: what the critic says of an image, and how closely the generator can be made to
show it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from cmri_lib.cohort.slices import Slices
from cmri_lib.generators.gan import GAN
from cmri_lib.generators.latent_gan import LatentGAN
from cmri_lib.generators.vae import VAE
from cmri_lib.networks.conditioning.base import Batch
from cmri_lib.privacy.attack import Attack, Target, batches_of


@dataclass(frozen=True)
class CriticOutput(Attack):
    """The critic's logit, the mean over patches: an overfitted critic deems real what it has been shown
    (Hayes, Melis, Danezis & De Cristofaro, "LOGAN: Membership Inference Attacks Against Generative Models",
    PoPETs 2019, arXiv 1705.07663, the white-box attack)."""

    name = "critic"

    def suits(self, target: Target) -> bool:
        return isinstance(target.generator, GAN | LatentGAN)

    @torch.no_grad()
    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        gan, found = target.generator, []
        critic = gan.prior.critic if isinstance(gan, LatentGAN) else gan.critic
        for part in batches_of(gan, slices):
            logits = critic(part["image"], part).double()
            found.append(logits.reshape(len(logits), -1).mean(1).cpu())
        return pd.DataFrame({"logit": torch.cat(found).numpy()})


@dataclass(frozen=True)
class LatentInversion(Attack):
    """Minus the least mean squared error of any image that the generator makes, found by `steps` of Adam on
    its noise from `starts` (Chen, Yu, Zhang & Fritz, "GAN-Leaks: A Taxonomy of Membership Inference Attacks
    against Generative Models", CCS 2020, arXiv 1909.03935, the white-box attack). A VAE starts from its
    encoder's code."""

    steps: int = 60
    starts: int = 1
    rate: float = 0.05
    seed: int = 0

    name = "inversion"

    def suits(self, target: Target) -> bool:
        return isinstance(target.generator, GAN | VAE)

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        model = target.generator
        found = torch.cat([self._least_error(model, part, slices.size) for part in batches_of(model, slices)])
        return pd.DataFrame({"error": -found.cpu().numpy()})

    def _least_error(self, model: GAN | VAE, batch: Batch, size: int) -> Tensor:
        make = model.decoder if isinstance(model, VAE) else model.generator
        shape, best = model.noise_shape(size), None
        for start in range(self.starts):
            # One start for all slices, so that they differ by themselves only.
            noise = torch.randn(shape, generator=torch.Generator().manual_seed(self.seed + start)).to(batch["image"])
            z = noise.expand(len(batch["image"]), *shape).clone()
            if isinstance(model, VAE) and not start:
                with torch.no_grad():
                    z = model.encoder(batch["image"], batch)[0].clone()
            z.requires_grad_()
            adam = torch.optim.Adam([z], lr=self.rate)
            for _ in range(self.steps):
                error = self._errors(make(z, batch), batch["image"])
                best = error.detach() if best is None else torch.minimum(best, error.detach())
                z.grad, = torch.autograd.grad(error.sum(), z)  # of the noise alone, the weights keep none
                adam.step()
        return best

    @staticmethod
    def _errors(made: Tensor, images: Tensor) -> Tensor:
        return (made - images).double().square().flatten(1).mean(1)
