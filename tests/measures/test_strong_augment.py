"""The strong augmentation: neutral limits, closed forms of zoom, rotation and blur, one geometry for image and mask."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import discs
from scipy import ndimage
from torch import Tensor

from cmri_lib.measures.utility.augmentation import StrongAugment, blur

#: Every transform is drawn, and changes nothing.
NEUTRAL = StrongAugment(rotation=0.0, zoom=(1.0, 1.0), elastic=0.0, shift=0.0, noise=0.0, blur=(0.01, 0.01),
                        brightness=(1.0, 1.0), contrast=(1.0, 1.0), resolution=(1.0, 1.0), gamma=(1.0, 1.0),
                        bias=0.0, likely=10.0)


@pytest.fixture
def batch() -> dict[str, Tensor]:
    some = discs(8, 2, size=64)
    return {"image": torch.from_numpy(some.images), "mask": torch.from_numpy(some.masks), "other": torch.arange(16)}


def jacobian(grid: Tensor) -> Tensor:
    """Determinants of the map, in units of the identity's, by differences (B, H − 1, W − 1)."""
    across, down = (grid[:, :-1, 1:] - grid[:, :-1, :-1]), (grid[:, 1:, :-1] - grid[:, :-1, :-1])
    return (across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]) * (grid.shape[1] / 2) ** 2


@pytest.mark.parametrize("augment", [NEUTRAL, StrongAugment(likely=0.0)])
def test_neutral_limits_and_no_chance_leave_the_batch_as_it_is(augment: StrongAugment, batch: dict[str, Tensor]) -> None:
    out = augment(batch)
    assert torch.allclose(out["image"], batch["image"], atol=2e-5)
    assert torch.equal(out["mask"], batch["mask"]) and out["mask"].dtype == torch.uint8 and out["other"] is batch["other"]


def test_a_zoom_scales_areas_by_its_square(batch: dict[str, Tensor]) -> None:
    out = replace(NEUTRAL, zoom=(1.25, 1.25))(batch)["mask"]
    ratio = (out == 1).sum((1, 2)) / (batch["mask"] == 1).sum((1, 2))  # the LV stays inside the image
    assert ratio.numpy() == pytest.approx(np.full(16, 1.25**2), rel=0.05)


def test_angles_are_uniform_up_to_the_limit() -> None:
    grid = replace(NEUTRAL, rotation=40.0).grid(torch.zeros(2000, 1, 8, 8))
    step = grid[:, 0, 1] - grid[:, 0, 0]
    angle = torch.rad2deg(torch.atan2(step[:, 1], step[:, 0]))
    assert angle.abs().max() <= 40.01 and angle.std() == pytest.approx(40 / math.sqrt(3), rel=0.05)


def test_image_and_mask_move_together(batch: dict[str, Tensor]) -> None:
    batch["image"] = (batch["mask"][:, None] > 0).float() * 2 - 1
    out = replace(NEUTRAL, rotation=30.0, zoom=(0.7, 1.4), elastic=0.03, shift=0.05)(batch)
    seen, wanted = out["image"][:, 0] > 0, out["mask"] > 0
    dice = 2 * (seen & wanted).sum((1, 2)) / (seen.sum((1, 2)) + wanted.sum((1, 2)))
    assert dice.min() > 0.97 and not torch.equal(out["mask"], batch["mask"])


def test_no_fold_and_no_mirror_image_unless_asked_for() -> None:
    images = torch.zeros(500, 1, 32, 32)
    assert jacobian(StrongAugment(likely=5.0).grid(images)).min() > 0
    turned = (jacobian(StrongAugment(mirror=True, elastic=0.0).grid(images)) < 0).float().mean((1, 2))
    assert set(turned.tolist()) == {0.0, 1.0} and turned.mean() == pytest.approx(0.5, abs=0.1), "one of two axes, not both"


def test_blur_is_that_of_scipy_with_a_width_for_each_image() -> None:
    images, sigma = torch.randn(3, 1, 24, 24), torch.tensor([0.5, 1.0, 2.0])
    found = blur(images, sigma.reshape(3, 1, 1, 1))
    for image, out, width in zip(images, found, sigma.tolist()):
        wanted = ndimage.gaussian_filter(image[0].numpy(), width, mode="nearest", radius=6)
        assert out[0].numpy() == pytest.approx(wanted, abs=1e-5)


