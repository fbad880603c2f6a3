"""T1 found again, and the cavity without a mask."""

from __future__ import annotations

import numpy as np
import pytest

from cmri_lib.errors import DataError
from cmri_lib.measures.cavity import cavity_area
from cmri_lib.measures.relaxometry import fit_t1
from cmri_lib.phantom.inversion_recovery import recovery

TIMES = [100.0, 200.0, 350.0, 550.0, 800.0, 1200.0, 2400.0, 6000.0]


def recovering(t1: np.ndarray, t2: np.ndarray, times: list[float] = TIMES) -> np.ndarray:
    return np.abs(np.stack([recovery(t1, t2, 35, ti) for ti in times]))


def test_t1_is_fitted_back_from_magnitudes_without_noise() -> None:
    t1, t2 = np.array([[270.0, 600, 1030], [1200, 1440, 1930]]), np.array([[85.0, 50, 48], [60, 260, 210]])
    np.testing.assert_allclose(fit_t1(0.7 * recovering(t1, t2), TIMES, 35), t1, rtol=0.01)


def test_noise_costs_little_and_the_scale_nothing() -> None:
    rng = np.random.default_rng(0)
    clean = recovering(np.full(400, 1030.0), np.full(400, 48.0))
    noisy = np.hypot(clean + rng.normal(0, 0.01, clean.shape), rng.normal(0, 0.01, clean.shape))
    fitted = fit_t1(noisy, TIMES, 35)
    assert np.median(fitted) == pytest.approx(1030, rel=0.03) and np.isfinite(fitted).all()
    np.testing.assert_allclose(fit_t1(100 * noisy, TIMES, 35), fitted, rtol=1e-9)


def test_where_nothing_recovers_there_is_no_t1() -> None:
    values = np.zeros((len(TIMES), 3))
    values[:, 1], values[:, 2] = np.nan, recovering(np.array(1030.0), np.array(48.0))
    assert np.isnan(fit_t1(values, TIMES, 35)).tolist() == [True, True, False]


@pytest.mark.parametrize("times", [TIMES[:3], TIMES[::-1], TIMES[:7]])
def test_times_that_cannot_be_fitted_are_refused(times: list[float]) -> None:
    with pytest.raises(DataError, match="four rising times"):
        fit_t1(np.ones((3 if len(times) == 3 else 8, 4)), times, 35)


@pytest.mark.parametrize("radius", [12.0, 20.0, 28.0])
def test_the_cavity_of_a_ring_is_its_disc(radius: float) -> None:
    y, x = np.mgrid[:64, :64] * 2.5 - 31.5 * 2.5
    r = np.hypot(y, x)
    image = np.where(r < radius, 1.0, np.where(r < radius + 9, 0.2, 0.5))
    image[np.hypot(y - radius / 2, x) < 4] = 0.2  # a papillary muscle
    image[np.hypot(y, x + radius + 25) < 15] = 1.1  # another ventricle
    assert cavity_area(image, 2.5) == pytest.approx(np.pi * radius**2 / 100, rel=0.1)
    assert cavity_area(3 * image - 1, 2.5) == cavity_area(image, 2.5)


def test_without_contrast_there_is_no_cavity() -> None:
    assert cavity_area(np.full((32, 32), 0.4), 5.0) == 0
