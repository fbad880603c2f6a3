"""The VAE against what is known exactly: divergences, densities, and probabilistic PCA, its linear special case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import discs
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from cmri_lib.errors import ParameterError
from cmri_lib.generators.base import batch_of, draw, training_batch
from cmri_lib.generators.vae import VAE, VAEObjective, covariance_root, divergence_from_prior
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.networks.conditioning.label_map import LabelMap
from cmri_lib.networks.vae import Decoder, Encoder, VAESettings
from cmri_lib.training import TrainSettings, train

SMALL = VAESettings(channels=(8, 16, 16, 16), latent=16)  # 4 levels: images of 32 × 32
DIMENSION, LATENT = 5, 2


class LinearEncoder(nn.Module):
    """μ(x) linear, one log-variance per code, the same for all x: all that a linear Gaussian model needs."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.log_variance = nn.Linear(DIMENSION, LATENT), nn.Parameter(torch.zeros(LATENT))

    def forward(self, x: Tensor, batch: dict) -> tuple[Tensor, Tensor]:
        return self.mean(x), self.log_variance.expand(len(x), -1)


class LinearDecoder(nn.Linear):
    """W z + b."""

    def forward(self, code: Tensor, batch: dict) -> Tensor:
        return super().forward(code)


def linear_vae() -> VAE:
    return VAE(LinearEncoder(), LinearDecoder(LATENT, DIMENSION), LATENT, Conditioning())


def linear_gaussian_data(n: int) -> Tensor:
    """x = W z + b + 0.3 ε, with known W and b."""
    weight = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.5], [0.5, 0.0]])
    return torch.randn(n, LATENT) @ weight.T + 0.5 + 0.3 * torch.randn(n, DIMENSION)


def probabilistic_pca(model: VAE, x: Tensor) -> PCA:
    """Put the maximum-likelihood solution for `x` into `model` (Tipping & Bishop 1999, eq. 7 and 8, posterior eq. 6)."""
    pca = PCA(LATENT).fit(x.numpy())
    noise, scale = pca.noise_variance_, np.sqrt(pca.explained_variance_ - pca.noise_variance_)
    weight, mean = torch.tensor(pca.components_.T * scale).float(), torch.tensor(pca.mean_).float()
    spread = torch.tensor(pca.explained_variance_).float()  # W is orthogonal, so M = WᵀW + σ²I is diagonal
    with torch.no_grad():
        model.decoder.weight.copy_(weight)
        model.decoder.bias.copy_(mean)
        model.encoder.mean.weight.copy_(weight.T / spread[:, None])
        model.encoder.mean.bias.copy_(-weight.T @ mean / spread)
        model.encoder.log_variance.copy_((noise / spread).log())
    return pca


def test_divergence_is_that_of_torch_distributions() -> None:
    mean, log_variance = torch.randn(6, 9), torch.randn(6, 9)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(divergence_from_prior(mean, log_variance), expected, rtol=1e-5)
    assert divergence_from_prior(torch.zeros(2, 3), torch.zeros(2, 3)).tolist() == [0, 0]


def test_likelihood_is_the_normal_density_at_the_best_sigma() -> None:
    model, x = linear_vae(), linear_gaussian_data(64)
    torch.manual_seed(1)
    log_likelihood, _ = model.elbo_terms({"image": x})
    torch.manual_seed(1)
    mean, log_variance = model.encoder(x, {})
    decoded = model.decoder(mean + (log_variance / 2).exp() * torch.randn_like(mean), {})
    at = {s: Normal(decoded, s).log_prob(x).sum(1).mean()
          for s in (decoded - x).square().mean().sqrt() * torch.tensor([0.9, 1, 1.1])}
    below, best, above = at.values()
    assert log_likelihood.item() == pytest.approx(best.item(), rel=1e-5)
    assert best > below and best > above


