"""Spectrum: is the texture as fine as that of real images, too smooth, or too sharp?

The power spectrum of every slice, averaged over rings of equal spatial frequency, in decades. Blurred samples lack
power near the Nyquist frequency; up-sampling artefacts of transposed convolutions add some (Durall et al., CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft

from cmri_lib.cohort.slices import Slices
from cmri_lib.measures.statistics.comparison import DISTANCE, Embedding, Measure, Metric, Statistic

#: Power of an image in [−1, 1] that counts as none, per pixel: keeps the logarithm of a flat image finite.
NOTHING = 1.0e-10


def radial_spectrum(images: np.ndarray) -> np.ndarray:
    """log₁₀ of the power in rings of frequency: images (N, 1, S, S) → (N, S/2).

    Column r − 1 holds the frequencies of r cycles per side, rounded; the last is Nyquist's. Each image loses its mean,
    and a Hann window takes off the edges, whose jump would pass for fine detail.
    """
    size = images.shape[-1]
    window = np.outer(np.hanning(size), np.hanning(size))
    window /= np.sqrt((window**2).mean())
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(size, 1 / size),) * 2, indexing="ij"))
    ring = np.rint(frequency).astype(int).ravel()
    members = np.stack([ring == r for r in range(1, size // 2 + 1)], axis=1).astype(np.float32)
    centred = images[:, 0] - images[:, 0].mean((1, 2), keepdims=True)
    spectrum = scipy.fft.fft2((centred * window).astype(np.float32), norm="ortho")
    power = (spectrum.real**2 + spectrum.imag**2).reshape(len(images), -1)
    return np.log10((power @ members / members.sum(0)).astype(float) + NOTHING)


def top_octave(columns: int) -> slice:
    """The columns of `radial_spectrum` above half the Nyquist frequency."""
    return slice(columns // 2, columns)


def spectrum_statistics(real: Embedding, synthetic: Embedding) -> Sequence[Statistic]:
    """Distance in dB and excess in the top octave, as functions of the counts."""
    x, y = real.values, synthetic.values
    top = top_octave(x.shape[1])

    def gap(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return v @ y / v.sum() - u @ x / u.sum()

    return (lambda u, v: float(10 * np.sqrt((gap(u, v)**2).mean())), lambda u, v: float(gap(u, v)[top].mean()))


def spectrum() -> Measure:
    """The measure that gives

    - ``spectrum_db``: root mean square, over frequencies, of the difference of mean spectra, in dB (lower is better);
    - ``band_excess``: mean log₁₀ of the power of samples over that of real slices in the top octave. Negative: blur;
      positive: noise or artefacts; 0 is best.
    """
    metrics = Metric("spectrum_db", "lower", centred=True, scale=DISTANCE), Metric("band_excess", "zero")
    return Measure(metrics, embed_spectrum, spectrum_statistics)


def embed_spectrum(slices: Slices) -> np.ndarray:
    """`radial_spectrum` of the slices' images."""
    return radial_spectrum(slices.images)
