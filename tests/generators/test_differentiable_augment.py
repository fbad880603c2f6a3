"""Augmentation inside the objective: identity when off, gradients exact, what it does in expectation, ADA's control."""

from __future__ import annotations

import math

import pytest
import torch

from cmri_lib.errors import ParameterError
from cmri_lib.generators import differentiable_augment as da

TRANSFORMS = (da.shift, da.stretch, da.brightness, da.contrast, da.noise, da.cutout)


def seeded(transform, images: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(7)
    return transform(images)


def test_nothing_happens_when_off_or_not_yet_needed() -> None:
    images = torch.randn(8, 1, 16, 16)
    for kind in ("none", "ada"):
        assert torch.equal(da.make_augment(kind)(images), images)
    assert not torch.isclose(da.make_augment("diffaug")(images), images).all((1, 2, 3)).any()
    with pytest.raises(ParameterError, match="augment"):
        da.make_augment("flips")


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: t.__name__)
def test_gradients_are_those_of_finite_differences(transform) -> None:
    images = torch.randn(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: seeded(transform, x), images, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: seeded(transform, x).square(), images, fast_mode=True)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: t.__name__)
def test_each_image_is_changed_in_its_own_way(transform) -> None:
    one = torch.randn(1, 1, 16, 16).expand(6, -1, -1, -1)
    changed = seeded(transform, one)
    assert (changed != one).flatten(1).any(1).sum() >= 5  # a shift may be by nothing
    assert changed.flatten(1).unique(dim=0).shape[0] >= 5


def test_warp_by_whole_pixels_moves_and_by_two_doubles() -> None:
    images = torch.randn(1, 1, 8, 8)
    move = torch.tensor([2.0, -1.0]).view(2, 1, 1)  # two rows down, one column left
    moved = da.warp(images, torch.ones(2, 1, 1), move)
    assert torch.allclose(moved[..., 2:, :-1], images[..., :-2, 1:])
    assert torch.allclose(moved[..., :2, 0], images[..., :1, 1].expand(-1, -1, 2))  # the edge goes on
    ramp = torch.arange(9.0).expand(1, 1, 9, 9).contiguous()
    doubled = da.warp(ramp, torch.full((2, 1, 1), 2.0), torch.zeros(2, 1, 1))
    assert torch.allclose(doubled[0, 0, 0], 4 + (torch.arange(9.0) - 4) / 2)


def test_untouched_share_is_that_of_independent_coins() -> None:
    augment = da.Augment((da.brightness, da.contrast, da.noise), p=0.3)
    images = torch.randn(1, 1, 8, 8).expand(4000, -1, -1, -1)
    untouched = (augment(images) == images).flatten(1).all(1).float().mean().item()
    assert untouched == pytest.approx(0.7**3, abs=0.03)  # 4 standard errors


def test_changes_of_brightness_and_noise_cancel_on_average() -> None:
    image = torch.randn(1, 1, 8, 8)
    augment = da.Augment((da.brightness, da.noise), p=1.0)
    mean = augment(image.expand(20_000, -1, -1, -1)).mean(0)
    assert torch.allclose(mean, image[0], atol=0.01)


def spread(values: torch.Tensor) -> float:
    return values.std().item()


def test_intensities_vary_as_they_say() -> None:
    images = torch.cat([torch.full((4000, 1, 8, 4), -0.7), torch.full((4000, 1, 8, 4), 1.3)], -1)
    offset = da.brightness(images) - images
    assert spread(offset[:, 0, 0, 0]) == pytest.approx(0.2, rel=0.05) and offset.std((1, 2, 3)).max() < 1e-5
    stretched = da.contrast(images)
    factor = (stretched[:, 0, 0, -1] - stretched[:, 0, 0, 0]) / 2
    assert spread(factor.log2()) == pytest.approx(0.5, rel=0.05) and factor.log2().mean().abs() < 0.04
    assert torch.allclose(stretched.mean((1, 2, 3)), torch.tensor(0.3), atol=1e-5)
    added = da.noise(torch.zeros(4000, 1, 16, 16)).std((1, 2, 3))
    assert added.square().mean().sqrt().item() == pytest.approx(0.1, rel=0.05)
    assert added.mean().item() == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.05)