def test_a_target_is_what_is_likely_and_the_batch_what_its_code_is_read_from() -> None:
    """A translation's bound: log p(target | z), z from q(z | source). With codes of no spread the mean image is known."""
    model, source, target = linear_vae(), linear_gaussian_data(16), linear_gaussian_data(16)
    nn.init.constant_(model.encoder.log_variance, -60.0)
    log_likelihood, divergence = model.elbo_terms({"image": source}, {"image": target})
    code = model.encoder.mean(source)
    made = code @ model.decoder.weight.T + model.decoder.bias
    density = Normal(made, (made - target).square().mean().sqrt()).log_prob(target).sum(1).mean()
    assert log_likelihood.item() == pytest.approx(density.item(), rel=1e-5)
    expected = kl_divergence(Normal(code, torch.tensor(-30.0).exp()), Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(divergence, expected, rtol=1e-5)


def test_the_loss_is_the_bound_per_pixel_with_the_divergence_of_every_image() -> None:
    """Sixteen images of five pixels, codes without spread: −log p(x|z) + mean KL, in nats, shared out over the pixels."""
    model, x = linear_vae(), linear_gaussian_data(16)
    nn.init.constant_(model.encoder.log_variance, -60.0)
    log_likelihood, _ = model.elbo_terms({"image": x})
    expected = kl_divergence(Normal(model.encoder.mean(x), torch.tensor(-30.0).exp()), Normal(0.0, 1.0)).sum() / 16
    assert model.loss({"image": x}, "model").item() == pytest.approx((expected - log_likelihood).item() / 5, rel=1e-5)


def test_gradient_is_that_of_the_likelihood_at_the_best_sigma() -> None:
    model, x = linear_vae(), linear_gaussian_data(64)
    torch.manual_seed(1)
    (-model.elbo_terms({"image": x})[0]).backward()
    found = model.decoder.weight.grad.clone()
    model.zero_grad()
    torch.manual_seed(1)
    mean, log_variance = model.encoder(x, {})
    decoded = model.decoder(mean + (log_variance / 2).exp() * torch.randn_like(mean), {})
    # σ* maximises the likelihood, so its own dependence on the weights adds nothing: −D/2 ln MSE may be differentiated.
    (DIMENSION / 2 * (decoded - x).square().mean().log()).backward()
    assert torch.allclose(found, model.decoder.weight.grad, rtol=1e-4, atol=1e-6)


def test_bound_is_tight_at_probabilistic_pca() -> None:
    x, model = linear_gaussian_data(200_000), linear_vae()
    exact = probabilistic_pca(model, x).score(x.numpy())  # mean log-likelihood of N(b, WWᵀ + σ²I)
    bound = -model.loss({"image": x}, "model").item() * DIMENSION
    assert bound == pytest.approx(exact, abs=0.01)
    with torch.no_grad():
        model.encoder.log_variance.add_(0.5)  # a wrong posterior loosens the bound
    assert -model.loss({"image": x}, "model").item() * DIMENSION < exact - 0.03


def test_training_finds_probabilistic_pca(tmp_path: Path) -> None:
    x, model = linear_gaussian_data(4000), linear_vae()
    exact = probabilistic_pca(linear_vae(), x)
    train(model, {"image": x}, TrainSettings(steps=600, batch=256, learning_rate=3e-2, ema=0.98), tmp_path)
    weight = model.decoder.weight.detach().numpy()
    noise = (model.reconstruct(x, {}) - x).square()
    assert -model.loss({"image": x}, "model").item() * DIMENSION == pytest.approx(exact.score(x.numpy()), abs=0.03)
    # W is known up to a rotation, W Wᵀ is not; its scale is about 5.
    kept = exact.components_.T * (exact.explained_variance_ - exact.noise_variance_) @ exact.components_
    assert np.abs(weight @ weight.T - kept).max() < 0.25
    assert noise.mean().item() == pytest.approx(0.3**2 * (DIMENSION - LATENT) / DIMENSION, rel=0.1)


def test_sigma_has_a_floor() -> None:
    model, x = linear_vae(), torch.zeros(4, DIMENSION)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)  # perfect reconstruction: without the floor the density would be infinite
    log_likelihood, _ = model.elbo_terms({"image": x})
    assert log_likelihood.item() == pytest.approx(Normal(0.0, 1 / 255).log_prob(torch.zeros(())).item() * DIMENSION, rel=1e-5)
    with pytest.raises(ParameterError, match="least_sigma"):
        VAEObjective(least_sigma=0.0)


