"""T1 of every pixel from images at several inversion times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cmri_lib.errors import DataError
from cmri_lib.phantom.inversion_recovery import true_t1

#: Apparent T1* in ms that a fit can find, and how many of them are tried, evenly on a logarithmic scale.
SHORTEST, LONGEST, TRIED = 30.0, 4000.0, 160
#: Pixels that are fitted at once.
CHUNK = 4096


def fit_t1(magnitudes: np.ndarray, inversion_times: Sequence[float], flip: float) -> np.ndarray:
    """T1 in ms, (...), from magnitudes (T, ...) of the recovery |A − B exp(−TI/T1*)| of a bSSFP read-out;
    NaN where there is none.

    Least squares in A, B and T1*. Given T1*, A and B are linear, so only T1* is searched, on a grid and between its points by
    a parabola; magnitudes have lost their sign, so the first 0, 1, …, T of them are taken to be negative, and the best fit wins
    (Barral et al., "A robust methodology for in vivo T1 mapping", Magn Reson Med 64:1057, 2010). T1 follows by `true_t1`.

    Args:
        inversion_times: T of them, ms, rising. flip: degrees, of the read-out.

    Raises:
        DataError: if times and magnitudes disagree, the times do not rise, or are fewer than four.
    """
    times = np.asarray(inversion_times, float)
    if len(times) != len(magnitudes) or len(times) < 4 or (np.diff(times) <= 0).any():
        raise DataError(f"{len(magnitudes)} images for inversion times {times.tolist()}", field="inversion_times",
                        remedy="give one image for each of at least four rising times")
    flat = magnitudes.reshape(len(times), -1).astype(float)
    known = np.isfinite(flat).all(0) & (flat > 0).any(0)
    found, places = np.full(flat.shape[1], np.nan), np.flatnonzero(known)
    for start in range(0, len(places), CHUNK):
        some = places[start:start + CHUNK]
        found[some] = _fitted(flat[:, some], times, flip)
    return found.reshape(magnitudes.shape[1:])


def _fitted(values: np.ndarray, times: np.ndarray, flip: float) -> np.ndarray:
    """(N,) T1 of magnitudes (T, N)."""
    grid = np.geomspace(SHORTEST, LONGEST, TRIED)
    designs = np.stack([np.ones((TRIED, len(times))), np.exp(-times / grid[:, None])], axis=2)  # (G, T, 2)
    bases = np.linalg.qr(designs)[0]
    best, errors = np.full(values.shape[1], np.inf), np.empty((TRIED, values.shape[1]))
    signed = values.copy()
    for negative in range(len(times) + 1):
        turned = np.where(np.arange(len(times))[:, None] < negative, -values, values)
        explained = (np.einsum("gtk,tn->gkn", bases, turned) ** 2).sum(1)
        left = (values**2).sum(0) - explained  # (G, N)
        better = left.min(0) < best
        best = np.where(better, left.min(0), best)
        errors[:, better], signed[:, better] = left[:, better], turned[:, better]
    apparent = np.exp(_lowest(np.log(grid), errors))
    recovering = np.exp(-times[:, None] / apparent)  # (T, N)
    # A − B e by the normal equations of a line in e
    mean_e, mean_s = recovering.mean(0), signed.mean(0)
    slope = ((recovering - mean_e) * (signed - mean_s)).sum(0) / ((recovering - mean_e) ** 2).sum(0)
    steady = mean_s - slope * mean_e
    with np.errstate(divide="ignore", invalid="ignore"):
        t1 = true_t1(apparent, -slope / steady, flip)
    return np.where((steady > 0) & (slope < 0) & (t1 > 0), t1, np.nan)


def _lowest(places: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """(N,) place of the lowest of `errors` (G, N) over evenly spaced `places` (G,), by a parabola through it and its
    neighbours."""
    k, columns = np.clip(errors.argmin(0), 1, len(places) - 2), np.arange(errors.shape[1])
    before, at, after = (errors[k + step, columns] for step in (-1, 0, 1))
    bend = before - 2 * at + after
    shift = np.divide(before - after, 2 * bend, out=np.zeros_like(bend), where=bend > 0)
    return places[k] + np.clip(shift, -1, 1) * (places[1] - places[0])
