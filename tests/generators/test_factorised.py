"""Factorised diffusion: codes have the first stage's moments, reach the network, and carry the style of a reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import discs
from torch import Tensor, nn

from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import open_study
from cmri_lib.errors import DataError
from cmri_lib.generators.base import batch_of, draw, training_batch
from cmri_lib.generators.diffusion import Diffusion, DiffusionSettings
from cmri_lib.generators.factorised import CODE, SPREAD, Factorised
from cmri_lib.generators.vae import VAE
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.networks.conditioning.embeddings import CompositeConditioning, VectorCondition
from cmri_lib.networks.conditioning.label_map import LabelMap
from cmri_lib.networks.pretrained import load_pretrained
from cmri_lib.networks.unet import Denoiser, UNetSettings
from cmri_lib.networks.vae import Decoder, Encoder, VAESettings
from cmri_lib.systems.conditional import CONDITIONAL

from cmri_lib.training import TrainSettings, train

SIZES = VAESettings(channels=(8, 8, 8, 8), latent=3)
UNET = UNetSettings((8, 16), head_channels=8)
STEPS = DiffusionSettings(steps=3)


def factorised() -> Factorised:
    """Random weights, none of them zero, and codes with moments of their own."""
    torch.manual_seed(0)
    domain = VAE(Encoder(SIZES, LabelMap()), Decoder(SIZES, LabelMap()), SIZES.latent, LabelMap())
    model = Factorised(domain, Denoiser(UNET, CompositeConditioning(LabelMap(), VectorCondition(CODE, SIZES.latent))),
                       LabelMap(), STEPS)
    root = torch.tensor([[2.0, 0, 0], [1, 1, 0], [0, -1, 0.5]])
    domain.code_mean.copy_(torch.tensor([1.0, -2.0, 0.5]))
    domain.code_covariance.copy_(root @ root.T)
    for p in model.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.1)
    return model.eval()


def test_answers_to_mask_and_code_image_by_image() -> None:
    model, batch = factorised(), batch_of(discs(4, 1), LabelMap())
    noise, batch[CODE] = torch.randn(4, 1, 32, 32), torch.randn(4, 3)
    before = model.sample(noise, batch)
    for field in ("mask", CODE):
        after = model.sample(noise, {**batch, field: batch[field][[1, 1, 2, 3]]})
        assert (after[0] - before[0]).abs().mean() > 1e-4, f"{field} is ignored"
        assert torch.allclose(after[1:], before[1:], atol=1e-5)


def test_each_sample_depends_on_its_own_noise_alone() -> None:
    model, slices = factorised(), discs(3, 3)
    base = draw(model, slices, "C14", seed=5, batch=9)
    assert np.allclose(draw(model, slices, "C14", seed=5, batch=4).images, base.images, atol=1e-4)
    noise = torch.randn(4, 1, 32, 32)
    codes = model.draw_codes(noise)
    assert codes.shape == (4, 3) and torch.allclose(model.draw_codes(noise[2:]), codes[2:], atol=1e-6)
    batch = batch_of(slices.take(range(4)), LabelMap())
    assert torch.equal(model.sample(noise, batch), model.sample(noise, {**batch, CODE: codes}))


def test_drawn_codes_have_the_moments_of_the_first_stage() -> None:
    model = factorised()
    codes = model.draw_codes(torch.randn(20_000, 1, 3, 3))
    restored = codes * model.domain.code_covariance.diagonal().sqrt() + model.domain.code_mean
    assert torch.allclose(restored.mean(0), model.domain.code_mean, atol=0.06)
    assert torch.allclose(torch.cov(restored.T), model.domain.code_covariance, atol=0.15)
    assert torch.allclose(codes.std(0), torch.ones(3), atol=0.03)  # the condition is standardised


def test_prepare_adds_standardised_posteriors_and_freezes_the_first_stage() -> None:
    model, data = factorised(), training_batch(discs(7, 5), LabelMap())
    ready = model.prepare(data, batch=32)
    assert set(ready) == {"image", "mask", CODE, SPREAD} and ready["image"] is data["image"]
    assert ready[CODE].shape == ready[SPREAD].shape == (35, 3) and not ready[CODE].requires_grad
    with torch.no_grad():
        mean, log_variance = model.domain.encoder(data["image"], data)
    scale = model.domain.code_covariance.diagonal().sqrt()
    assert torch.allclose(ready[CODE] * scale + model.domain.code_mean, mean, atol=1e-5)
    assert torch.allclose(ready[SPREAD] * scale, (log_variance / 2).exp(), atol=1e-5)
    assert torch.allclose(model.standardise(mean), ready[CODE], atol=1e-5)
    assert not any(p.requires_grad for p in model.domain.parameters())
    model.train()
    assert model.network.training and not any(m.training for m in model.domain.modules())


def test_codes_are_drawn_anew_in_training_from_their_posterior() -> None:
    model, seen = factorised(), []

    class Listening(nn.Module):
        def forward(self, x: Tensor, t: Tensor, batch: dict) -> Tensor:
            seen.append(batch[CODE])
            return x

    model.network = Listening()
    spread = torch.tensor([0.0, 0.5, 2.0])
    batch = {"image": torch.zeros(4000, 1, 2, 2), CODE: torch.ones(4000, 3), SPREAD: spread.expand(4000, 3)}
    model.loss(batch, "model"), model.loss(batch, "model")
    assert torch.allclose(seen[0].mean(0), torch.ones(3), atol=0.15)
    assert torch.allclose(seen[0].std(0), spread, atol=0.1) and not torch.equal(seen[0], seen[1])


def test_a_reference_gives_its_style_to_other_masks() -> None:
    """With an exact first stage (the code is the brightness of what the mask covers) and an exact network, a heart is drawn
    in its own mask with the reference's brightness."""

    class Brightness(nn.Module):
        def forward(self, x: Tensor, batch: dict) -> tuple[Tensor, Tensor]:
            inside = batch["mask"][:, None] > 0
            mean = (x * inside).sum((2, 3)) / inside.sum((2, 3))
            return mean, torch.full_like(mean, -20.0)

    class Painter(nn.Module):
        def forward(self, x: Tensor, t: Tensor, batch: dict) -> Tensor:
            level = batch[CODE] * 0.5 + 0.1  # the inverse of `standardise` below
            return level[:, :, None, None] * (batch["mask"][:, None] > 0)

    domain = VAE(Brightness(), nn.Identity(), 1, LabelMap())
    domain.code_mean.fill_(0.1), domain.code_covariance.fill_(0.25)
    model = Factorised(domain, Painter(), LabelMap(), DiffusionSettings(prediction="sample", steps=5))
    references, others = batch_of(discs(4, 1), LabelMap()), batch_of(discs(4, 1, seed=9), LabelMap())
    code = model.standardise(domain.encoder(references["image"], references)[0])
    made = model.sample(torch.randn(4, 1, 32, 32), {"mask": others["mask"], CODE: code})
    inside = others["mask"][:, None] > 0
    assert torch.allclose(domain.encoder(made, others)[0], domain.encoder(references["image"], references)[0], atol=1e-4)
    assert not made[~inside].any()


