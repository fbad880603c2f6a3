"""Augmentation inside the objective: identity when off, gradients exact, what it does in expectation, ADA's control."""

from __future__ import annotations

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


def test_ada_augments_more_while_the_critic_recognises_real_images() -> None:
    augment = da.AdaptiveAugment(TRANSFORMS, target=0.6, images=400)
    path = []
    for _ in range(100):
        augment.update(torch.full((8,), 3.0))  # r_t = 1: every real image recognised
        path.append(augment.p.item())
    assert path[0] > 0 and path == sorted(path) and path[-1] == pytest.approx(augment.limit)
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
