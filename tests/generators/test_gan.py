"""Adversarial objectives against closed forms: linear critics, Gaussian targets, and a toy with eight known modes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import discs
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.generators.base import draw
from cmri_lib.generators.gan import GAN, GANSettings, critic_loss, generator_loss, squared_gradient
from cmri_lib.networks.adversarial import (AdversarialSettings, DCGANCritic, DCGANGenerator, ResidualCritic,
                                           ResidualGenerator)
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.networks.conditioning.label_map import LabelMap
from cmri_lib.networks.mask_to_image import MaskToImageSettings, PatchCritic
from cmri_lib.training import TrainSettings, train

TINY = AdversarialSettings(generator=(8, 16, 16), critic=(8, 16, 16))


class Perceptron(nn.Module):
    """(B, before) → (B, after), or (B,) if `after` is 1 and `logits`."""

    def __init__(self, before: int, after: int, width: int = 64, logits: bool = False) -> None:
        super().__init__()
        act, hidden = nn.LeakyReLU(0.2), lambda: nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(before, width), act, hidden(), act, hidden(), act, nn.Linear(width, after))
        self.logits = logits

    def forward(self, x: Tensor, batch: dict) -> Tensor:
        return self.layers(x).squeeze(1) if self.logits else self.layers(x)


class LinearCritic(nn.Module):
    """D(x) = w·x + b, whose gradient is w everywhere."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.tensor(0.3))

    def forward(self, images: Tensor, batch: dict) -> Tensor:
        return images.flatten(1) @ self.weight + self.bias


