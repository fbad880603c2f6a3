"""A feature space without training: first-order wavelet scattering on a coarse grid, and intensity statistics.

A second opinion beside the learned features: it has seen no data at all, so no choice of training patients can
flatter or harm a generator in it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import scipy.fft

SCALES, ORIENTATIONS, GRID = 3, 4, 2
#: Round numbers, set by hand, that bring cine slices in [−1, 1] to a mean near 0 and a spread near 1, because the cubic
#: kernel of KID would otherwise see little but the common offset: (offset, factor).
ENERGY, INTENSITY = (-3.0, 3.0), ((-0.4, 0.5, -0.8, 0.4), 5.0)
#: Added to energies before the logarithm: an empty patch of an image in [−1, 1] has energies of about 1e-3.
FLOOR = 1.0e-3


@cache
def gabor_bank(size: int) -> np.ndarray:
    """Transfer functions (SCALES · ORIENTATIONS, size, size) of complex Gabor filters, zero at zero frequency.

    Centre frequency 3π/4 · 2^−j and bandwidth 0.4 of it (Bruna & Mallat, IEEE TPAMI 35(8), 2013, section 2.1);
    a Gaussian at the origin is subtracted, as in a Morlet wavelet, so that brightness does not enter.
    """
    rows, columns = np.meshgrid(*(2 * np.pi * np.fft.fftfreq(size),) * 2, indexing="ij")
    bank = []
    for j in range(SCALES):
        centre = 0.75 * np.pi * 2.0**-j
        for k in range(ORIENTATIONS):
            angle = np.pi * k / ORIENTATIONS
            distance = (rows - centre * np.sin(angle))**2 + (columns - centre * np.cos(angle))**2
            width = 2 * (0.4 * centre)**2
            origin = np.exp(-centre**2 / width) * np.exp(-(rows**2 + columns**2) / width)
            bank.append(np.exp(-distance / width) - origin)
    return np.stack(bank).astype(np.float32)


def cells(images: np.ndarray) -> np.ndarray:
    """(..., H, W) → (..., GRID², pixels): the pixels of each cell of a GRID × GRID grid; H and W divisible by GRID."""
    *lead, height, width = images.shape
    split = images.reshape(*lead, GRID, height // GRID, GRID, width // GRID)
    return np.moveaxis(split, -3, -2).reshape(*lead, GRID * GRID, -1)


class ClassicalFeatures:
    """64 features: log mean modulus of 3 × 4 Gabor responses in 2 × 2 cells (48), and the mean, standard deviation and
    10th and 90th percentile of the intensity in each cell (16)."""

    name = "classical"
    dimension = (SCALES * ORIENTATIONS + 4) * GRID**2

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Images (N, 1, H, W) → (N, 64) float64."""
        return np.concatenate([self._batch(images[i:i + 64, 0]) for i in range(0, len(images), 64)])

    def _batch(self, images: np.ndarray) -> np.ndarray:
        spectrum = scipy.fft.fft2(images)[:, None]                                  # single precision, unlike NumPy's
        modulus = np.abs(scipy.fft.ifft2(spectrum * gabor_bank(images.shape[-1])))  # (B, 12, H, W)
        energy = np.log(cells(modulus).mean(-1).astype(float) + FLOOR).reshape(len(images), -1)
        patches = cells(images).astype(float)                                       # (B, 4, pixels)
        statistics = [patches.mean(-1), patches.std(-1), *np.quantile(patches, [0.1, 0.9], axis=-1)]
        intensity = [(value - offset) * INTENSITY[1] for value, offset in zip(statistics, INTENSITY[0])]
        return np.concatenate([(energy - ENERGY[0]) * ENERGY[1], *intensity], axis=1)
