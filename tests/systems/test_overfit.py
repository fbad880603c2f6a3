"""Every family of generators learns eight slices by heart, as far as its own objective allows.

Network, objective, sampler and conditioning can do that together if none has a fault; most faults (a wrong sign or scale, a
condition or a time that is lost or reversed) leave a distance. A sampler with another schedule of noise is not found here: it
still ends at a slice. The limits are known: of denoisers it is the loss of the posterior mean over the slices (Karras et al.
2022, app. B.3), of masked tokens the entropy that the visible ones leave, of reconstructions the noise of the slices. A sample
that is nearer to a slice than half of the least distance between two belongs to it alone, by the triangle inequality.

Unconditional GANs are left out: U2 has not yet found the slices after the seconds that the others need. What they can do is
tested on toys, see `generators/test_gan.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import discs
from generators.test_finite_set import PosteriorMean
from torch import Tensor, nn

from cmri_lib.cohort.slices import Slices
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.parameters import Parameters
from cmri_lib.config.study import open_study
from cmri_lib.generators.base import Batch, Generator, seeded_noise, training_batch
from cmri_lib.generators.masked import MaskGIT
from cmri_lib.networks.unet import UNetSettings
from cmri_lib.systems.conditional import CONDITIONAL
from cmri_lib.systems.label_maps import LABEL_MAPS
from cmri_lib.systems.system import System
from cmri_lib.systems.unconditional import UNCONDITIONAL
from cmri_lib.training import Trainable, TrainSettings, train

COUNT = 8
#: Samples in which a slice that has its share is missed once in 50,000 times: 8 (7/8)^96.
DRAWN = 96
#: Standard deviation of the noise that `discs` adds to each pixel: who comes nearer has learnt even that.
NOISE = 0.05
#: Networks that can hold eight slices; those of the smoke profile are for seconds of training.
UNET, WIDTH = UNetSettings((16, 32), blocks=1, head_channels=8, patch=2), 64
#: Fewer steps than these leave a distance of the sampler's own. Ancestral sampling forgets errors of early steps.
SAMPLER = {"U10 FM": {"solver": "midpoint", "steps": 10}, "U6 DDPM": {"sampler": "ddpm", "steps": 20},
           "U7 LDM-KL": {"sampler": "ddpm", "steps": 20}, "U8 DiT": {"sampler": "ddpm", "steps": 20}}
#: Training of each, in batches of so many copies of the eight, and steps of a first stage.
TRAINING = {"U10 FM": {"copies": 2, "steps": 200, "learning_rate": 2e-2},
            "U6 DDPM": {"copies": 4, "steps": 200, "learning_rate": 2e-2},
            "U7 LDM-KL": {"copies": 4, "steps": 150, "learning_rate": 2e-2},
            "U8 DiT": {"copies": 4, "steps": 250, "learning_rate": 2e-2, "optimiser": "muon"}}
#: At most so large may be what `excess` says, and the distance of samples: a network that is not told the time has more.
LEFT = {"U10 FM": (0.08, 3 * NOISE), "U6 DDPM": (0.2, 4 * NOISE),
        "U7 LDM-KL": (0.4, 2 * NOISE), "U8 DiT": (0.4, 2 * NOISE)}
FIRST = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all trainings of this file: a first stage that two systems share is trained once."""
    return tmp_path_factory.mktemp("overfit")


def profile() -> Parameters:
    """The smoke profile with `UNET` and transformers of `WIDTH`."""
    params = open_study("smoke", "phantom").params
    latent, masks = params.latent, params.masks
    dit, maskgit = (replace(s, network=replace(s.network, width=WIDTH, patch=1)) for s in (latent.dit, latent.maskgit))
    return replace(params, flow=replace(params.flow, network=UNET), diffusion=replace(params.diffusion, network=UNET),
                   latent=replace(latent, dit=dit, maskgit=maskgit),
                   masks=replace(masks, diffusion=replace(masks.diffusion, network=replace(UNET, patch=1))))


