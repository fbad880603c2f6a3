"""StyleGAN2's layers against explicit computations, and what an image may depend on."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from cmri_lib.errors import ParameterError
from cmri_lib.networks import stylegan as sg

SETTINGS = sg.StyleGANSettings(channels=(16, 16, 8, 8), style=16, mapping=2)  # 4, 8, 16, 32


def by_sample(conv: sg.ModulatedConv, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Equations 1 and 3 as they are written: one set of weights for each sample."""
    out = []
    for image, scales in zip(x, conv.scales(w)):
        weight = conv.weight / math.sqrt(conv.fan_in) * scales[None, :, None, None]  # (outputs, inputs, k, k)
        if conv.demodulate:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        out.append(F.conv2d(image[None], weight, padding=conv.padding))
    return torch.cat(out)


@pytest.mark.parametrize(("kernel", "demodulate"), [(3, True), (3, False), (1, False)])
def test_modulated_convolution_equals_the_loop_over_samples(kernel: int, demodulate: bool) -> None:
    conv = sg.ModulatedConv(6, 5, style=8, kernel=kernel, demodulate=demodulate).double()
    x = torch.randn(4, 6, 8, 8, dtype=torch.float64, requires_grad=True)
    w = torch.randn(4, 8, dtype=torch.float64, requires_grad=True)
    fast, slow = conv(x, w), by_sample(conv, x, w)
    assert torch.allclose(fast, slow, atol=1e-9)
    wanted = [x, w, *conv.parameters()][:-1]  # the scales' bias is last, and as good as its weight
    for a, b in zip(torch.autograd.grad(fast.square().sum(), wanted), torch.autograd.grad(slow.square().sum(), wanted)):
        assert torch.allclose(a, b, atol=1e-8)


def test_demodulation_gives_unit_deviation_whatever_the_style() -> None:
    conv, x = sg.ModulatedConv(32, 64, style=16), torch.randn(8, 32, 16, 16)
    for strength in (0.1, 1.0, 30.0):
        out = conv(x, strength * torch.randn(8, 16))[..., 1:-1, 1:-1]  # zeros beyond the edge take variance away
        assert torch.allclose(out.std((2, 3)).mean(1), torch.ones(8), atol=0.1)


def test_styles_start_near_one_and_the_mapping_keeps_unit_variance() -> None:
    conv = sg.ModulatedConv(64, 8, style=64)
    assert conv.scales(torch.randn(256, 64)).mean().item() == pytest.approx(1, abs=0.1)
    w = sg.Mapping(64, sg.StyleGANSettings())(torch.randn(512, 64))
    assert 0.5 < w.square().mean().item() < 2


def test_activations_at_the_start_have_unit_scale_at_every_resolution() -> None:
    generator = sg.StyleGenerator(sg.StyleGANSettings(), latent=64).train()
    seen = []
    for layer in [generator.start, *(inner for pair in generator.layers for inner in pair)]:
        layer.register_forward_hook(lambda module, given, out: seen.append(out.square().mean().item()))
    generator(torch.randn(8, 64), {})
    assert len(seen) == 9 and all(0.2 < value < 3 for value in seen), seen


def test_bilinear_enlargement_is_the_filter_of_the_paper() -> None:
    x = torch.randn(1, 1, 6, 6)
    zeros = torch.zeros(1, 1, 12, 12)
    zeros[..., ::2, ::2] = x
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    filtered = F.conv2d(F.pad(zeros, (2, 1, 2, 1)), torch.outer(taps, taps)[None, None])
    assert torch.allclose(sg.enlarged(x)[..., 2:-2, 2:-2], filtered[..., 2:-2, 2:-2], atol=1e-6)


def test_an_image_depends_on_its_own_z_alone_noise_included() -> None:
    generator = sg.StyleGenerator(SETTINGS, latent=16).eval()
    for layer in (generator.start, *(inner for pair in generator.layers for inner in pair)):
        torch.nn.init.constant_(layer.strength, 0.5)
    z = torch.randn(6, 16)
    with torch.no_grad():
        together, apart = generator(z, {}), torch.cat([generator(z[:1], {}), generator(z[1:], {})])
        assert torch.allclose(together, apart, atol=1e-5)
        noise = sg.pixel_noise(torch.zeros(6, 3, 8, 8), sg.noise_streams(z))
        assert len(noise.flatten(1).unique(dim=0)) == 6  # no two samples share their noise
        generator.train()
        assert not torch.allclose(generator(z, {}), generator(z, {}), atol=1e-3)


@torch.no_grad()
def test_the_mean_style_follows_the_hand_formula_while_learning() -> None:
    generator, z = sg.StyleGenerator(SETTINGS, latent=16).train(), torch.randn(64, 16)
    before = generator.mean_style.copy_(torch.randn(16)).clone()
    generator(z, {})
    learnt = 0.99 * before + 0.01 * generator.mapping(z).mean(0)
    assert torch.allclose(generator.mean_style, learnt, atol=1e-6)
    generator.eval()(z, {}, truncation=0.5)
    assert torch.allclose(generator.mean_style, learnt, atol=1e-6)


@torch.no_grad()
def test_truncation_leads_to_the_image_of_the_mean_style() -> None:
    generator, z = sg.StyleGenerator(SETTINGS, latent=16).eval(), torch.randn(4, 16)
    mean, w = generator.mean_style.copy_(torch.randn(16)).clone(), generator.mapping(z)
    images = {share: generator(z, {}, truncation=share) for share in (0.0, 0.3, 1.0)}  # the pixel noise has no strength yet
    assert torch.equal(images[1.0], generator(z, {})) and images[1.0].std(0).mean() > 0.01
    for share, image in images.items():
        generator.mapping.forward = lambda z: mean + share * (w - mean)
        assert torch.allclose(image, generator(z, {}), atol=1e-5)
    assert torch.allclose(images[0.0], images[0.0][:1].expand_as(images[0.0]), atol=1e-5)


def test_residual_blocks_halve_the_side_and_the_critic_learns_from_its_batch() -> None:
    block = sg.ResidualBlock(8, 16)
    assert block(torch.randn(2, 8, 16, 16)).shape == (2, 16, 8, 8)
    critic, images = sg.StyleCritic(SETTINGS), torch.randn(4, 1, 32, 32)
    logits = critic(images, {})
    assert logits.shape == (4,) and torch.allclose(critic(images.flip(0), {}), logits.flip(0), atol=1e-6)
    copies = critic(images[:1].expand(4, -1, -1, -1), {})
    assert not torch.isclose(copies[0], logits[0])  # a batch without variety is told from one with it


@torch.no_grad()
def test_a_residual_block_keeps_the_mean_square_of_its_input() -> None:
    """Plain channels of mean square 1, away from the border: a leaky ReLU of slope 0.2 after a gain of √2 makes 1.04 of it, two
    make 1.04², the skip, whose gain is 1, leaves it; and of their sum over √2 it is the mean, 1.04."""
    found = [sg.ResidualBlock(64, 64)(torch.randn(1, 64, 1, 1).expand(-1, -1, 16, 16))[..., 2:-2, 2:-2].square().mean()
             for _ in range(40)]
    assert torch.stack(found).mean() == pytest.approx((1.04**2 + 1) / 2, rel=0.1)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ParameterError, match="mapping"):
        sg.StyleGANSettings(mapping=0)
    with pytest.raises(ParameterError, match="32²"):
        sg.StyleCritic(SETTINGS)(torch.randn(2, 1, 64, 64), {})
