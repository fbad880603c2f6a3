"""Of finitely many slices the exact denoiser is known: their posterior mean (Karras et al. 2022, app. B.3).

With it in the place of a network, flow matching and diffusion must draw the slices themselves, and each of them.
"""

from __future__ import annotations

import pytest
import torch
from conftest import discs
from torch import Tensor, nn

from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import open_study
from cmri_lib.generators.base import Batch, Generator, seeded_noise
from cmri_lib.generators.diffusion import Diffusion
from cmri_lib.systems.unconditional import UNCONDITIONAL

COUNT, SIZE = 8, 16


class PosteriorMean(nn.Module):
    """The exact answer of a flow, or of a diffusion that predicts v, of finitely many images (N, 1, S, S).

    x = a x_1 + s ε comes from image k with a chance proportional to exp(−‖x − a x_k‖² / 2 s²).
    """

    def __init__(self, images: Tensor, of: Generator):
        super().__init__()
        self.images, self.of = images, of

    def forward(self, x: Tensor, t: Tensor, batch: Batch) -> Tensor:
        if isinstance(self.of, Diffusion):
            signal, noise = self.of.levels((t * self.of.last).round().long(), x)
        else:
            signal = t.view(-1, 1, 1, 1)
            noise = 1 - signal
        squared = (x[:, None] - signal[:, None] * self.images).flatten(2).square().sum(2)
        chance = (-squared / (2 * noise.view(-1, 1).square())).softmax(1)
        image = torch.einsum("bk,kchw->bchw", chance, self.images)
        white = (x - signal * image) / noise
        return signal * white - noise * image if isinstance(self.of, Diffusion) else image - white


@pytest.mark.parametrize(("name", "choices"), [("U10 FM", {"solver": "midpoint", "steps": 10}), ("U6 DDPM", {"steps": 20})])
def test_the_posterior_mean_leads_noise_to_the_slices_themselves(name: str, choices: dict) -> None:
    slices = discs(COUNT, 1, SIZE)
    images = torch.from_numpy(slices.images)
    generator = UNCONDITIONAL[name].build(open_study("smoke", "phantom").params, Vocabulary.of(slices), seed=0)
    generator.network = PosteriorMean(images, generator)
    drawn = generator.sample(seeded_noise(0, range(64), (1, SIZE, SIZE)), {}, **choices)
    distance, which = (torch.cdist(drawn.flatten(1), images.flatten(1)) / SIZE).min(1)
    assert distance.max() < 0.01 and len(which.unique()) == COUNT
