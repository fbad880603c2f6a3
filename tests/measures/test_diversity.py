"""MS-SSIM of pairs: closed forms for plain and striped images, MONAI for any others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics.regression import compute_ssim_and_cs

from cmri_lib.errors import DataError
from cmri_lib.measures.fidelity.diversity import ms_ssim, random_pairs, scale_weights
from conftest import discs

#: Weights of the scales at 32 and at 64 pixels, as Wang et al. print them: those of the first two, and of the first three.
PRINTED = {32: (0.0448, 0.2856), 64: (0.0448, 0.2856, 0.3001)}
#: Constants of SSIM for intensities in [−1, 1]: (0.01 · 2)² and (0.03 · 2)².
LUMINANCE, CONTRAST = 0.0004, 0.0036


def images_of(count: int, size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 1, size, size)).astype(np.float32)


def plain(level: float, size: int) -> np.ndarray:
    return np.full((1, 1, size, size), level, np.float32)


def stripes(amplitude: float, size: int) -> np.ndarray:
    """Columns at ±amplitude in turn: their mean is 0 in every window, and nothing is left of them at half the size."""
    return np.broadcast_to(amplitude * (-1.0) ** np.arange(size), (1, 1, size, size)).astype(np.float32)


def test_scale_weights_are_the_first_of_wangs_and_as_many_as_fit() -> None:
    assert [len(scale_weights(s)) for s in (32, 64, 128, 176)] == [2, 3, 4, 5]
    for size, printed in PRINTED.items():
        assert scale_weights(size) == pytest.approx([weight / sum(printed) for weight in printed], rel=1e-12)
    with pytest.raises(DataError, match="smaller than the window"):
        scale_weights(8)


@pytest.mark.parametrize("size", PRINTED)
def test_plain_images_differ_in_luminance_which_the_coarsest_scale_alone_weighs(size: int) -> None:
    luminance = (2 * 0.2 * 0.6 + LUMINANCE) / (0.2**2 + 0.6**2 + LUMINANCE)
    expected = luminance ** (PRINTED[size][-1] / sum(PRINTED[size]))
    assert ms_ssim(plain(0.2, size), plain(0.6, size)).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", PRINTED)
def test_stripes_of_a_pixel_differ_in_contrast_at_the_finest_scale_alone(size: int) -> None:
    contrast = (2 * 0.2 * 0.6 + CONTRAST) / (0.2**2 + 0.6**2 + CONTRAST)
    expected = contrast ** (PRINTED[size][0] / sum(PRINTED[size]))
    assert ms_ssim(stripes(0.2, size), stripes(0.6, size)).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", PRINTED)
def test_any_images_are_as_like_as_monai_finds_them(size: int) -> None:
    """Contrast at every scale but the coarsest, where it is SSIM up to the mirrored border. 20 pairs are more than a batch."""
    first = discs(5, 4, size).images
    second = np.clip(0.7 * first + 0.3 * images_of(20, size, 1), -1, 1).astype(np.float32)
    a, b, expected = torch.from_numpy(first), torch.from_numpy(second), np.ones(20)
    for scale, weight in enumerate(PRINTED[size]):
        coarsest = scale == len(PRINTED[size]) - 1
        sides = [F.pad(x, (5, 5, 5, 5), mode="reflect") if coarsest else x for x in (a, b)]
        ssim, contrast = compute_ssim_and_cs(*sides, 2, (11, 11), (1.5, 1.5), data_range=2.0)
        expected *= (ssim if coarsest else contrast).mean((1, 2, 3)).double().numpy() ** (weight / sum(PRINTED[size]))
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    assert 0.1 < expected.min() < expected.max() < 0.9
    np.testing.assert_allclose(ms_ssim(first, second), expected, rtol=1e-4)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), size=st.sampled_from([32, 48, 64]))
def test_likeness_is_symmetric_one_of_the_same_and_of_one_pair_whatever_lies_beside_it(seed: int, size: int) -> None:
    first, second = discs(3, 1, size, seed).images, discs(3, 1, size, seed + 1).images
    likeness = ms_ssim(first, second)
    assert (likeness < 1).all()
    np.testing.assert_allclose(ms_ssim(second, first), likeness, rtol=1e-5)
    np.testing.assert_allclose(ms_ssim(first, first), 1, atol=1e-5)
    np.testing.assert_allclose(ms_ssim(first[1:2], second[1:2]), likeness[1:2], rtol=1e-5)


def test_likeness_falls_with_noise() -> None:
    clean, noise = discs(6, 2, 64).images, images_of(12, 64, 2)
    likeness = np.stack([ms_ssim(clean, np.clip(clean + strength * noise, -1, 1)) for strength in (0.0, 0.05, 0.1, 0.2, 0.4)])
    assert (np.diff(likeness, axis=0) < 0).all()


def test_opposite_structure_is_likeness_nought_and_no_power_of_a_negative() -> None:
    some = discs(2, 1, 32).images
    np.testing.assert_array_equal(ms_ssim(some, -some), 0)


def test_pairs_are_of_different_patients_and_distinct() -> None:
    patients = np.repeat(["a", "b", "c"], [4, 3, 2])
    first, second = random_pairs(patients, 1000)
    assert len(first) == 4 * 3 + 4 * 2 + 3 * 2 == len(set(zip(first, second)))
    assert (patients[first] != patients[second]).all()


def test_fewer_pairs_than_there_are_come_from_all_patients_alike() -> None:
    """Of 20 patients with five slices each, every one is as likely in a pair: a draw from the front would have the first."""
    first, second = random_pairs(np.repeat(np.arange(20), 5), 1000, seed=3)
    counts = np.bincount(np.concatenate([first, second]) // 5, minlength=20)
    assert len(first) == 1000 == len(set(zip(first, second)))
    # 2000 places of 20 patients: 100 each, with the deviation of a binomial count, about 10.
    assert counts.min() > 60 and counts.max() < 140
