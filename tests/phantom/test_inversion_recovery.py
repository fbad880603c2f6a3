"""Inversion recovery: closed forms, the Bloch equations step by step, and series of one virtual patient."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from cmri_lib.errors import ParameterError
from cmri_lib.phantom.cohort import virtual_patient
from cmri_lib.phantom.heartbeat import beating, heart_at, motion_signal
from cmri_lib.phantom.inversion_recovery import apparent_recovery, null_time, recovery, true_t1
from cmri_lib.phantom.scanner import InversionSeries, bssfp_signal, inversion_series

TISSUES = [(1030, 48), (1440, 260), (300, 80)]
OPTIONS = {"size": 32, "field_of_view": 160, "flip": 35}


@pytest.mark.parametrize(("t1", "t2"), TISSUES)
def test_a_tissue_is_black_at_its_null_and_recovers_to_the_steady_state(t1: float, t2: float) -> None:
    time, ratio = apparent_recovery(t1, t2, 35)
    null = null_time(t1, t2, 35)
    assert null == pytest.approx(time * np.log(ratio)) and time < t1
    assert recovery(t1, t2, 35, float(null)) == pytest.approx(0, abs=1e-12)
    assert recovery(t1, t2, 35, 1e6) == pytest.approx(1)
    signal = [float(recovery(t1, t2, 35, ti)) for ti in np.linspace(0, 5000, 50)]
    assert (np.diff(signal) > 0).all() and signal[0] == pytest.approx(1 - ratio)


def test_a_small_flip_angle_leaves_plain_inversion_recovery() -> None:
    time, ratio = apparent_recovery(1000.0, 50.0, 0.01)
    assert time == pytest.approx(1000, rel=1e-4) and ratio == pytest.approx(2, rel=1e-4)  # 1 − 2 exp(−TI/T1)


@pytest.mark.parametrize("flip", [20, 35, 60])
def test_t1_follows_from_the_apparent_recovery(flip: float) -> None:
    t1, t2 = np.array(TISSUES, float).T
    np.testing.assert_allclose(true_t1(*apparent_recovery(t1, t2, flip), flip), t1)


@pytest.mark.parametrize(("t1", "t2"), TISSUES)
def test_recovery_agrees_with_the_bloch_equations(t1: float, t2: float) -> None:
    """Inversion, a pulse of −α/2, then pulses of alternating phase: magnetisation step by step, in the y–z plane."""
    flip, tr = np.radians(35), 0.5  # ms; the closed form is for a short TR
    decay = np.diag(np.exp([-tr / t2, -tr / t1]))
    transverse, longitudinal = -np.sin(flip / 2), -np.cos(flip / 2)
    found = {}
    for k in range(int(6000 / tr)):
        if k * tr in (100, 400, 1000, 5999):
            found[k * tr] = transverse
        y, z = decay @ (transverse, longitudinal) + (0, 1 - np.exp(-tr / t1))
        # in the frame of the alternating pulse: turned half way round, then by α
        y = -y
        transverse, longitudinal = y * np.cos(flip) + z * np.sin(flip), -y * np.sin(flip) + z * np.cos(flip)
    steady = abs(bssfp_signal(t1, t2, 1.0, 35, tr)) * np.exp(tr / 2 / t2)
    for time, signal in found.items():
        assert signal / steady == pytest.approx(float(recovery(t1, t2, 35, time)), abs=0.02)


def test_the_steady_state_is_that_of_the_cine() -> None:
    t1, t2 = np.array(TISSUES, float).T
    first = np.sin(np.radians(35 / 2))  # of the first echo, in units of M0
    _, ratio = apparent_recovery(t1, t2, 35)
    np.testing.assert_allclose(first / (ratio - 1), np.abs(bssfp_signal(t1, t2, 1.0, 35, 0.05)), rtol=2e-3)


@pytest.mark.parametrize("call", [
    lambda: apparent_recovery(0.0, 50.0, 35), lambda: apparent_recovery(1000.0, 50.0, 180),
    lambda: recovery(1000.0, 50.0, 35, -1),
    lambda: heart_at(patient(), 1.1), lambda: motion_signal(0.5, systole=1.0),
    lambda: inversion_series(patient(), "A", 1, [0.0, 0.0], [100], **OPTIONS),
    lambda: inversion_series(patient(), "A", 1, [0.0], [], **OPTIONS)])
def test_bad_arguments_are_refused(call) -> None:
    with pytest.raises(ParameterError, match="Remedy"):
        call()


@cache
def patient():
    return virtual_patient(5, 1)


@cache
def series() -> InversionSeries:
    return inversion_series(patient(), "A", 5, [0.0, 0.5, 1.0], [500.0, 1e5], **OPTIONS)


def test_between_ed_and_es_the_myocardium_keeps_its_volume() -> None:
    ed, es = patient().phases["ED"], patient().phases["ES"]
    hearts = [heart_at(patient(), m) for m in (0.0, 0.3, 0.7, 1.0)]
    for end, stored in ((hearts[0], ed), (hearts[-1], es)):
        for surface in ("endo", "epi", "rv"):
            np.testing.assert_allclose(getattr(end, surface), getattr(stored, surface), atol=1e-3)
        assert (end.base, end.contraction) == pytest.approx((stored.base, stored.contraction))
    assert [h.myocardial_volume for h in hearts] == pytest.approx([ed.myocardial_volume] * 4, rel=1e-6)
    assert (np.diff([h.lv_volume for h in hearts]) < 0).all()
    assert hearts[1].rv_volume == pytest.approx(0.7 * ed.rv_volume + 0.3 * es.rv_volume, rel=1e-5)
    assert set(beating(patient(), [0.25]).phases) == {"ED", "ES", "0.25"}


def test_the_motion_signal_is_smooth_and_periodic() -> None:
    time = np.linspace(0, 2, 2001)
    signal = motion_signal(time, 0.35)
    assert motion_signal(0.0) == 0 and motion_signal(0.35) == pytest.approx(1) and 0 <= signal.min() <= signal.max() <= 1
    np.testing.assert_allclose(signal[:1000], signal[1000:2000], atol=1e-12)
    slope = np.gradient(signal, time)
    assert abs(slope[[0, 350, 1000]]).max() < 0.05 and abs(np.diff(slope)).max() < 0.05  # at rest at both ends, without a kink


def test_a_series_shows_the_recovery_of_what_the_patient_is_made_of() -> None:
    made = series()
    assert made.images.shape == (3, 2, 32, 32) and made.t1.shape == made.masks.shape == (3, 32, 32)
    again = inversion_series(patient(), "A", 5, [0.0, 0.5, 1.0], [500.0, 1e5], **OPTIONS)
    assert np.array_equal(made.images, again.images)
    areas = (made.masks == 1).sum((1, 2))
    assert (np.diff(areas) < 0).all()
    blood, muscle = ((made.masks[0] == k) & np.isfinite(made.t1[0]) for k in (1, 2))
    assert made.images[0, 1][blood].mean() == pytest.approx(1, abs=0.25)  # in units of its own, inflow and coils apart
    t1 = float(np.median(made.t1[0][muscle]))
    assert t1 == pytest.approx(1030, rel=0.2) and len(np.unique(made.t1[0][blood])) <= 2  # blood, and muscle that stands in it
    assert made.images[0, 0][muscle].mean() < 0.4 * made.images[0, 1][muscle].mean()  # 500 ms: near the null of muscle