def test_intensities_do_what_they_say() -> None:
    images = 0.5 * torch.rand(400, 1, 16, 16) - 0.25
    contrasted = replace(NEUTRAL, contrast=(0.5, 0.5)).intensity(images)
    assert torch.allclose(contrasted.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-4)
    assert torch.allclose(contrasted.std((1, 2, 3)), 0.5 * images.std((1, 2, 3)), rtol=1e-3)
    noise = (replace(NEUTRAL, noise=0.1).intensity(images) - images).std((1, 2, 3))
    assert noise.max() < 0.12 and noise.mean() == pytest.approx(0.05, rel=0.1)
    shading = replace(NEUTRAL, bias=0.1).intensity(torch.zeros(400, 1, 16, 16))  # 1/2 on [0, 1]
    assert torch.log((shading + 1)[:, :, 0, 0]).std() == pytest.approx(0.1, rel=0.1)
    # Squared, then the distance to 1 squared, in this order or not.
    gamma = replace(NEUTRAL, gamma=(2.0, 2.0)).intensity(images)
    unit = (images + 1) / 2
    assert torch.allclose((gamma + 1) / 2, (1 - (1 - unit) ** 2) ** 2, atol=1e-5)


def test_what_is_drawn_reaches_its_limits_and_never_passes_them() -> None:
    one, edge = torch.zeros(2000, 1, 2, 2), torch.tensor([-0.5, 0.5]).expand(2000, 1, 1, 2)
    grid = replace(NEUTRAL, rotation=40.0, zoom=(0.5, 1.6), shift=0.1).grid(one)
    across, moved = grid[:, 0, 1] - grid[:, 0, 0], grid.mean((1, 2)) / 2  # of two pixels: its length is 1 without a zoom
    bright = replace(NEUTRAL, brightness=(0.6, 1.8)).intensity(one - 0.5)  # 1/4 on [0, 1]
    contrasted = replace(NEUTRAL, contrast=(0.5, 1.5)).intensity(edge)
    bent = replace(NEUTRAL, gamma=(0.5, 2.0))._gamma(one)  # 1/2 on [0, 1]
    drawn = [(torch.rad2deg(torch.atan2(across[:, 1], across[:, 0])), -40, 40), (1 / across.norm(dim=1), 0.5, 1.6),
             (moved[:, 0], -0.1, 0.1), (moved[:, 1], -0.1, 0.1), ((bright + 1) * 2, 0.6, 1.8),
             (contrasted[..., 1] - contrasted[..., 0], 0.5, 1.5), (-torch.log2((bent + 1) / 2), 0.5, 2.0)]
    for found, low, high in drawn:
        assert low - 1e-4 <= found.min() < low + 0.02 * abs(low) and 0.98 * high < found.max() <= high + 1e-4
    noise = replace(NEUTRAL, noise=0.1).intensity(torch.zeros(300, 1, 64, 64)).std((1, 2, 3))
    assert noise.min() < 0.002 and 0.098 < noise.max() < 0.104  # a deviation of 4096 numbers is known to 1 %


def test_transforms_are_drawn_with_their_probability() -> None:
    image = torch.rand(4000, 1, 8, 8) - 0.5
    changed = (replace(NEUTRAL, contrast=(0.5, 0.5), likely=1.0).intensity(image) - image).abs().amax((1, 2, 3)) > 1e-3
    assert changed.float().mean() == pytest.approx(0.15, abs=0.02)


def test_batches_depend_on_the_global_seed_alone_and_stay_in_range(batch: dict[str, Tensor]) -> None:
    for likely in (1.0, 10.0):
        augment, outs = StrongAugment(mirror=True, likely=likely), []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            outs.append(augment(batch))
        assert all(torch.equal(outs[0][name], outs[1][name]) for name in ("image", "mask"))
        assert not torch.equal(outs[0]["image"], outs[2]["image"])
        assert outs[0]["image"].abs().max() <= 1 and outs[0]["mask"].max() <= 3
