"""Coherence along the axis: closed forms of cones and steps, rules one by one, and controls on either side of real stacks."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import discs

from cmri_lib.cohort.slices import Slices
from cmri_lib.cohort.stacks import mixed, resampled
from cmri_lib.errors import DataError
from cmri_lib.measures.anatomy.coherence import (ALIKE, OF_IMAGES, RULES, coherence, coherence_of_masks, likeness,
                                                 roughness, rules)
from cmri_lib.measures.anatomy.validity import DRAWN, READ

LEVELS = np.array(["apical", "apical", "mid", "mid", "basal", "basal"])


def cone(radii=(2, 3, 4, 5, 6, 7), side: int = 32, shift: int = 0) -> np.ndarray:
    """(D, H, W): a cavity of these radii in a closed wall, moved by `shift` pixels from plane to plane."""
    y, x = np.mgrid[:side, :side]
    mask = np.zeros((len(radii), side, side), np.uint8)
    for k, radius in enumerate(radii):
        r = np.hypot(y - side // 2, x - side // 2 - shift * (k - len(radii) // 2))
        mask[k][r < radius + 3] = 2
        mask[k][r < radius] = 1
    return mask


def test_roughness_is_the_closed_form_of_second_differences() -> None:
    assert roughness(np.array([0, 10, 20, 30])) == 0  # a straight course
    assert roughness(np.array([0, 10, 0, 10, 0])) == pytest.approx(200)  # |0 − 2·10 + 0| of 10
    assert roughness(np.array([0, 0, 8, 0, 0])) == pytest.approx(100 * (8 + 16 + 8) / 3 / 8)
    assert np.isnan(roughness(np.zeros(5))) and np.isnan(roughness(np.array([3, 4])))
    areas = np.array([4.0, 9.0, 2.0, 6.0])
    assert roughness(7 * areas) == pytest.approx(roughness(areas)) == pytest.approx(roughness(areas[::-1]))


def test_likeness_of_planes_is_the_closed_form() -> None:
    mask = cone(shift=2)
    image = np.where(mask == 1, 0.5, -0.5)
    image[1::2] += 0.25 * (mask[1::2] == 1)  # every second plane has brighter blood
    found = likeness(image, mask, 1.5)
    assert found["blood_step"] == pytest.approx(0.25) and found["drift_mm"] == pytest.approx(2 * 1.5)
    plane = np.random.default_rng(0).standard_normal((32, 32))
    same = likeness(np.stack([plane, 2 * plane + 1, plane]), cone((3, 3, 3)), 1.0)
    assert same["correlation"] == pytest.approx(1) and same["roughness_LV"] == 0 and same["drift_mm"] == 0
    assert likeness(np.stack([plane, -plane]), cone((3, 3)), 1.0)["correlation"] == pytest.approx(-1)
    nothing = likeness(np.zeros((3, 32, 32)), np.zeros((3, 32, 32), np.uint8), 1.0)
    assert all(np.isnan(value) for value in nothing.values())


def test_each_rule_is_broken_alone() -> None:
    whole = cone()
    assert set(rules(whole, LEVELS, DRAWN).values()) == {1.0}
    assert set(rules(np.zeros_like(whole), LEVELS, DRAWN).values()) == {0.0}
    gap = whole.copy()
    gap[2] = 0  # a plane without a heart parts the cavity
    open_wall = whole.copy()
    open_wall[2][:, :14][open_wall[2][:, :14] == 2] = 0
    widening = cone((6, 3, 4, 5, 6, 7))
    for broken, rule in ((gap, "one_cavity"), (open_wall, "closed"), (widening, "tapering")):
        found = rules(broken, LEVELS, DRAWN)
        assert [name for name in RULES if not found[name]] == [rule, "whole"], rule
    at_the_base = whole.copy()
    at_the_base[5][:, :14][at_the_base[5][:, :14] == 2] = 0
    assert rules(at_the_base, LEVELS, DRAWN)["whole"] == 1  # there the wall opens towards the valves
    speck = whole.copy()
    speck[3, 1, 1:4] = 1  # three voxels far away, without a wall: a segmenter may leave such, a drawn mask not
    assert rules(speck, LEVELS, DRAWN)["one_cavity"] == 0 and rules(speck, LEVELS, READ)["one_cavity"] == 1


def tapered(patients: int, seed: int = 0) -> Slices:
    """Discs on one axis per patient, with a brightness of the patient's own: stacks that are coherent."""
    base, rng = discs(patients, 6, seed=seed, split="test").with_columns(phase="ED"), np.random.default_rng(seed)
    masks, images = [], []
    for _ in range(patients):
        mask = cone(rng.uniform(0.7, 1.2) * np.arange(3.0, 9.0))
        shift = rng.integers(-4, 5, 2)
        mask = np.roll(mask, shift, (1, 2))
        masks.append(mask)
        images.append(np.where(mask == 1, rng.uniform(0, 0.9), -0.5) + 0.05 * rng.standard_normal(mask.shape))
    return Slices(np.concatenate(images)[:, None].astype(np.float32), np.concatenate(masks), base.table)


def test_controls_lie_on_either_side_of_coherent_stacks() -> None:
    real = resampled(tapered(8), 6)
    found = coherence(real, real.masks, 6)
    strangers = mixed(real, 6, 1)
    apart = coherence(strangers, strangers.masks, 6)
    mean, other = found[list(ALIKE)].mean(), apart[list(ALIKE)].mean()
    assert found["whole"].mean() == 1 and apart["whole"].mean() < 1
    assert other["correlation"] < mean["correlation"] - 0.1
    assert all(other[name] > 1.5 * mean[name] for name in ALIKE[1:])
    assert list(found["patient"]) == list(real.patients[::6]) and len(found) == 8
    own = coherence_of_masks(real, 6)
    assert not set(OF_IMAGES) & set(own) and own["drift_mm"].equals(found["drift_mm"])


def test_labels_of_other_slices_are_refused() -> None:
    real = resampled(tapered(2), 6)
    with pytest.raises(DataError, match="label maps"):
        coherence(real, real.masks[:6], 6)
    with pytest.raises(DataError, match="not stacks"):
        coherence(real.take(np.arange(11)), real.masks[:11], 6)
    with pytest.raises(DataError, match="spacing"):
        coherence(real.with_columns(spacing=np.nan), real.masks, 6)
