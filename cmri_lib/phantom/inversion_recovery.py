"""Inversion recovery with a balanced SSFP read-out: what an image weighs T1 with, and how T1 is found again.

After an inversion pulse the signal of a continuous bSSFP read-out recovers mono-exponentially towards its steady state,
which is the contrast of a cine (Schmitt et al., "Inversion recovery TrueFISP", Magn Reson Med 51:661, 2004). The
read-out itself speeds the recovery up: the apparent time T1* is shorter than T1. MOLLI samples such a curve over
several heartbeats (Messroghli et al., Magn Reson Med 52:141, 2004).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cmri_lib.errors import ParameterError


def apparent_recovery(t1: ArrayLike, t2: ArrayLike, flip: float) -> tuple[np.ndarray, np.ndarray]:
    """(T1* in ms, B/A): the recovery S(TI) = A − B exp(−TI/T1*) of a bSSFP read-out after inversion.

    With half the flip angle a = α/2, Schmitt et al. 2004: 1/T1* = cos²a / T1 + sin²a / T2. The first echo after the preparing
    pulse of α/2 has the signal −M0 sin a, the steady state A = M0 sin α / [(T1/T2 + 1) − (T1/T2 − 1) cos α]. So
    B/A = 1 + (cos²a + (T1/T2) sin²a) / cos a. On resonance, for TR much shorter than T2.

    Args:
        t1, t2: ms, of one shape. flip: α in degrees.

    Raises:
        ParameterError: if a time is not positive or the flip angle not within 0–180 degrees.
    """
    t1, t2 = np.asarray(t1, float), np.asarray(t2, float)
    if (t1 <= 0).any() or (t2 <= 0).any() or not 0 < flip < 180:
        raise ParameterError(f"flip {flip}°, or a T1 or T2 is out of range", field="inversion recovery",
                             remedy="give positive times in ms and a flip angle between 0 and 180 degrees")
    half = np.radians(flip) / 2
    speed = np.cos(half) ** 2 + t1 / t2 * np.sin(half) ** 2  # T1 / T1*
    return t1 / speed, 1 + speed / np.cos(half)


def recovery(t1: ArrayLike, t2: ArrayLike, flip: float, inversion_time: float) -> np.ndarray:
    """Phase-sensitive signal at `inversion_time` (ms) in units of the steady state: 1 − (B/A) exp(−TI/T1*), negative until the
    null at TI = T1* ln(B/A), 1 for TI → ∞. Its magnitude is what a scanner stores.

    Raises:
        ParameterError: as `apparent_recovery`, and on a negative inversion time.
    """
    if inversion_time < 0:
        raise ParameterError(f"{inversion_time} ms", field="inversion_time", remedy="give a time of 0 or more")
    time, ratio = apparent_recovery(t1, t2, flip)
    return 1 - ratio * np.exp(-inversion_time / time)


def null_time(t1: ArrayLike, t2: ArrayLike, flip: float) -> np.ndarray:
    """Inversion time in ms at which a tissue has no signal: T1* ln(B/A)."""
    time, ratio = apparent_recovery(t1, t2, flip)
    return time * np.log(ratio)


def true_t1(apparent: ArrayLike, ratio: ArrayLike, flip: float) -> np.ndarray:
    """T1 in ms from T1* (ms) and B/A: T1 = T1* (B/A − 1) cos(α/2),
    the Look-Locker correction for bSSFP (Schmitt et al. 2004)."""
    return np.asarray(apparent) * (np.asarray(ratio) - 1) * np.cos(np.radians(flip) / 2)