def eight(size: int) -> Slices:
    """Discs of two patients in eight places of the plane; four pairs of slices have one level and phase each."""
    some = discs(2, COUNT // 2, size)
    places = [(row * size // 2, column * size // 4) for row in range(2) for column in range(4)]
    images, masks = (np.stack([np.roll(one, place, (-2, -1)) for one, place in zip(several, places)])
                     for several in (some.images, some.masks))
    return Slices(images, masks, some.table)


def repeated(data: Mapping[str, Tensor], times: int) -> Batch:
    """All rows so often."""
    return {name: values.repeat(times, *[1] * (values.dim() - 1)) for name, values in data.items()}


def learn(model: Trainable, data: Batch, settings: TrainSettings, folder: Path, copies: int, **changes: object) -> None:
    """Train on batches that hold each row so often."""
    given = {"batch": copies * COUNT, "ema": 0.95, "log_every": 100, "validate_every": 0, "snapshots": 0, **changes}
    train(model, repeated(data, copies), replace(settings, **given), folder)
    model.eval()


def learnt(system: System, slices: Slices, folder: Path, copies: int, **changes: object) -> tuple[Generator, Batch]:
    """The trained generator, after its first stage, and what it has learnt from."""
    params = profile()
    generator = system.build(params, Vocabulary.of(slices), seed=0)
    data = training_batch(slices, generator.conditioning)
    if (stage := system.first_stage) is not None:
        learn(generator.first_stage, {"image": data["image"]}, stage.training(params), folder / stage.name, 1, steps=FIRST)
    data = generator.prepare(data)
    learn(generator, data, system.training(params), folder / system.id, copies, **changes)
    return generator, data


def noise(generator: Generator, count: int, size: int) -> Tensor:
    """Initial noise of so many samples."""
    return seeded_noise(0, range(count), generator.noise_shape(size))


def rms(a: Tensor, b: Tensor) -> Tensor:
    """(N, M) root mean squared differences of two sets of images."""
    return torch.cdist(a.flatten(1), b.flatten(1)) / a[0].numel() ** 0.5


def apart(images: Tensor) -> float:
    """The least distance between two."""
    return float(rms(images, images).fill_diagonal_(torch.inf).min())


class Posterior(nn.Module):
    """The exact answer of a denoiser that has `data`: `PosteriorMean` over the images with the condition that is asked for."""

    def __init__(self, data: Batch, of: Generator):
        super().__init__()
        self.fields = [name for name in data if name != "image"]
        self.conditions, which = self.asked(data, data["image"]).unique(dim=0, return_inverse=True)
        self.means = [PosteriorMean(data["image"][which == k], of) for k in range(len(self.conditions))]

    def asked(self, batch: Batch, like: Tensor) -> Tensor:
        """(B, fields): the condition of each row."""
        return torch.stack([torch.zeros(len(like)).long(), *(batch[name] for name in self.fields)], 1)

    def forward(self, x: Tensor, t: Tensor, batch: Batch) -> Tensor:
        answer, asked = torch.empty_like(x), self.asked(batch, x)
        for condition, mean in zip(self.conditions, self.means):
            rows = (asked == condition).all(1)
            answer[rows] = mean(x[rows], t[rows], batch)
        return answer


class Nothing(nn.Module):
    """A denoiser that has learnt nothing."""

    def forward(self, x: Tensor, t: Tensor, batch: Batch) -> Tensor:
        return torch.zeros_like(x)


class Consistent(nn.Module):
    """The exact answer of a predictor of tokens: how often each occurs in maps (N, h, w) that agree with what is visible."""

    def __init__(self, maps: Tensor, hidden: int):
        super().__init__()
        self.maps, self.hidden = maps, hidden

    def forward(self, tokens: Tensor, batch: Batch) -> Tensor:
        agree = ((tokens[:, None] == self.maps) | (tokens[:, None] == self.hidden)).flatten(2).all(2).float()
        chance = torch.einsum("bk,khwc->bhwc", agree, F.one_hot(self.maps, self.hidden).float())
        return (chance / agree.sum(1).view(-1, 1, 1, 1)).clamp(min=1e-9).log()


class Blind(Consistent):
    """The same if nothing were visible."""

    def forward(self, tokens: Tensor, batch: Batch) -> Tensor:
        return super().forward(torch.full_like(tokens, self.hidden), batch)


@torch.no_grad()
def excess(generator: Generator, data: Batch, exact: nn.Module, ignorant: nn.Module) -> float:
    """The generator's loss where that of the exact answer is 0 and that of one that has learnt nothing 1; always with the same
    times, noise or hidden places."""
    losses, own = [], generator.network
    for network in (exact, own, ignorant):
        generator.network = network
        torch.manual_seed(1)
        losses.append(float(generator.loss(repeated(data, 32), "model")))
    generator.network = own
    least, found, nothing = losses
    return (found - least) / (nothing - least)


@pytest.mark.parametrize("name", TRAINING)
def test_denoisers_come_near_the_least_loss_and_draw_each_slice(name: str, folder: Path) -> None:
    slices = eight(16)
    images = torch.from_numpy(slices.images)
    generator, data = learnt(UNCONDITIONAL[name], slices, folder, **TRAINING[name])
    prior = getattr(generator, "prior", generator)  # of a latent system, on latents
    loss, furthest = LEFT[name]
    assert 0 < excess(prior, data, Posterior(data, prior), Nothing()) < loss
    distance, which = rms(generator.sample(noise(generator, DRAWN, 16), {}, **SAMPLER[name]), images).min(1)
    assert distance.median() < furthest < apart(images) / 2 and len(which.unique()) == COUNT


def test_label_diffusion_draws_the_masks_of_its_condition(folder: Path) -> None:
    generator, data = learnt(LABEL_MAPS["C10 label diffusion"], eight(16), folder, 4, steps=150, learning_rate=2e-2)
    prior, exact = generator.prior, Posterior(data, generator.prior)
    assert len(exact.conditions) == COUNT / 2 and 0 < excess(prior, data, exact, Nothing()) < 0.25
    asked = repeated(data, DRAWN // COUNT)
    drawn = prior.sample(seeded_noise(0, range(DRAWN), data["image"].shape[1:]), asked, sampler="ddpm", steps=20)
    distance, which = rms(drawn, data["image"]).min(1)
    assert distance.median() < apart(data["image"]) / 2 and len(which.unique()) == COUNT
    found = {name: values[which] for name, values in data.items()}
    assert torch.equal(exact.asked(found, drawn), exact.asked(asked, drawn)), "a mask of another level or phase"


def test_masked_tokens_are_guessed_from_those_that_are_visible(folder: Path) -> None:
    generator, data = learnt(UNCONDITIONAL["U9 MaskGIT"], eight(16), folder, 8, steps=200, learning_rate=1e-2,
                             optimiser="muon")
    assert isinstance(generator, MaskGIT)
    maps, hidden = data["image"], generator.hidden
    assert 0 < excess(generator, data, Consistent(maps, hidden), Blind(maps, hidden)) < 0.2
    # As many rounds as places show one token at first, and the slice is chosen; a high temperature is an order by chance.
    start = torch.full((DRAWN, *maps.shape[1:]), hidden)
    drawn = generator.complete(start, noise(generator, DRAWN, 16), steps=maps[0].numel(), temperature=20.0)
    agreement, which = (drawn[:, None] == maps).flatten(2).float().mean(2).max(1)
    assert agreement.mean() > 0.8 and len(which.unique()) == COUNT


def test_an_autoencoder_of_latents_reconstructs_down_to_about_the_noise(folder: Path) -> None:
    system, slices = UNCONDITIONAL["U7 LDM-KL"], eight(16)
    images = torch.from_numpy(slices.images)
    first = system.build(profile(), Vocabulary.of(slices), seed=0).first_stage
    learn(first, {"image": images}, system.first_stage.training(profile()), folder / system.first_stage.name, 1, steps=FIRST)
    with torch.no_grad():
        assert rms(first.reconstruct(images), images).diag().max() < 2 * NOISE


def test_a_vae_reconstructs_down_to_about_the_noise(folder: Path) -> None:
    generator, data = learnt(UNCONDITIONAL["U1 VAE"], eight(32), folder, 1, steps=250)
    assert rms(generator.reconstruct(data["image"], data), data["image"]).diag().max() < 3 * NOISE < apart(data["image"]) / 2


@pytest.mark.parametrize("name", ["C1 Pix2Pix", "C4 SPADE cGAN"])
def test_a_gan_paints_each_slice_under_its_own_mask(name: str, folder: Path) -> None:
    generator, data = learnt(CONDITIONAL[name], eight(32), folder, 2, steps=120, learning_rate=3e-3)
    made = generator.sample(noise(generator, COUNT, 32), data)
    distance = rms(made, data["image"])
    assert (distance.argmin(1) == torch.arange(COUNT)).all()
    assert distance.diag().max() < 4 * NOISE < apart(data["image"]) / 2
