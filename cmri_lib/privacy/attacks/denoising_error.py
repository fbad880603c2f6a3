"""Attacks on diffusion and flow matching, in pixels or latents: a network errs less on what it has learnt
from.

All look at the estimates x̂_0 and ε̂ along the path of `noise_path`. Every setting (a time, a norm, a band)
is a column; which is used is chosen on other patients. All slices meet the same draws of noise, so that they
differ by themselves only.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from cmri_lib.cohort.slices import Slices
from cmri_lib.networks.conditioning.base import Batch
from cmri_lib.privacy.attack import Attack, Target
from cmri_lib.privacy.attacks.noise_path import FIRST, NoisePath, noise_path


@dataclass(frozen=True)
class OnPath(Attack):
    """An attack on a denoiser. `times` u lie between the image (0) and noise (1); `draws` of noise are
    averaged."""

    times: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5, 0.7)
    draws: int = 8
    seed: int = 0

    def suits(self, target: Target) -> bool:
        return noise_path(target.generator) is not None

    @torch.no_grad()
    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        path = noise_path(target.generator)
        parts = [self.errors(path, x0, batch) for x0, batch in path.batches(slices)]
        return pd.DataFrame({name: -torch.cat([part[name] for part in parts]).double().cpu().numpy()
                             for name in parts[0]})

    @abstractmethod
    def errors(self, path: NoisePath, x0: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Setting → (B,) error, lower for members."""

    def noises(self, like: Tensor) -> Tensor:
        """(draws, 1, ...) the same for every slice."""
        shape = self.draws, 1, *like.shape[1:]
        return torch.randn(shape, generator=torch.Generator().manual_seed(self.seed)).to(like)


