"""What a scanner would have seen in a fraction of the time: images whose k-space has lost most of its lines.

A scanner measures k-space, the Fourier transform of the image, line by line. Measured every so-many-th line alone, a scan is as
many times faster, and the inverse transform with zeros in the place of the missing lines ("zero-filled") shows the heart
blurred and folded onto itself. Lines are drawn as in fastMRI (Zbontar et al. 2018, arXiv 1811.08839, sec. 4.9) by MONAI's
`RandomKspaceMask`: all of the centre, which holds the contrast, and others at random.

Magnitude images have lost their phase. A smooth one of each slice's own is put back first: k-space of a real image is
symmetric, and half of what is missing could be read off the other half. Coils and noise of the faster scan are not simulated.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import torch
from monai.apps.reconstruction.transforms.array import RandomKspaceMask
from monai.networks.blocks.fft_utils_t import fftn_centered_t
from torch import Tensor

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import ParameterError

#: Share of the measured lines that lie side by side in the centre. Of fastMRI's 320 lines a third of them is enough for the
#: contrast; of 64 it would be two or three at 8 ×.
CENTRE = 0.5
#: Largest phase at the border of the image, in radians, of each of the polynomials that make it up.
PHASE = 1.0


def undersampled(slices: Slices, acceleration: float) -> Slices:
    """The slices, each with its zero-filled reconstruction as its partner. Lines and phase depend on the image alone.

    Raises:
        ParameterError: if there is nothing to leave out, or next to nothing is left.
    """
    if not 1 < acceleration <= slices.size / 2:
        raise ParameterError(f"acceleration {acceleration}", field="acceleration",
                             remedy=f"give more than 1, and at most {slices.size // 2} for {slices.size} lines")
    found = [zero_filled(image[0], acceleration, zlib.crc32(image.tobytes())) for image in slices.images]
    return replace(slices, partners=np.stack(found)[:, None] if found else slices.images)


def zero_filled(image: np.ndarray, acceleration: float, seed: int) -> np.ndarray:
    """(H, W) in [−1, 1], the magnitude reconstructed from the lines measured (along W, the phase-encoding direction) of an
    image (H, W) in [−1, 1], where −1 is no signal."""
    _, magnitude = _measured(image, acceleration, seed)
    return (2 * magnitude.numpy() - 1).clip(-1, 1).astype(np.float32)


def measured_lines(image: np.ndarray, acceleration: float) -> np.ndarray:
    """(H, W) complex, the centred k-space of an image (H, W) float32 in [−1, 1], zero where no line is measured: that
    from which `undersampled` makes its partner."""
    lines, _ = _measured(image, acceleration, zlib.crc32(image.tobytes()))
    return torch.view_as_complex(lines[0].contiguous()).numpy()


def _measured(image: np.ndarray, acceleration: float, seed: int) -> tuple[Tensor, Tensor]:
    """The lines measured (1, H, W, 2), and the magnitude (H, W) with zeros for the others."""
    signal = torch.from_numpy((image.astype(float) + 1) / 2) * torch.exp(1j * smooth_phase(image.shape, seed))
    k_space = fftn_centered_t(torch.view_as_real(signal)[None], spatial_dims=2)
    lines = RandomKspaceMask(center_fractions=[CENTRE / acceleration], accelerations=[acceleration], is_complex=True)
    lines.set_random_state(seed)
    return lines(k_space.numpy())


def smooth_phase(shape: tuple[int, int], seed: int) -> Tensor:
    """(H, W) radians: a polynomial of second degree, whose coefficients `seed` draws."""
    y, x = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape)
    weights = np.random.default_rng(seed).uniform(-PHASE, PHASE, 5)
    y, x = y[:, None], x[None, :]
    return sum(float(w) * term for w, term in zip(weights, (y + 0 * x, x + 0 * y, x * y, x**2 + 0 * y, y**2 + 0 * x)))
