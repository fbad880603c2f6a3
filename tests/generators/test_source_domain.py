"""Source-domain diffusion: what the noise drowns is made up, what is coarse is kept; with networks whose answers are known."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from conftest import discs
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.experiments.training import training_slices
from cmri_lib.experiments.vendor_arms import in_source_domain
from cmri_lib.generators.diffusion import DiffusionSettings
from cmri_lib.generators.source_domain import SourceDomain, low_pass
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.systems.system import Run
from cmri_lib.systems.vendors import SOURCE_DOMAIN

SETTINGS = DiffusionSettings(prediction="sample", steps=10)


class Grey(nn.Module):
    """Knows one image alone: grey."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, t: Tensor, batch: dict) -> Tensor:
        return torch.full_like(x, 0.3)


def wave(period: float, size: int = 16) -> Tensor:
    return torch.cos(2 * torch.pi * torch.arange(size) / period).expand(1, 1, size, size)


def test_low_pass_keeps_long_waves_and_is_a_projection() -> None:
    torch.testing.assert_close(low_pass(wave(8), 6), wave(8))
    torch.testing.assert_close(low_pass(wave(4), 6), 0 * wave(4), atol=1e-6, rtol=0)
    some = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(low_pass(low_pass(some, 5), 5), low_pass(some, 5), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(low_pass(some.mT, 5), low_pass(some, 5).mT, atol=1e-5, rtol=1e-4)


def test_the_coarse_comes_from_the_image_and_the_fine_from_what_was_learnt() -> None:
    model = SourceDomain(Grey(), Conditioning(), SETTINGS)
    image = 0.2 * wave(8) + 0.1 * wave(2) - 0.4
    noise = torch.randn(1, 1, 16, 16)
    made = model.translate(image, noise, strength=0.5, finest=6)
    torch.testing.assert_close(made, 0.2 * wave(8) - 0.4, atol=1e-4, rtol=0)  # grey has no fine part
    assert model.reference is None
    free = model.translate(image, noise, strength=0.5, finest=0)
    torch.testing.assert_close(free, torch.full_like(image, 0.3), atol=1e-4, rtol=0)
    for wrong in ({"strength": 0.0}, {"strength": 1.2}, {"strength": 0.5, "finest": -1}):
        with pytest.raises(ParameterError, match="strength"):
            model.translate(image, noise, **{"finest": 0, **wrong})


class Echo(Grey):
    """Answers with half of what it is shown, and writes down when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def forward(self, x: Tensor, t: Tensor, batch: dict) -> Tensor:
        self.asked.append(round(1000 * t[0].item()))
        return 0.5 * x


@pytest.mark.parametrize(("strength", "steps", "asked"), [
    (1.0, 4, [996, 747, 498, 249]), (0.5, 4, [498, 249]), (0.5, None, [498, 398, 299, 199, 100]),  # None: 10, the sampler's
    (0.05, 10, [50, 25]), (0.3, 1, [299, 150]), (0.001, 10, [1])])
def test_the_strength_is_the_share_of_the_noise_levels_and_of_the_steps(strength: float, steps: int | None,
                                                                        asked: list[int]) -> None:
    # Sampling starts at 996 of 1000, the last level whose α/σ = cot((n/1000 + 0.008) / 1.008 · π/2) exceeds exp(−5.1).
    assert int(1008 * (1 - 2 / math.pi * math.atan(math.exp(-5.1))) - 8) == 996
    model = SourceDomain(Echo(), Conditioning(), SETTINGS)
    model.translate(0.2 * wave(8), torch.randn(1, 1, 16, 16), strength=strength, finest=0, steps=steps)
    assert model.network.asked == asked


@pytest.mark.parametrize("strength", [0.2, 0.5, 0.9])
def test_an_image_goes_up_and_down_by_the_formulas(strength: float) -> None:
    """A prediction of x/2 makes DDIM a factor: x_m = (α_m / 2 + σ_m (1 − α_n / 2) / σ_n) x_n. Kept whole, it comes back."""
    model = SourceDomain(Echo(), Conditioning(), replace(SETTINGS, clip=False))
    image, noise = 0.2 * wave(8), 0.1 * torch.randn(1, 1, 16, 16)
    made = model.translate(image, noise, strength=strength, finest=0, steps=10)
    alpha, sigma = model.alpha_bar.sqrt(), (1 - model.alpha_bar).sqrt()
    times = [*model.network.asked, 0]
    wanted = alpha[times[0]] * image + sigma[times[0]] * noise
    for n, m in pairwise(times):
        wanted = (alpha[m] / 2 + sigma[m] * (1 - alpha[n] / 2) / sigma[n]) * wanted
    torch.testing.assert_close(made, wanted.float(), atol=1e-5, rtol=1e-4)
    whole = model.translate(image, noise, strength=strength, finest=1)
    torch.testing.assert_close(whole, image, atol=1e-5, rtol=0)


def test_it_learns_from_the_seen_vendors_alone_and_keeps_what_it_does_not_change() -> None:
    names = {p: vendor for p, vendor in zip(sorted(set(discs(9, 2).patients)), "AAABBBCCC")}
    cohort = discs(9, 2)
    cohort = cohort.with_columns(vendor=[names[p] for p in cohort.patients])
    seen, _ = training_slices(Run(SOURCE_DOMAIN), cohort)
    assert len(set(seen.table["vendor"])) == 2
    model = SourceDomain(Grey(), Conditioning(), SETTINGS)
    made, again = (in_source_domain(model, cohort.take(rows), strength=0.3, finest=6, seed=1) for rows in (range(18), [7, 3]))
    assert made.table.drop(columns="source").equals(cohort.table.drop(columns="source")) and (made.masks == cohort.masks).all()
    assert set(made.table["source"]) == {SOURCE_DOMAIN.id}
    assert abs(again.images - made.images[[7, 3]]).max() < 1e-3  # whoever stands beside it
