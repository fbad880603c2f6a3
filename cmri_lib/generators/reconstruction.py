"""C19: an image completed from the fraction of its k-space that was measured, with a critic and without one.

RecCGAN of the review is a conditional GAN with losses in the image and in k-space; in the manner of Shaul et al.,
"Subsampled brain MRI reconstruction by generative adversarial neural networks", Medical Image Analysis 65, 2020. The U-Net
beside it has the same generator and the same losses, but no critic.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.generators.base import Generator
from cmri_lib.generators.gan import GAN, GANSettings
from cmri_lib.networks.conditioning.base import Batch, Conditioning


@dataclass(frozen=True)
class ReconstructionSettings(GANSettings):
    """`reconstruction` weighs the mean absolute difference of images, `k_space` that of their Fourier coefficients."""

    k_space: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k_space < 0:
            raise ParameterError(f"{self.k_space} is negative", field="k_space", remedy="give 0 for none")


def k_space_distance(made: Tensor, real: Tensor) -> Tensor:
    """Mean modulus of the difference of the Fourier coefficients of images (B, 1, H, W), by the unitary transform."""
    return torch.fft.fft2(made - real, norm="ortho").abs().mean()


class RecCGAN(GAN):
    """A GAN that sees the zero-filled image, with a loss in k-space as well."""

    def _distance(self, fake: Tensor, real: Tensor) -> Tensor | float:
        weight = self.settings.k_space
        return super()._distance(fake, real) + (weight * k_space_distance(fake, real) if weight else 0.0)


class Regression(Generator):
    """The same generator network without a critic and without noise: one answer, the median of what the source allows.

    Args:
        network: (z, batch) → images; z is always 0.
        settings: of them the weights of the two distances, and the length of z.
    """

    def __init__(self, network: nn.Module, conditioning: Conditioning, settings: ReconstructionSettings):
        super().__init__()
        self.network, self.conditioning, self.settings = network, conditioning, settings
        self.objective = astuple(settings)  # a plain attribute, so that a training knows what it depends on

    @property
    def nfe(self) -> int:
        return 1

    def noise_shape(self, size: int) -> tuple[int, ...]:
        return (self.settings.latent,)

    def loss(self, batch: Batch, group: str) -> Tensor:
        real = batch["image"]
        made = self.network(real.new_zeros(len(real), self.settings.latent), batch)
        return (self.settings.reconstruction * (made - real).abs().mean()
                + self.settings.k_space * k_space_distance(made, real))

    @torch.no_grad()
    def sample(self, noise: Tensor, batch: Batch, **choices: object) -> Tensor:
        return self.network(torch.zeros_like(noise), batch)