def test_samples_have_the_moments_of_the_codes() -> None:
    # Codes ℝ³ → ℝ³ by identities, with posterior variances v: q(z) = N(m, S) becomes N(m, S + diag v).
    identity = nn.Linear(3, 3)
    nn.init.eye_(identity.weight), nn.init.zeros_(identity.bias)
    variances, root = torch.tensor([0.1, 0.5, 1.0]), torch.tensor([[2.0, 0, 0], [1, 1, 0], [0, -1, 0.5]])

    class Encode(nn.Module):
        def forward(self, x: Tensor, batch: dict) -> tuple[Tensor, Tensor]:
            return identity(x), variances.log().expand(len(x), -1)

    class Decode(nn.Module):
        def forward(self, code: Tensor, batch: dict) -> Tensor:
            return code

    model = VAE(Encode(), Decode(), 3, Conditioning())
    for _ in range(400):
        model.loss({"image": 1.5 + torch.randn(500, 3) @ root.T}, "model")
    codes = model.sample(torch.randn(100_000, 3), {})
    assert torch.allclose(codes.mean(0), torch.full((3,), 1.5), atol=0.05)
    assert torch.allclose(torch.cov(codes.T), root @ root.T + variances.diag(), atol=0.1)
    assert torch.allclose(model.sample(torch.ones(1, 3), {}, prior="standard"), torch.ones(1, 3))
    kept = model.eval().code_covariance.clone()
    model.loss({"image": torch.zeros(5, 3)}, "model")
    assert torch.equal(model.code_covariance, kept), "validation must not move the moments"


def disc_vae(conditioning: Conditioning) -> VAE:
    torch.manual_seed(0)
    return VAE(Encoder(SMALL, conditioning), Decoder(SMALL, conditioning), SMALL.latent, conditioning)


@pytest.mark.parametrize("conditioning", [Conditioning, LabelMap])
def test_shapes_are_those_of_images_and_codes_with_and_without_a_mask(conditioning: type[Conditioning]) -> None:
    model, slices = disc_vae(conditioning()), discs(2, 3)
    batch = batch_of(slices, model.conditioning)
    mean, log_variance = model.encoder(batch["image"], batch)
    assert mean.shape == log_variance.shape == (6, 16) and model.noise_shape(32) == (16,) and model.nfe == 1
    assert model.sample(torch.randn(6, 16), batch).shape == model.reconstruct(batch["image"], batch).shape == (6, 1, 32, 32)
    model.loss(batch, "model").backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_each_sample_depends_on_its_own_noise_and_mask_only() -> None:
    model, slices = disc_vae(LabelMap()), discs(4, 3)
    base = draw(model, slices, "U1", seed=5, batch=12)
    assert np.allclose(draw(model, slices, "U1", seed=5, batch=5).images, base.images, atol=1e-5)
    assert not np.allclose(draw(model, slices, "U1", seed=6).images, base.images, atol=1e-2)
    changed = np.abs(draw(model, slices.take([1, 0, *range(2, 12)]), "U1", seed=5, batch=12).images
                     - base.images).max((1, 2, 3))
    assert (changed[:2] > 1e-4).all() and (changed[2:] < 1e-5).all()


def test_learns_discs(tmp_path: Path) -> None:
    model, slices, unseen = disc_vae(Conditioning()), discs(24, 4), discs(4, 4, seed=1, split="validation")
    train(model, training_batch(slices, model.conditioning),
          TrainSettings(steps=240, batch=16, learning_rate=3e-3, ema=0.95), tmp_path)
    images = torch.from_numpy(unseen.images)
    error = (model.reconstruct(images, {}) - images).square().mean()
    spread = (images - torch.from_numpy(slices.images).mean(0)).square().mean()
    assert error < 0.3 * spread, "reconstructions of unseen discs are hardly better than the mean image"
    made = draw(model, slices, "U1").images
    assert (made - slices.images.mean(0)).std() > 0.5 * (slices.images - slices.images.mean(0)).std(), "all samples alike"
    assert made[:, 0, 15:17, 15:17].mean() > made[:, 0, :2, :2].mean() + 0.8, "no bright disc on a dark ground"


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ParameterError, match="channels"):
        VAESettings(channels=(12, 16))
    with pytest.raises(ParameterError, match="latent"):
        VAESettings(latent=0)
    with pytest.raises(ParameterError, match="as many levels"):
        disc_vae(Conditioning()).reconstruct(torch.zeros(1, 1, 64, 64), {})


def test_a_covariance_that_was_rounded_has_a_root() -> None:
    axes, _ = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64))
    for longest in (1.0, 1e4):
        exact = axes * torch.logspace(-6, 0, 16, dtype=torch.float64) * longest @ axes.T
        for covariance in (exact.float(), exact.half().float()):
            root = covariance_root(covariance)
            assert torch.isfinite(root).all() and (root @ root.T - covariance).abs().max() < 1e-3 * longest
    rounded = exact.half().float()
    assert torch.linalg.cholesky_ex(rounded).info, "the case that is asked about"
    assert torch.equal(covariance_root(exact.float()), torch.linalg.cholesky(exact.float())), "else it is Cholesky's"
