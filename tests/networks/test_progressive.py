"""Progressive growing: equalised learning rate, minibatch deviation, and continuity of the fade-in."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from cmri_lib.errors import ParameterError
from cmri_lib.networks import progressive as pg

SETTINGS = pg.ProgressiveSettings(channels=(16, 16, 8, 8), growing=0.6)  # 4, 8, 16, 32


def networks() -> tuple[pg.ProgressiveGenerator, pg.ProgressiveCritic]:
    return pg.ProgressiveGenerator(SETTINGS, latent=16).train(), pg.ProgressiveCritic(SETTINGS).train()


def at(network: pg.Growing, position: float, *inputs: torch.Tensor) -> torch.Tensor:
    network.position = position
    with torch.no_grad():
        return network(*inputs, {})


def test_equalised_layers_keep_the_variance_whatever_their_size() -> None:
    for inputs in (4, 64):
        x = torch.randn(16, inputs, 16, 16)
        inner = pg.EqualisedConv(inputs, 32, gain=1)(x)[..., 1:-1, 1:-1]  # zeros beyond the edge take variance away
        assert inner.var().item() == pytest.approx(1, rel=0.15)
        dense = pg.EqualisedLinear(inputs, 256, gain=1, rate=0.01)(x[..., 0, 0])
        assert dense.var().item() == pytest.approx(1, rel=0.25)
    # He's gain: a leaky ReLU of slope a keeps (1 + a²) / 2 of the second moment.
    active = pg.activate(pg.EqualisedConv(64, 64)(torch.randn(16, 64, 16, 16)))[..., 1:-1, 1:-1]
    assert active.square().mean().item() == pytest.approx(1 + 0.2**2, rel=0.1)


def test_equalised_rate_is_the_relative_speed_of_learning() -> None:
    """A step of Adam moves every stored weight by the learning rate; what the layer uses moves by `scale` of it."""
    moved = {}
    for rate in (1.0, 0.01):
        layer = pg.EqualisedLinear(64, 64, rate=rate)
        before = (layer.scale * layer.weight).detach().clone()
        optimiser = torch.optim.Adam(layer.parameters(), lr=1e-3)
        layer(torch.randn(8, 64)).sum().backward()
        optimiser.step()
        moved[rate] = (layer.scale * layer.weight - before).abs().mean().item()
    assert moved[0.01] / moved[1.0] == pytest.approx(0.01, rel=1e-2)


def test_up_and_down_are_nearest_neighbour_and_mean() -> None:
    x = torch.randn(2, 3, 8, 8)
    for factor in (1, 2, 4):
        assert torch.allclose(pg.down(x, factor), F.avg_pool2d(x, factor), atol=1e-6)
        assert torch.allclose(pg.down(pg.up(x, factor), factor), x, atol=1e-6)


def test_pixel_norm_makes_unit_mean_squares() -> None:
    assert torch.allclose(pg.pixel_norm(5 * torch.randn(2, 8, 4, 4)).square().mean(1), torch.ones(2, 4, 4), atol=1e-5)


def test_minibatch_deviation_is_that_of_its_group() -> None:
    x = torch.randn(8, 3, 4, 4)
    plane = pg.minibatch_deviation(x)[:, 3]
    for group in (slice(0, 4), slice(4, 8)):
        expected = x[group].numpy().std(0).mean()
        assert torch.allclose(plane[group], torch.full_like(plane[group], float(expected)), atol=1e-5)
    same = pg.minibatch_deviation(x[:1].expand(6, -1, -1, -1))  # 4 does not divide 6: one group
    assert torch.equal(same[:, :3], x[:1].expand(6, -1, -1, -1)) and same[:, 3].max() < 1e-3


def test_growth_is_a_schedule_of_progress_alone() -> None:
    path = [pg.position(k / 1000, 5, 0.4) for k in range(1000)]
    assert path[0] == 1 and path == sorted(path) and max(path) == 4  # 8² at first, 64² at last
    assert all(value == 4 for value in path[400:])
    assert max(b - a for a, b in zip(path, path[1:])) < 0.02  # no jumps
    steady = [sum(value == level for value in path[:400]) for level in (1, 2, 3)]
    assert max(steady) - min(steady) <= 2 and min(steady) >= 400 / 3 / 2 - 1
    assert pg.position(0, 2, 0.4) == 1 and pg.position(0, 5, 0) == 4


@pytest.mark.parametrize("level", [1, 2])
def test_fading_in_starts_at_the_old_network_and_ends_at_the_new(level: int) -> None:
    generator, critic = networks()
    z, images = torch.randn(4, 16), torch.randn(4, 1, 32, 32)
    for network, given in ((generator, z), (critic, images)):
        old, new = at(network, level, given), at(network, level + 1, given)
        assert not torch.allclose(old, new, atol=1e-2)
        assert torch.allclose(at(network, level + 1e-6, given), old, atol=1e-4)
        assert torch.allclose(at(network, level + 1 - 1e-6, given), new, atol=1e-4)
    between = at(generator, level + 0.25, z)
    assert torch.allclose(between, 0.75 * at(generator, level, z) + 0.25 * at(generator, level + 1, z), atol=1e-5)


def test_small_stages_see_and_make_small_images_at_full_size() -> None:
    generator, critic = networks()
    small = at(generator, 1.0, torch.randn(3, 16))
    assert small.shape == (3, 1, 32, 32) and torch.allclose(pg.up(pg.down(small, 4), 4), small, atol=1e-6)
    images = torch.randn(4, 1, 32, 32)
    assert torch.allclose(at(critic, 1.0, images), at(critic, 1.0, pg.up(pg.down(images, 4), 4)), atol=1e-5)


def test_only_what_has_grown_learns() -> None:
    generator, critic = networks()
    for network in (generator, critic):
        network.grow(0.0)
    critic(generator(torch.randn(4, 16), {}), {}).sum().backward()
    assert generator.blocks[0].first.weight.grad is not None and generator.blocks[1].first.weight.grad is None
    assert critic.blocks[0].first.weight.grad is not None and critic.blocks[1].first.weight.grad is None


def test_slope_of_the_small_critic_is_measured_in_full_size_pixels() -> None:
    """A mean over f² pixels has 1/f of the slope, between images that are f times further apart."""
    small = torch.randn(1, 1, 8, 8)
    full = pg.up(small, 4).requires_grad_()
    slope, = torch.autograd.grad((pg.down(full, 4) * torch.ones_like(small)).sum(), full)
    assert slope.norm().item() == pytest.approx(math.sqrt(64) / 4)
    assert full.norm().item() == pytest.approx(4 * small.norm().item(), rel=1e-5)


def test_an_image_depends_on_its_own_z_alone() -> None:
    generator, _ = networks()
    generator.grow(0.0)
    generator.eval()  # has grown, whatever the stage
    z = torch.randn(6, 16)
    with torch.no_grad():
        together, apart = generator(z, {}), torch.cat([generator(z[:2], {}), generator(z[2:], {})])
    assert torch.allclose(together, apart, atol=1e-5)
    assert not torch.equal(pg.up(pg.down(together)), together)


def test_a_critic_refuses_images_of_another_size() -> None:
    with pytest.raises(ParameterError, match="32²"):
        networks()[1](torch.randn(2, 1, 64, 64), {})
    with pytest.raises(ParameterError, match="growing"):
        pg.ProgressiveSettings(growing=1.5)