class DenoisingLoss(OnPath):
    """‖ε̂ − ε‖² / D at each time, mean over draws, and their mean over times: the training loss on this one
    image (Matsumoto, Miura & Yanai, "Membership Inference Attacks against Diffusion Models", 2023, arXiv
    2302.03262; Ho et al. 2020, eq. 14). At one time it ranks slices as the error in x_0, v or velocity does,
    of which it is a multiple."""

    name = "loss"

    def errors(self, path: NoisePath, x0: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        found = {}
        for u in self.times:
            a, b = path.levels(u)
            each = [_mean_square(path.estimates(a * x0 + b * noise, u, batch)[1] - noise)
                    for noise in self.noises(x0)]
            found[f"u = {u:g}"] = torch.stack(each).mean(0)
        return {**found, "all times": torch.stack(list(found.values())).mean(0)}


class SecMI(OnPath):
    """t-error: the image goes to x_u deterministically, one more step and back; ‖back − x_u‖² / D (Duan,
    Kong, Wang, Shi & Xu, "Are Diffusion Models Vulnerable to Membership Inference Attacks?", ICML 2023,
    arXiv 2302.01316, the t-error of section 4). The steps are those between the attack's times."""

    name = "secmi"

    def errors(self, path: NoisePath, x0: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        x, here, found = path.levels(FIRST)[0] * x0, FIRST, {}
        for u in sorted(self.times):
            after = path.move(x, here, u, batch)
            found[f"u = {here:g}"] = _mean_square(path.move(after, u, here, batch) - x)
            x, here = after, u
        return found


class PIA(OnPath):
    """Proximal initialisation: the noise that the network sees in the image itself, ε̂_0, takes the place of
    a random one; ‖ε̂_0 − ε̂(a x_0 + b ε̂_0, u)‖_p, p = 2 and 4 (Kong, Duan, Ma, Shen, Shi, Zhu & Xu, "An
    Efficient Membership Inference Attack for the Diffusion Model by Proximal Initialization", ICLR 2024,
    arXiv 2305.18355)."""

    name = "pia"

    def errors(self, path: NoisePath, x0: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        first = self.proximal(path.estimates(path.levels(FIRST)[0] * x0, FIRST, batch)[1])
        found = {}
        for u in self.times:
            a, b = path.levels(u)
            error = path.estimates(a * x0 + b * first, u, batch)[1] - first
            found |= {f"u = {u:g}, p = {p}": _norm(error, p) for p in (2, 4)}
        return found

    def proximal(self, noise: Tensor) -> Tensor:
        """What is added to the image."""
        return noise


class PIAN(PIA):
    """PIA with ε̂_0 scaled so that its mean absolute value is that of standard normal noise, √(2/π) (Kong et
    al. 2024)."""

    name = "pian"

    def proximal(self, noise: Tensor) -> Tensor:
        size = noise.flatten(1).abs().mean(1).view(-1, *[1] * (noise.dim() - 1))
        return noise * (2 / np.pi) ** 0.5 / size


class SimA(OnPath):
    """‖ε̂(x_0, u)‖_p of the bare image as if it were noisy, p = 2 and 4: an optimal network points from it
    to a weighted mean of the training images around it, and from one of them hardly anywhere (Rao, Qu &
    Moyer, "Score-based Membership Inference on Diffusion Models", 2025, arXiv 2509.25003)."""

    name = "sima"

    def errors(self, path: NoisePath, x0: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        found = {}
        for u in self.times:
            noise = path.estimates(x0, u, batch)[1]
            found |= {f"u = {u:g}, p = {p}": _norm(noise, p) for p in (2, 4)}
        return found


@dataclass(frozen=True)
class FCRE(OnPath):
    """Frequency-calibrated reconstruction error: the image is made noisy and denoised, and one band of
    frequencies of both compared, by mean squared error and by 1 − SSIM (Zhao, Tokuoka, Iwasawa & Oda,
    "Frequency-Calibrated Membership Inference Attacks on Medical Image Diffusion Models", 2025, arXiv
    2506.14919). Low frequencies tell little, high ones are hard for any network.

    `bands` are shares of the highest frequency of a row of pixels, 1 being half a cycle per pixel; `steps`
    of deterministic denoising lead back to the image. `draws` are few: each costs all steps.
    """

    bands: tuple[tuple[float, float], ...] = ((0.0, 0.125), (0.125, 0.25), (0.25, 0.5), (0.5, 1.0))
    steps: int = 2
    draws: int = 2

    name = "fcre"

    def errors(self, path: NoisePath, x0: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        image, found = path.images(x0), {}
        for u in self.times:
            a, b = path.levels(u)
            for noise in self.noises(x0):
                made = path.images(self.denoised(path, a * x0 + b * noise, u, batch))
                for band in self.bands:
                    true, again = in_band(image, band), in_band(made, band)
                    alike = ssim(again, true, data_range=2.0, reduction="none")
                    here = f"u = {u:g}, band {band[0]:g} to {band[1]:g}"
                    for how, error in (("squared", _mean_square(again - true)),
                                       ("SSIM", 1 - alike.reshape(len(x0)))):
                        found[f"{here}, {how}"] = found.get(f"{here}, {how}", 0) + error / self.draws
        return found

    def denoised(self, path: NoisePath, x: Tensor, u: float, batch: Batch) -> Tensor:
        """x̂_0 after `steps` equal steps."""
        for k in range(self.steps - 1):
            x = path.move(x, u * (1 - k / self.steps), u * (1 - (k + 1) / self.steps), batch)
        return path.estimates(x, u / self.steps, batch)[0]


def in_band(images: Tensor, band: tuple[float, float]) -> Tensor:
    """What of images (B, 1, H, W) lies between two frequencies, as shares of 1/2 cycle per pixel, the upper
    one excluded."""
    rows, columns = (torch.fft.fftfreq(n, device=images.device) * 2 for n in images.shape[-2:])
    radius = torch.hypot(rows[:, None], columns[None])
    kept = (radius >= band[0]) & (radius < band[1])
    return torch.fft.ifft2(torch.fft.fft2(images) * kept).real


@dataclass(frozen=True)
class Fluctuation(Attack):
    """Probabilistic fluctuation, for any family: the score of an image minus the mean of those of images
    slightly beside it. A member stands on a local peak of the model's density, wherever the density itself
    is high (Fu, Wang, Gao, Liu, Li & Jiang, "A Probabilistic Fluctuation based Membership Inference Attack
    for Diffusion Models", 2023, arXiv 2308.12143).

    Args:
        attack: whose score stands for the log-density: `DenoisingLoss`, an ELBO, tokens.
        strengths: largest relative zoom and shift of each neighbour; one setting is the mean over all
            neighbours.
    """

    attack: Attack
    strengths: tuple[float, ...] = (0.02, 0.04, 0.08)
    seed: int = 0

    @property
    def name(self) -> str:
        return "pfami" if self.attack.name in ("loss", "elbo", "tokens") else f"pfami_{self.attack.name}"

    def suits(self, target: Target) -> bool:
        return self.attack.suits(target)

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        around = [self.attack.scores(target, beside(slices, strength, self.seed + k))
                  for k, strength in enumerate(self.strengths)]
        return self.attack.scores(target, slices) - sum(around) / len(around)


def beside(slices: Slices, strength: float, seed: int) -> Slices:
    """The slices, all zoomed and shifted alike by at most `strength` of their side; masks and all else
    stay."""
    zoom, down, right = np.random.default_rng(seed).uniform(-1, 1, 3) * strength
    images = torch.from_numpy(slices.images)
    matrix = torch.tensor([[[1 + zoom, 0, 2 * right], [0, 1 + zoom, 2 * down]]], dtype=images.dtype)
    grid = F.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return replace(slices, images=moved.numpy())


def _mean_square(error: Tensor) -> Tensor:
    return error.square().flatten(1).mean(1)


def _norm(error: Tensor, p: int) -> Tensor:
    return torch.linalg.vector_norm(error.flatten(1), ord=p, dim=1)
