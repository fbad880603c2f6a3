"""What augmentation does to images and masks, and how far it may go."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from cmri_lib.training import Augment


def test_augmentation_moves_image_and_mask_together() -> None:
    mask = torch.zeros(8, 32, 32, dtype=torch.uint8)
    mask[:, 8:20, 10:24] = 2
    image = torch.where(mask > 0, 0.8, -0.8)[:, None]
    out = Augment(gamma=0, contrast=0, noise=0)({"image": image, "mask": mask})
    inside = (out["image"][:, 0] > 0) == (out["mask"] > 0)
    assert inside.float().mean() > 0.98 and not torch.equal(out["mask"], mask)
    assert out["mask"].dtype == torch.uint8 and set(out["mask"].unique().tolist()) <= {0, 2}


def test_maps_are_uniform_up_to_their_limits() -> None:
    """Rotation times stretches: columns at right angles, whose lengths are the stretches."""
    maps = Augment(rotation=20.0, scale=0.2, shift=0.1)._affine(20_000, torch.zeros(()))
    across, down, moved = maps.unbind(-1)
    assert (across * down).sum(1).abs().max() < 1e-6 and torch.linalg.det(maps[:, :, :2]).min() > 0
    wide, high = across.norm(dim=1), down.norm(dim=1)
    angle, size = torch.rad2deg(torch.atan2(across[:, 1], across[:, 0])), (wide + high) / 2 - 1
    for found, limit in ((angle, 20), (size, 0.2), (wide - high, 0.2), (moved[:, 0] / 2, 0.1), (moved[:, 1] / 2, 0.1)):
        assert found.min().item() == pytest.approx(-limit, rel=0.02) and found.max().item() == pytest.approx(limit, rel=0.02)
        assert found.abs().max() <= limit * (1 + 1e-5) and found.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.02)


def test_intensities_are_uniform_up_to_their_limits() -> None:
    still = Augment(rotation=0, scale=0, shift=0, gamma=0, contrast=0, noise=0)
    halves = torch.cat([torch.full((4000, 1, 4, 2), -0.5), torch.full((4000, 1, 4, 2), 0.5)], -1)
    assert torch.allclose(still({"image": halves})["image"], halves, atol=1e-6)
    bent = (replace(still, gamma=0.4)({"image": 0 * halves})["image"][:, 0, 0, 0] + 1) / 2  # 1/2 to the power exp(γ)
    changed = replace(still, contrast=0.2)({"image": halves})["image"][:, 0, 0]
    low, high = changed[:, 0], changed[:, -1]
    for found, limit in ((torch.log(-torch.log2(bent)), 0.4), (high - low - 1, 0.2), ((high + low) / 2, 0.2)):
        assert found.min().item() == pytest.approx(-limit, rel=0.02) and found.max().item() == pytest.approx(limit, rel=0.02)
        assert found.abs().max() <= limit * (1 + 1e-5)
    noise = replace(still, noise=0.1)({"image": torch.zeros(300, 1, 64, 64)})["image"].std((1, 2, 3))
    assert noise.min() < 0.002 and 0.098 < noise.max() < 0.104  # a deviation of 4096 numbers is known to 1 %
    assert noise.mean().item() == pytest.approx(0.05, rel=0.1)