class Shift(nn.Module):
    """G(z) = z + shift: it can be right only by moving."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(features))

    def forward(self, z: Tensor, batch: dict) -> Tensor:
        return z + self.shift


def hearts_gan(settings: GANSettings = GANSettings(latent=8), kind: str = "dcgan", size: int = 32) -> GAN:
    torch.manual_seed(0)
    makes, judges = (DCGANGenerator, DCGANCritic) if kind == "dcgan" else (ResidualGenerator, ResidualCritic)
    return GAN(makes(settings.latent, size, TINY), judges(size, TINY), Conditioning(), settings)


def linear_gan(settings: GANSettings) -> GAN:
    torch.manual_seed(1)
    return GAN(Shift(12), LinearCritic(torch.randn(12)), Conditioning(), settings)


def test_losses_are_their_formulas() -> None:
    real, fake = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([-3.0, 0.2, 1.5])
    cross = -torch.log(torch.sigmoid(real)).mean() - torch.log(1 - torch.sigmoid(fake)).mean()
    assert critic_loss("non-saturating", real, fake).item() == pytest.approx(cross.item(), rel=1e-5)
    assert generator_loss("non-saturating", fake).item() == pytest.approx(
        -torch.log(torch.sigmoid(fake)).mean().item(), rel=1e-5)
    assert critic_loss("wasserstein", real, fake).item() == pytest.approx((-0.4333333 - 0.5), rel=1e-5)
    # Hinge: of the reals −1 and 0.5 lie below 1, of the fakes 0.2 and 1.5 above −1.
    assert critic_loss("hinge", real, fake).item() == pytest.approx((2 + 0.5) / 3 + (1.2 + 2.5) / 3, rel=1e-5)
    assert (generator_loss("wasserstein", fake).item() == generator_loss("hinge", fake).item()
            == pytest.approx(1.3 / 3, rel=1e-5))
    # Where nothing can be told apart the critic's loss is 2 log 2 (Goodfellow et al., theorem 1).
    assert critic_loss("non-saturating", torch.zeros(4), torch.zeros(4)).item() == pytest.approx(2 * math.log(2), rel=1e-6)


@pytest.mark.parametrize("every", [1, 4])
def test_r1_of_a_linear_critic_is_its_squared_weight(every: int) -> None:
    batch = {"image": torch.randn(6, 1, 3, 4).flatten(1)}
    with_r1, without = (linear_gan(GANSettings(latent=12, r1=g, r1_every=every)) for g in (3.0, 0.0))
    losses = []
    for gan in (with_r1, without):
        gan.update_schedule(0, 10)
        torch.manual_seed(2)
        losses.append(gan.loss(batch, "critic").item())
    assert losses[0] - losses[1] == pytest.approx(3.0 / 2 * every * with_r1.critic.weight.square().sum().item(), rel=1e-4)
    with_r1.update_schedule(1, 10)
    torch.manual_seed(2)
    lazy = with_r1.loss(batch, "critic").item()
    assert (lazy == pytest.approx(losses[1], rel=1e-6)) == (every == 4)


def test_gradient_penalty_of_a_linear_critic_is_its_distance_from_slope_one() -> None:
    batch = {"image": torch.randn(6, 12)}
    losses = []
    for weight in (10.0, 0.0):
        gan = linear_gan(GANSettings("wasserstein", latent=12, gradient_penalty=weight))
        torch.manual_seed(2)
        losses.append(gan.loss(batch, "critic").item())
    norm = gan.critic.weight.norm().item()
    assert losses[0] - losses[1] == pytest.approx(10 * (norm - 1) ** 2, rel=1e-4)


def test_penalties_reach_the_critic_and_match_finite_differences() -> None:
    torch.manual_seed(0)
    critic = Perceptron(3, 1, logits=True).double()
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    slopes = squared_gradient(critic(x, {}), x)
    step, numeric = 1e-6, torch.zeros(4, dtype=torch.float64)
    for k in range(3):
        nudge = step * torch.eye(3, dtype=torch.float64)[k]
        numeric += ((critic(x + nudge, {}) - critic(x - nudge, {})) / (2 * step)).square()
    assert torch.allclose(slopes, numeric.float().to(slopes), rtol=1e-4)
    slopes.mean().backward()
    assert critic.layers[0].weight.grad.abs().sum() > 0


def test_drift_weighs_the_squared_output_on_real_images() -> None:
    batch, losses = {"image": torch.randn(6, 12)}, []
    for drift in (0.5, 0.0):
        gan = linear_gan(GANSettings("wasserstein", latent=12, drift=drift))
        torch.manual_seed(2)
        losses.append(gan.loss(batch, "critic").item())
    assert losses[0] - losses[1] == pytest.approx(0.5 * gan.critic(batch["image"], {}).square().mean().item(), rel=1e-4)


def test_feature_matching_compares_what_the_layers_make_of_pairs() -> None:
    torch.manual_seed(3)
    mask, sizes = LabelMap(), MaskToImageSettings((8,), (8, 8), scales=2)
    critic = PatchCritic(sizes, mask)
    batch = {"image": torch.randn(4, 1, 16, 16), "mask": torch.randint(0, 4, (4, 16, 16))}
    fake = torch.randn(4, 1, 16, 16)
    losses = []
    for weight, conditioning in ((10.0, mask), (0.0, mask), (10.0, Conditioning())):
        gan = GAN(lambda z, batch: fake, critic, conditioning, GANSettings("hinge", feature_matching=weight)).eval()
        losses.append(gan.loss(batch, "generator").item())
    hidden: list[Tensor] = []
    hooks = [m.register_forward_hook(lambda *call: hidden.append(call[2]))
             for m in critic.modules() if isinstance(m, nn.LeakyReLU)]
    critic(fake, batch), critic(batch["image"], batch)
    assert len(hooks) == 4 and len(hidden) == 8
    distance = np.mean([(made - real).abs().mean().item() for made, real in zip(hidden[:4], hidden[4:])])
    assert losses[0] - losses[1] == pytest.approx(10 * distance, rel=1e-4)
    assert losses[2] == losses[1], "nothing belongs together without a mask"


def test_the_generator_takes_its_turn_when_the_critic_has_had_all_of_its() -> None:
    gan = hearts_gan(GANSettings(latent=8, critic_steps=3, r1=1.0, r1_every=2))
    turns = [gan.update_schedule(step, 9) for step in range(9)]
    assert all(t[0] == "critic" for t in turns)
    assert [len(t) for t in turns] == [1, 1, 2] * 3
    assert set(gan.parameter_groups()) == {"critic", "generator"}
    assert {id(p) for ps in gan.parameter_groups().values() for p in ps} == {id(p) for p in gan.parameters()}


def test_networks_that_grow_are_called_with_the_progress() -> None:
    gan, calls = hearts_gan(), []
    gan.generator.grow = gan.critic.grow = calls.append
    for step in (0, 5):
        gan.update_schedule(step, 10)
    assert calls == [0, 0, 0.5, 0.5]


@pytest.mark.parametrize(("mover", "other"), [("critic", "generator"), ("generator", "critic")])
@pytest.mark.parametrize("settings", [GANSettings(latent=8, r1=1.0),
                                      GANSettings("wasserstein", latent=8, gradient_penalty=10.0),
                                      GANSettings("hinge", latent=8)], ids=lambda s: s.loss)
def test_each_turn_leaves_the_other_untouched(mover: str, other: str, settings: GANSettings) -> None:
    gan = hearts_gan(settings, "residual")
    gan.loss({"image": torch.rand(4, 1, 32, 32) * 2 - 1}, mover).backward()
    assert all(p.grad is None for p in gan.parameter_groups()[other])
    assert all(p.grad is not None and p.requires_grad for p in gan.parameter_groups()[mover])
    assert all(p.requires_grad for p in gan.parameters())


@pytest.mark.parametrize("kind", ["dcgan", "residual"])
def test_images_have_their_size_and_critics_judge_each_alone(kind: str) -> None:
    gan, images = hearts_gan(kind=kind), torch.rand(5, 1, 32, 32) * 2 - 1
    made = gan.sample(torch.randn(5, 8), {})
    assert made.shape == images.shape and made.abs().max() <= 1
    together = gan.critic(images, {})
    assert together.shape == (5,) and torch.allclose(gan.critic(images[2:3], {}), together[2:3], atol=1e-5)


@pytest.mark.parametrize("kind", ["dcgan", "residual"])
def test_each_sample_depends_on_its_own_noise_only(kind: str) -> None:
    gan, slices = hearts_gan(kind=kind), discs(4, 3)
    with torch.no_grad():
        for _ in range(30):
            gan.train().generator(torch.randn(32, 8), {})  # batch norm learns its statistics
    assert gan.nfe == 1 and gan.noise_shape(32) == (8,)
    base = draw(gan, slices, "U2", seed=5, batch=12)
    assert np.allclose(draw(gan, slices, "U2", seed=5, batch=5).images, base.images, atol=1e-5)
    assert not np.allclose(draw(gan, slices, "U2", seed=6).images, base.images, atol=1e-3)
    assert base.images[:, 0].std(axis=0).mean() > 1e-3 and not base.masks.any()


@pytest.mark.parametrize("settings", [GANSettings("wasserstein", latent=2, gradient_penalty=1.0),
                                      GANSettings(latent=2, r1=0.3)], ids=lambda s: s.loss)
def test_a_shifted_gaussian_is_found(settings: GANSettings, tmp_path: Path) -> None:
    torch.manual_seed(0)
    gan = GAN(Shift(2), Perceptron(2, 1, 32, logits=True), Conditioning(), settings)
    true = torch.tensor([1.5, -2.0])
    train(gan, {"image": true + torch.randn(4000, 2)},
          TrainSettings(steps=350, batch=128, learning_rate=2e-2, beta1=0.0, beta2=0.9, grad_clip=0.0, ema=0.99), tmp_path)
    assert torch.allclose(gan.generator.shift.detach(), true, atol=0.2)


def test_eight_gaussians_are_all_found(tmp_path: Path) -> None:
    angle = torch.arange(8) * torch.pi / 4
    centres = 3 * torch.stack([angle.cos(), angle.sin()], dim=1)
    torch.manual_seed(0)
    points = centres[torch.randint(8, (2000,))] + 0.2 * torch.randn(2000, 2)
    gan = GAN(Perceptron(2, 2, 128), Perceptron(2, 1, 128, logits=True), Conditioning(), GANSettings(latent=2, r1=0.1))
    train(gan, {"image": points}, TrainSettings(steps=700, batch=128, learning_rate=2e-3, beta1=0.0, beta2=0.9, grad_clip=0.0,
                                                ema=0.99, log_every=500), tmp_path)
    distance, nearest = torch.cdist(gan.sample(torch.randn(2000, 2), {}), centres).min(dim=1)
    share = torch.bincount(nearest[distance < 0.6], minlength=8) / 2000
    # Points spread evenly over the ring through the centres: sum 0.51, median distance 0.59; over its disc: 0.32 and 0.77.
    assert share.min() > 0.03 and share.sum() > 0.65
    assert distance.median() < 0.4


def test_training_resumes_bit_for_bit_and_its_objective_is_its_identity(tmp_path: Path) -> None:
    settings = TrainSettings(steps=7, batch=4, grad_clip=0.0, ema=0.9)
    data = {"image": torch.rand(12, 1, 32, 32) * 2 - 1}
    objective = GANSettings("wasserstein", latent=8, gradient_penalty=10.0, critic_steps=2)
    whole, broken = hearts_gan(objective, "residual"), hearts_gan(objective, "residual")
    train(whole, data, settings, tmp_path / "whole")

    def stop(batch: dict) -> dict:
        raise KeyboardInterrupt

    turn = broken.update_schedule
    broken.update_schedule = lambda step, steps: turn(step, steps) if step < 5 else stop({})  # killed at step 5
    with pytest.raises(KeyboardInterrupt):
        train(broken, data, settings, tmp_path / "broken", checkpoint_seconds=0)
    again = hearts_gan(objective, "residual")
    train(again, data, settings, tmp_path / "broken")
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    other = hearts_gan(GANSettings("wasserstein", latent=8, gradient_penalty=1.0, critic_steps=2), "residual")
    assert train(other, data, settings, tmp_path / "whole")["loss_critic"].iloc[-1] != pytest.approx(
        train(whole, data, settings, tmp_path / "again")["loss_critic"].iloc[-1])


def test_bad_settings_are_refused() -> None:
    for wrong in ({"critic_steps": 0}, {"r1_every": 0}, {"r1": -1.0}, {"latent": 0}):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            GANSettings(**wrong)
    with pytest.raises(ParameterError, match="halved"):
        DCGANGenerator(8, 36, TINY)
