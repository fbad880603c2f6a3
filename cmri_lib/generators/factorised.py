"""Factorised generation: a mask says what is where, a code says how the scanner showed it, and a diffusion draws both.

The idea of the FFD-VAE and DiffuSeg: anatomy and domain apart, so that a heart can be drawn in the style of another
scan. The code is that of a conditional VAE (Sohn, Lee & Yan, "Learning Structured Output Representation using Deep
Conditional Generative Models", NeurIPS 2015): encoder and decoder are given the mask, so that a code, which costs nats,
need not hold it. Nothing forbids that it does: how far images drawn with another scan's code keep to their mask has to
be measured. A diffusion conditioned on an image's code is Preechakul et al., "Diffusion Autoencoders", CVPR 2022 (arXiv
2111.15640).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cmri_lib.generators.base import noise_stream, parts_on
from cmri_lib.generators.diffusion import Diffusion, DiffusionSettings
from cmri_lib.generators.vae import VAE, covariance_root
from cmri_lib.networks.conditioning.base import Batch, Conditioning
from cmri_lib.training.loop import Trainable

#: Batch entries: mean and standard deviation of an image's code, each (B, latent), on the scale of `standardise`.
CODE, SPREAD = "code", "code_spread"


class Factorised(Diffusion):
    """C14: a diffusion of images conditioned on a mask and a code of the domain.

    It is a diffusion, not one inside something else, so its network bears the name that it has in U6, where it starts.

    Args:
        domain: the first stage, a VAE conditioned on the mask; it must be trained before `prepare`, which freezes it.
        network: (x_n, n/T, batch) → as `Diffusion`; conditioned on
            ``CompositeConditioning(mask, VectorCondition(CODE, domain.latent))`` or the like.
        conditioning: what has to be given, all that the network and the first stage read except the code.
        settings: objective and sampler.
    """

    def __init__(self, domain: VAE, network: nn.Module, conditioning: Conditioning,
                 settings: DiffusionSettings = DiffusionSettings()):
        super().__init__(network, conditioning, settings)
        self.domain = domain

    @property
    def first_stage(self) -> Trainable:
        return self.domain

    @torch.no_grad()
    def prepare(self, data: Batch, batch: int = 32) -> Batch:
        """`data` with `CODE` and `SPREAD` of its images, encoded `batch` at a time; on the CPU."""
        self.domain.requires_grad_(False).eval()
        device, codes, spreads = next(self.domain.parameters()).device, [], []
        for part in parts_on(device, data, batch):
            mean, log_variance = self.domain.encoder(part["image"], part)
            codes.append(self.standardise(mean).cpu())
            spreads.append(((log_variance / 2).exp() / self._scale()).cpu())
        return {**data, CODE: torch.cat(codes), SPREAD: torch.cat(spreads)}

    def train(self, mode: bool = True) -> Factorised:
        """As `nn.Module.train`, except that the first stage stays in eval mode."""
        super().train(mode)
        self.domain.eval()
        return self

    def loss(self, batch: Batch, group: str) -> Tensor:
        """The diffusion's, with a code drawn anew from q(z|x) each time. Means alone would not do: sampling draws from
        the Gaussian of E_x q(z|x), and where the posterior is as wide as the prior, means keep to its very middle."""
        code = batch[CODE] + batch[SPREAD] * torch.randn_like(batch[CODE])
        return super().loss({**batch, CODE: code}, group)

    @torch.no_grad()
    def sample(self, noise: Tensor, batch: Batch, **choices: object) -> Tensor:
        """Images (B, 1, H, W) with the masks and codes of `batch`; codes that it lacks are drawn. `choices` are those
        of `Diffusion.sample`."""
        return super().sample(noise, batch if CODE in batch else {**batch, CODE: self.draw_codes(noise)}, **choices)

    def draw_codes(self, noise: Tensor) -> Tensor:
        """Codes (B, latent) from the VAE's Gaussian N(m, S), standardised, one for each sample of `noise` (B, 1, H, W),
        on whose own noise alone it depends."""
        # Of −noise, for the streams of the noise itself are the ancestral sampler's, which must be independent.
        normal = next(noise_stream(-noise)).flatten(1)[:, :self.domain.latent]
        return normal @ covariance_root(self.domain.code_covariance).T / self._scale()

    def standardise(self, code: Tensor) -> Tensor:
        """(z − m) / √diag S, with the moments of the VAE's codes: what an untrained layer is made for."""
        return (code - self.domain.code_mean) / self._scale()

    def _scale(self) -> Tensor:
        return self.domain.code_covariance.diagonal().sqrt()
