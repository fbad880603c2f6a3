"""Noisy labels: the amount is what was asked for, Dice falls as geometry says, and nothing else changes."""

import numpy as np
import pytest
from conftest import discs

from cmri_lib.cohort.label_noise import CORRELATION_LENGTH, displacements, with_label_noise
from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import ParameterError
from cmri_lib.measures.anatomy.adherence import dice


def large_discs(radius: float, n: int = 24, size: int = 160) -> Slices:
    """LV discs of `radius` mm on pixels of 1 mm, the image empty."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    masks = np.repeat((np.hypot(y, x) <= radius).astype(np.uint8)[None], n, axis=0)
    return Slices(np.zeros((n, 1, size, size), np.float32), masks, discs(n, 1).table.assign(spacing=1.0))


def mean_dice(first: Slices, second: Slices) -> float:
    return float(np.mean([dice(a == 1, b == 1) for a, b in zip(first.masks, second.masks)]))


@pytest.mark.parametrize("radius, amount", [(40, 2.0), (40, 4.0), (25, 2.0)])
def test_the_dice_of_a_disc_is_the_closed_form(radius, amount):
    # The outline moves along its normal by a Gaussian of variance amount² / 2, so the area that changes is
    # 2πr · (amount / √2) · √(2 / π), and half of it over the area πr² is what Dice loses.
    clean = large_discs(radius)
    expected = 1 - amount / (np.sqrt(np.pi) * radius)
    assert mean_dice(clean, with_label_noise(clean, amount, seed=0)) == pytest.approx(expected, abs=0.25 * (1 - expected))


def test_dice_falls_with_the_amount_and_nought_is_the_identity():
    clean = discs(10, 4)
    assert with_label_noise(clean, 0, seed=3).masks is clean.masks
    values = [mean_dice(clean, with_label_noise(clean, amount, seed=3)) for amount in (0, 1, 2, 4, 8)]
    assert values[0] == 1 and (np.diff(values) < -0.005).all() and 0.3 < values[-1] < 0.7
    half_a_pixel = with_label_noise(clean, 0.4, seed=3)  # longest move about 3 × 0.4 mm, below 1.5 mm
    np.testing.assert_array_equal(half_a_pixel.masks, clean.masks)


def test_displacements_have_the_length_and_the_correlation_that_are_stated():
    fields = np.stack([displacements((64, 64), 3.0, np.random.default_rng(k)) for k in range(60)])
    np.testing.assert_allclose((fields**2).sum(1).mean((1, 2)), 1)
    lag = round(CORRELATION_LENGTH / 3.0)
    correlation = (fields * np.roll(fields, lag, axis=-1)).mean() / (fields**2).mean()
    assert correlation == pytest.approx(np.exp(-1), abs=0.03)
    assert abs((fields[:, 0] * fields[:, 1]).mean() / (fields**2).mean()) < 0.05, "rows and columns move apart"


def test_a_slice_has_its_own_noise_wherever_it_stands():
    clean = discs(4, 4)
    clean = Slices(clean.images, np.repeat(clean.masks[:1], len(clean), 0), clean.table, np.repeat(clean.masks[:1], 16, 0))
    order = np.random.default_rng(0).permutation(len(clean))
    noisy, shuffled = with_label_noise(clean, 3.0, seed=1), with_label_noise(clean.take(order), 3.0, seed=1)
    np.testing.assert_array_equal(noisy.masks[order], shuffled.masks)
    assert len(np.unique(noisy.masks, axis=0)) == len(clean), "one field per slice"
    assert (noisy.masks != with_label_noise(clean, 3.0, seed=2).masks).any()
    assert noisy.images is clean.images and set(np.unique(noisy.masks)) <= {0, 1, 2, 3}
    np.testing.assert_array_equal(noisy.tissues, noisy.masks, err_msg="tissues bend along")


@pytest.mark.parametrize("amount, seed", [(-1.0, 0), (np.nan, 0), (np.inf, 0), (1.0, -1)])
def test_impossible_amounts_are_refused(amount, seed):
    with pytest.raises(ParameterError, match="amount"):
        with_label_noise(discs(2, 2), amount, seed)
