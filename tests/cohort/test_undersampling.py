"""Under-sampled k-space against NumPy's own Fourier transform, and what must hold whatever lines are drawn."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from conftest import discs
from monai.apps.reconstruction.transforms.array import RandomKspaceMask
from torch import nn

from cmri_lib.cohort.undersampling import CENTRE, measured_lines, smooth_phase, undersampled, zero_filled
from cmri_lib.errors import ParameterError
from cmri_lib.generators.gan import GAN
from cmri_lib.generators.reconstruction import ReconstructionSettings, RecCGAN, Regression, k_space_distance
from cmri_lib.networks.conditioning.partner import PARTNER, PartnerImage

SLICES = discs(3, 2)


@pytest.mark.parametrize("acceleration", [4, 8])
def test_zero_filling_is_numpys(acceleration: int) -> None:
    image, seed = SLICES.images[0, 0], 7
    lines = RandomKspaceMask(center_fractions=[CENTRE / acceleration], accelerations=[acceleration], is_complex=True)
    lines.set_random_state(seed)
    lines(np.zeros((1, 32, 32, 2)))
    measured = np.asarray(lines.mask).reshape(1, 32)
    k_space = np.fft.fftshift(np.fft.fft2((image.astype(float) + 1) / 2 * np.exp(1j * smooth_phase((32, 32), seed).numpy())))
    # The centre of the image is the origin of phase in one of the two and its corner in the other: no matter for a magnitude.
    wanted = np.abs(np.fft.ifft2(np.fft.ifftshift(k_space * measured)))
    np.testing.assert_allclose(zero_filled(image, acceleration, seed), (2 * wanted - 1).clip(-1, 1), atol=1e-5)
    assert measured[0, 16] and 0 < measured.mean() < 1


@pytest.mark.parametrize("acceleration", [4, 8])
def test_a_partner_is_what_the_measured_lines_show(acceleration: int) -> None:
    lines = measured_lines(SLICES.images[1, 0], acceleration)
    empty = (lines == 0).all(axis=0)
    assert 1 - empty.mean() == pytest.approx(1 / acceleration, abs=0.1) and not empty[16]
    shown = 2 * np.abs(np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(lines), norm="ortho"))) - 1
    np.testing.assert_allclose(shown.clip(-1, 1), undersampled(SLICES, acceleration).partners[1, 0], atol=1e-5)


def test_partners_depend_on_their_image_alone_and_lose_more_the_faster_the_scan() -> None:
    four, eight = (undersampled(SLICES, k) for k in (4, 8))
    np.testing.assert_array_equal(undersampled(SLICES.take([4, 2]), 4).partners, four.partners[[4, 2]])
    np.testing.assert_array_equal(four.partners[3, 0],
                                  zero_filled(SLICES.images[3, 0], 4, zlib.crc32(SLICES.images[3].tobytes())))
    lost = [np.abs(some.partners - SLICES.images).mean() for some in (four, eight)]
    assert 0.01 < lost[0] < lost[1] and abs(eight.partners).max() <= 1
    empty = zero_filled(np.full((32, 32), -1, np.float32), 4, 0)
    np.testing.assert_allclose(empty, -1, atol=1e-6)
    assert not len(undersampled(SLICES.take([]), 4))
    for wrong in (1, 0, 40):
        with pytest.raises(ParameterError, match="acceleration"):
            undersampled(SLICES, wrong)


def test_one_bright_pixel_has_the_same_distance_everywhere_in_k_space() -> None:
    real = torch.rand(2, 1, 16, 16)
    made = real.clone()
    made[:, :, 3, 5] += 0.8  # the transform of a point has the same modulus everywhere: 0.8 / √256
    assert k_space_distance(made, real).item() == pytest.approx(0.8 / 16, rel=1e-5)


class Doubling(nn.Module):
    def forward(self, z: torch.Tensor, batch: dict) -> torch.Tensor:
        return 2 * batch[PARTNER] + z.sum()


def test_a_regression_weighs_both_distances_and_has_no_noise() -> None:
    settings = ReconstructionSettings(reconstruction=3.0, k_space=2.0, latent=4)
    model = Regression(Doubling(), PartnerImage(), settings)
    real = torch.rand(2, 1, 16, 16)
    assert model.loss({"image": real, PARTNER: real / 2}, "model").item() == 0
    off = real.clone()
    off[:, :, 0, 0] += 0.5
    assert model.loss({"image": off, PARTNER: real / 2}, "model").item() == pytest.approx(
        3 * 0.5 / 256 + 2 * 0.5 / 16, rel=1e-5)
    made = model.sample(torch.randn(2, 4), {PARTNER: real / 2})
    torch.testing.assert_close(made, real)
    with pytest.raises(ParameterError, match="negative"):
        ReconstructionSettings(k_space=-1.0)


class Indifferent(nn.Module):
    """A critic to which all images are alike: it adds log 2 to the generator's loss, −log σ(0)."""

    def forward(self, images: torch.Tensor, batch: dict) -> torch.Tensor:
        return 0 * images.mean((1, 2, 3))


@pytest.mark.parametrize(("images", "k_space"), [(3.0, 2.0), (3.0, 0.0), (0.0, 2.0), (0.0, 0.0)])
def test_a_critics_system_weighs_both_distances_beside_the_critic(images: float, k_space: float) -> None:
    """One pixel of 256 is half too bright: 0.5 / 256 on average, and 0.5 / 16 at each of its Fourier coefficients."""
    settings = ReconstructionSettings(reconstruction=images, k_space=k_space, latent=4)
    real = torch.rand(2, 1, 16, 16)
    off = real.clone()
    off[:, :, 0, 0] += 0.5
    double = lambda z, batch: 2 * batch[PARTNER] + 0 * z.sum()  # noqa: E731
    batch = {"image": off, PARTNER: real / 2}
    found, plain = (kind(double, Indifferent(), PartnerImage(), settings).loss(batch, "generator").item()
                    for kind in (RecCGAN, GAN))
    assert found == pytest.approx(np.log(2) + images * 0.5 / 256 + k_space * 0.5 / 16, rel=1e-5)
    assert plain == pytest.approx(np.log(2) + images * 0.5 / 256, rel=1e-5), "a GAN knows no k-space"


def test_the_gradient_of_both_distances_draws_every_pixel_to_the_real_image() -> None:
    """A distance that were taken of numbers without a gradient, or of the wrong pair, would leave the generator where it is."""
    real, images = torch.rand(2, 1, 8, 8), nn.Parameter(torch.rand(2, 1, 8, 8))
    settings = ReconstructionSettings(reconstruction=0.0, k_space=1.0, latent=4)
    model = RecCGAN(lambda z, batch: images, Indifferent(), PartnerImage(), settings)
    optimiser = torch.optim.Adam([images], lr=0.02)
    for _ in range(200):
        optimiser.zero_grad()
        model.loss({"image": real}, "generator").backward()
        optimiser.step()
    assert (images - real).abs().max() < 0.05
