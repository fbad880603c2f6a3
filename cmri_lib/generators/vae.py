"""Variational autoencoder: an encoder that names a Gaussian of codes for each image, and a decoder back.

Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014 (arXiv 1312.6114); Rybkin, Daniilidis & Levine, "Simple and
Effective VAE Training with Calibrated Decoders", ICML 2021 (arXiv 2006.13202); Ghosh, Sajjadi, Vergari, Black & Schölkopf,
"From Variational to Deterministic Autoencoders", ICLR 2020 (arXiv 1903.12436), for the density of codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.generators.base import Generator
from cmri_lib.networks.conditioning.base import Batch, Conditioning


#: Weight of a batch in the running moments of codes: they span some fifty batches, and more after the loop's own average.
MOMENTUM = 0.02


@dataclass(frozen=True)
class VAEObjective:
    """`least_sigma`: floor of the decoder's standard deviation, in grey values of [−1, 1]. A density has no bound as σ → 0;
    half a grey level of 8 bits, 1/255, is what an image can tell."""

    least_sigma: float = 1 / 255

    def __post_init__(self) -> None:
        if not self.least_sigma > 0:
            raise ParameterError(f"{self.least_sigma}", field="least_sigma", remedy="give a positive number")


class VAE(Generator):
    """U1: prior z ~ N(0, I), decoder x | z ~ N(x̂(z), σ² I), encoder q(z|x) = N(μ(x), diag exp ℓ(x)).

    The one number that balances sharp reconstructions against codes that look like the prior, σ, is neither set by hand
    nor hidden in a weight β: it is the maximum-likelihood value of each batch.

    With a thousand images the codes come to match N(0, I) slowly: against the error of thousands of pixels their divergence
    weighs little. So samples are drawn from the Gaussian of codes that the encoder really makes, N(m, S) with the moments
    of E_x q(z|x) (ex-post density estimation, Ghosh et al. 2020, section 4). Of all Gaussian priors it is the one that
    maximises the bound, and no other model: an affine layer before the decoder would do the same.

    Args:
        encoder: (images, batch) → (μ, ℓ), each (B, latent).
        decoder: (code, batch) → mean images, of the images' shape.
        latent: length of the code.
        conditioning: the one that both networks use.
        objective: the decoder's floor.
    """

    recordable = True

    def __init__(self, encoder: nn.Module, decoder: nn.Module, latent: int, conditioning: Conditioning,
                 objective: VAEObjective = VAEObjective()):
        super().__init__()
        self.encoder, self.decoder, self.latent, self.conditioning = encoder, decoder, latent, conditioning
        self.least_variance = objective.least_sigma**2
        self.register_buffer("code_mean", torch.zeros(latent))
        self.register_buffer("code_covariance", torch.eye(latent))

    @property
    def nfe(self) -> int:
        return 1

    def noise_shape(self, size: int) -> tuple[int, ...]:
        return (self.latent,)

    def loss(self, batch: Batch, group: str) -> Tensor:
        """The negative evidence lower bound in nats per pixel, Kingma & Welling eq. 10 with one code drawn per image. Per
        pixel, so that the size of gradients does not depend on the size of images; the balance of the terms is kept."""
        log_likelihood, divergence = self.elbo_terms(batch)
        return (divergence.mean() - log_likelihood) / batch["image"][0].numel()

    def elbo_terms(self, batch: Batch, target: Batch | None = None) -> tuple[Tensor, Tensor]:
        """log p(x|z) in nats per image, mean over the batch, and KL(q(z|x) ‖ p(z)) in nats, (B,); their difference is the
        bound on log p(x). With a `target`, x is the image of `target` and z is read from that of `batch`.

        With σ² at its optimum, the batch's mean squared error, the Gaussian log-likelihood of D pixels becomes
        −D/2 (ln 2πσ² + 1) (Rybkin et al. eq. 5 and 6). Its gradient is that of the squared error divided by 2σ².
        """
        target = batch if target is None else target
        mean, log_variance = self.encoder(batch["image"], batch)
        if self.training:
            self._update_code_moments(mean.float(), log_variance.float())
        code = mean + (log_variance / 2).exp() * torch.randn_like(mean)  # reparameterised, eq. 4
        error = (self.decoder(code, target) - target["image"]).square().mean()
        # Above the floor this is the formula above; below it σ stays put and the error still counts.
        variance = error.detach().clamp_min(self.least_variance)
        dimension = target["image"][0].numel()
        log_likelihood = -dimension / 2 * (math.log(2 * math.pi) + variance.log() + error / variance)
        return log_likelihood, divergence_from_prior(mean, log_variance)

    @torch.no_grad()
    def _update_code_moments(self, mean: Tensor, log_variance: Tensor) -> None:
        """Update the running moments of E_x q(z|x): the spread of means plus the mean of variances."""
        centred = mean - self.code_mean
        covariance = centred.T @ centred / len(mean) + log_variance.exp().mean(0).diag()
        self.code_mean.lerp_(mean.mean(0), MOMENTUM)
        self.code_covariance.lerp_(covariance, MOMENTUM)

    @torch.no_grad()
    def sample(self, noise: Tensor, batch: Batch, *, prior: Literal["fitted", "standard"] = "fitted") -> Tensor:
        """The decoder's mean at codes drawn from N(m, S), or from N(0, I) where `prior` is "standard". The decoder's own
        noise, σ per pixel, is left out, for it is white and no part of the heart."""
        if prior == "fitted":
            noise = self.code_mean + noise @ covariance_root(self.code_covariance).T
        return self.decoder(noise, batch)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, batch: Batch) -> Tensor:
        """Images (B, 1, H, W) through the mean of their codes and back: the best that the code can hold."""
        return self.decoder(self.encoder(images, batch)[0], batch)


def covariance_root(covariance: Tensor) -> Tensor:
    """L with L Lᵀ = `covariance` (K, K). Weights are kept in half precision: rounded, a covariance whose
    axes differ a thousandfold in length may have none. Then L is that of the nearest one whose shortest axis
    is a thousandth of the longest."""
    root, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        return root
    variances, axes = torch.linalg.eigh(covariance.double())
    variances = variances.clamp(min=float(variances[-1]) * 1e-6)
    return torch.linalg.cholesky(axes * variances @ axes.T).to(covariance.dtype)


def divergence_from_prior(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(μ, diag exp ℓ) ‖ N(0, I)) in nats, (B,): ½ Σ (μ² + e^ℓ − 1 − ℓ), Kingma & Welling, appendix B."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
