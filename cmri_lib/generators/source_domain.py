"""C13, source-domain diffusion: an image of an unknown scanner is brought into the style of those that a diffusion has learnt.

The image is noised part of the way and denoised by a diffusion that knows the source domain alone: what the noise has
drowned is made up again in the only style there is (Meng et al., "SDEdit", ICLR 2022, arXiv 2108.01073). At every step
the coarse part of the prediction is replaced by that of the image, so that the heart stays where it is (Choi et al.,
"ILVR", ICCV 2021, arXiv 2108.02938, eq. 8, there for noisy images). No image of the unknown scanner is learnt from.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cmri_lib.errors import ParameterError
from cmri_lib.generators.diffusion import Diffusion
from cmri_lib.networks.conditioning.base import Batch


class SourceDomain(Diffusion):
    """U6, learnt from some vendors' patients, with a way to bring an image into their style.

    Attributes:
        reference: while an image is translated, the image.
        finest: wavelength in pixels down to which the reference is kept; 0 to keep nothing of it.
    """

    reference: Tensor | None = None
    finest = 0.0

    def predict_x0(self, xn: Tensor, n: Tensor, batch: Batch) -> Tensor:
        x0 = super().predict_x0(xn, n, batch)
        if self.reference is None or not self.finest:
            return x0
        return x0 + low_pass(self.reference - x0, self.finest)

    @torch.no_grad()
    def translate(self, images: Tensor, noise: Tensor, *, strength: float, finest: float, steps: int | None = None) -> Tensor:
        """Images (B, 1, H, W) in the style of what was learnt.

        Args:
            noise: (B, 1, H, W), standard normal.
            strength: share of the noise levels that are gone up and down again, above 0 and at most 1.
            finest: wavelength in pixels down to which the image itself is kept, the coarse part of the heart.
            steps: of a whole denoising, of which `strength` is done; the sampler's by default.

        Raises:
            ParameterError: on a strength or a wavelength out of range.
        """
        if not 0 < strength <= 1 or finest < 0:
            raise ParameterError(f"strength {strength}, finest {finest}", field="strength",
                                 remedy="give a strength in (0, 1] and a wavelength of 0 or more")
        start = max(1, round(strength * self.times(1)[0]))
        count = min(start, max(2, round(strength * (steps or self.settings.steps))))
        times = torch.linspace(start, 0, count + 1, dtype=torch.float64).round().int().tolist()
        noisy = self.add_noise(images, noise, torch.full((len(images),), start, device=images.device))
        self.reference, self.finest = images, finest
        try:
            *_, (_, x, _) = self.path(noisy, {}, "ddim", times)
        finally:
            self.reference = None
        return x.clamp(-1, 1)


def low_pass(images: Tensor, finest: float) -> Tensor:
    """What of (B, 1, H, W) has wavelengths of `finest` pixels and more, in every direction: a projection."""
    height, width = images.shape[-2:]
    rows, columns = torch.fft.fftfreq(height, device=images.device), torch.fft.rfftfreq(width, device=images.device)
    kept = (rows[:, None]**2 + columns**2).sqrt() <= 1 / finest
    return torch.fft.irfft2(torch.fft.rfft2(images) * kept, s=(height, width))
