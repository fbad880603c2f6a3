"""Two-stage generators: the first stage is frozen, the prior sees latents of unit variance, samples are independent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import discs

from cmri_lib.generators.base import draw, training_batch
from cmri_lib.generators.flow import FlowMatching, FlowSettings
from cmri_lib.generators.latent import Latent
from cmri_lib.networks.autoencoder import KLAutoencoder, KLSettings, VQAutoencoder, VQSettings
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.networks.unet import Denoiser, UNetSettings
from cmri_lib.training import TrainSettings, train

KINDS = {"kl": lambda: KLAutoencoder(KLSettings(widths=(16, 16))),
         "vq": lambda: VQAutoencoder(VQSettings(widths=(16, 16), codes=32))}


def latent_flow(kind: str, steps: int = 4) -> Latent:
    torch.manual_seed(0)
    autoencoder = KINDS[kind]()
    network = Denoiser(UNetSettings((16, 16), head_channels=8), Conditioning(), channels=4)
    torch.nn.init.normal_(network.unet.out[-1].conv.weight, std=0.1)  # MONAI starts the last layer at zero
    return Latent(autoencoder, FlowMatching(network, Conditioning(), FlowSettings(steps=steps)))


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_first_stage_learns_first_and_only_first(kind: str, tmp_path: Path) -> None:
    model, data = latent_flow(kind), training_batch(discs(6, 4), Conditioning())
    untrained = state(model.autoencoder)
    train(model.first_stage, data, TrainSettings(steps=20, batch=8), tmp_path / "first")
    first, prior = state(model.autoencoder), state(model.prior)
    assert not torch.equal(first["encoder.1.weight"], untrained["encoder.1.weight"])
    train(model, model.prepare(data), TrainSettings(steps=5, batch=8), tmp_path / "second")
    assert all(torch.equal(v, first[k]) for k, v in model.autoencoder.state_dict().items())
    assert any(not torch.equal(v, prior[k]) for k, v in model.prior.state_dict().items())
    assert not any(p.requires_grad for p in model.autoencoder.parameters())


def test_first_stage_stays_in_eval_mode() -> None:
    model = latent_flow("vq")
    model.train()
    assert model.prior.training and not any(m.training for m in model.autoencoder.modules())
    model.first_stage.train()  # as the loop does it to train the first stage itself
    assert model.autoencoder.training


def test_only_the_prior_is_trained() -> None:
    model = latent_flow("kl")
    played = [p for group in model.parameter_groups().values() for p in group]
    assert {id(p) for p in played} == {id(p) for p in model.prior.parameters()}
    assert model.update_schedule(3, 10) == model.prior.update_schedule(3, 10) and model.nfe == model.prior.nfe == 4


@pytest.mark.parametrize("kind", KINDS)
def test_prepare_replaces_images_by_their_latents(kind: str) -> None:
    model, data = latent_flow(kind), {"image": torch.rand(37, 1, 32, 32), "mask": torch.zeros(37, 32, 32)}
    small = model.prepare(data)
    assert small["image"].shape == (37, *model.noise_shape(32)) == (37, 4, 8, 8)
    assert small["mask"] is data["mask"] and data["image"].shape[1] == 1
    assert not small["image"].requires_grad and small["image"].device.type == "cpu"
    with torch.no_grad():
        assert torch.allclose(small["image"], model.autoencoder.encode(data["image"]), atol=1e-5)
    assert model.loss(small, "model").isfinite()


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_decoded_latents_and_independent_of_their_batch(kind: str) -> None:
    model, slices = latent_flow(kind), discs(3, 3, split="test")
    base = draw(model, slices, "U7", seed=5, batch=9)
    assert base.images.shape == (9, 1, 32, 32)
    # A latent halfway between two codes may fall to either with another order of summation; hardly any does.
    off = abs(draw(model, slices, "U7", seed=5, batch=4).images - base.images) > 1e-4
    assert off.mean() < (0.02 if kind == "vq" else 1e-9)
    noise = torch.randn(2, 4, 8, 8)
    expected = model.autoencoder.decode(model.prior.sample(noise, {}, steps=2))
    assert torch.allclose(model.sample(noise, {}, steps=2), expected, atol=1e-6)


def test_systems_that_share_a_first_stage_start_it_alike() -> None:
    one, other = latent_flow("kl", steps=4), latent_flow("kl", steps=2)
    assert all(torch.equal(v, other.autoencoder.state_dict()[k]) for k, v in one.autoencoder.state_dict().items())