def test_trains_in_two_stages_and_only_the_prior_learns_in_the_second(tmp_path: Path) -> None:
    model, data = factorised(), training_batch(discs(6, 4), LabelMap())
    untrained = model.domain.encoder.stem.weight.detach().clone()
    train(model.first_stage, data, TrainSettings(steps=6, batch=8), tmp_path / "first")
    first = {k: v.clone() for k, v in model.domain.state_dict().items()}
    prior = model.network.state_dict()["unet.conv_in.conv.weight"].clone()
    assert not torch.equal(first["encoder.stem.weight"], untrained)
    log = train(model, model.prepare(data), TrainSettings(steps=6, batch=8, log_every=2), tmp_path / "second",
                validation=model.prepare(training_batch(discs(2, 2, seed=1, split="validation"), LabelMap())))
    assert np.isfinite(log["loss_model"]).all()
    assert all(torch.equal(v, first[k]) for k, v in model.domain.state_dict().items())
    assert not torch.equal(model.network.state_dict()["unet.conv_in.conv.weight"], prior)


def test_the_system_starts_from_the_unconditional_diffusion() -> None:
    params, system = open_study("smoke", "phantom").params, CONDITIONAL["C14 factorised diffusion"]
    past, generator = (s.build(params, Vocabulary({}), seed=2026) for s in (system.pretrained, system))
    first = {k: v.clone() for k, v in generator.domain.state_dict().items()}
    with torch.no_grad():
        for p in past.parameters():
            p.normal_(0, 0.1)
    load_pretrained(generator, past.state_dict())
    assert isinstance(past, Diffusion) and all(torch.equal(v, first[k]) for k, v in generator.domain.state_dict().items())
    with torch.no_grad():  # apart from the code, whose way in is new, it is what it started from
        generator.network.unet.class_embedding.weight.zero_(), generator.network.unet.class_embedding.bias.zero_()
    x, t, batch = (torch.randn(2, 1, 32, 32), torch.full((2,), 0.3),
                   batch_of(discs(2, 1), LabelMap()) | {CODE: torch.randn(2, 8)})
    assert torch.allclose(generator.eval().network(x, t, batch), past.eval().network(x, t, {}), atol=1e-5)
    assert generator.conditioning.fields == ("mask",) == generator.first_stage.conditioning.fields


def test_given_vectors_are_checked_and_zero_where_unknown() -> None:
    seen = VectorCondition("code", 3)
    assert seen.vector({"code": torch.tensor([[1.0, 2.0, 3.0], [float("nan")] * 3])}).tolist() == [[1, 2, 3], [0, 0, 0]]
    with pytest.raises(DataError, match="code"):
        seen.vector({"code": torch.zeros(2, 4)})
    assert isinstance(seen, Conditioning) and seen.width == 3 and not seen.channels