def test_shifts_and_stretches_vary_as_they_say() -> None:
    place = torch.arange(24.0)
    images = (100 * place[:, None] + place).expand(4000, 1, 24, 24)
    moved = images[0, 0, 12, 12] - da.shift(images)[:, 0, 12, 12]  # 100 times the rows, and the columns
    offsets, counts = moved.round().unique(return_counts=True)
    assert offsets.tolist() == [100 * row + column for row in range(-3, 4) for column in range(-3, 4)]
    assert counts.min() > 45 and counts.max() < 120  # 82, ± 9
    bent = da.stretch(images)[:, 0]
    factors = torch.stack([100 / (bent[:, 12, 12] - bent[:, 11, 12]), 1 / (bent[:, 12, 12] - bent[:, 12, 11])]).log2()
    assert [spread(factor) for factor in factors] == pytest.approx([0.2, 0.2], rel=0.05)
    assert factors.mean(1).abs().max() < 0.015 and torch.corrcoef(factors)[0, 1].abs() < 0.07
    assert torch.allclose(bent[:, 11:13, 11:13].mean((1, 2)), torch.tensor(101 * 11.5), atol=1e-2)  # about the centre


def test_cutout_takes_a_square_of_half_the_side_wherever_it_lies() -> None:
    gone = (da.cutout(torch.ones(4000, 1, 16, 16)) == 0)[:, 0]
    rows, columns = gone.any(2), gone.any(1)
    assert torch.equal(gone, rows[:, :, None] & columns[:, None, :])
    for side in (rows, columns):  # all 8 are in the image if the centre lies between 3.5 and 12.5 of 16, at the edge 4
        assert side.sum(1).min() == 4 and side.sum(1).max() == 8
        assert (side.sum(1) == 8).float().mean().item() == pytest.approx(9 / 16, abs=0.03)
        assert side.float().mean().item() == pytest.approx(7 / 16, rel=0.02)
    middles = torch.stack([side.float() @ torch.arange(16.0) / side.sum(1) for side in (rows, columns)])
    assert torch.corrcoef(middles)[0, 1].abs() < 0.07


@pytest.mark.parametrize(("logits", "overfitting", "p"), [
    ([9.0, 0.1, 2.0, 1.0], 0.6 + (1 - 0.6) / 16, 0.3 + 4 / 400), ([9.0, -0.1, 2.0, 1.0], 0.6 + (0.5 - 0.6) / 16, 0.3 - 4 / 400),
    ([-1.0, -0.1, -2.0, -9.0], 0.6 + (-1 - 0.6) / 16, 0.3 - 4 / 400)])
def test_ada_moves_by_its_formula(logits: list[float], overfitting: float, p: float) -> None:
    augment = da.AdaptiveAugment(TRANSFORMS, target=0.6, images=400)
    assert augment.overfitting.item() == pytest.approx(0.6)
    augment.p.fill_(0.3)
    augment.update(torch.tensor(logits))
    assert augment.overfitting.item() == pytest.approx(overfitting) and augment.p.item() == pytest.approx(p)


def test_ada_augments_more_while_the_critic_recognises_real_images() -> None:
    augment = da.AdaptiveAugment(TRANSFORMS, target=0.6, images=400)
    path = []
    for _ in range(100):
        augment.update(torch.full((8,), 3.0))  # r_t = 1: every real image recognised
        path.append(augment.p.item())
    assert path[:2] == pytest.approx([8 / 400, 16 / 400]) and path == sorted(path) and path[-1] == pytest.approx(augment.limit)
    for _ in range(200):
        augment.update(torch.tensor([1.0, -1.0] * 4))  # r_t = 0
    assert augment.p == 0
    assert {"p", "overfitting"} <= set(augment.state_dict())  # so a resumed training goes on with them


def test_ada_holds_the_critic_at_the_target() -> None:
    augment = da.AdaptiveAugment(TRANSFORMS, target=0.6, images=2000)
    seen = []
    for _ in range(3000):  # a critic whose r_t falls in proportion to the augmentation: 0.6 at p = 0.4
        recognised = torch.rand(8) < 1 - 0.5 * augment.p
        augment.update(recognised.float() * 2 - 1)
        seen.append(augment.p.item())
    assert sum(seen[1000:]) / 2000 == pytest.approx(0.4, abs=0.05)
