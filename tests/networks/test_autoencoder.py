"""Autoencoders: latents of unit variance, codebook by hand and against brute force, and that they learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import discs

from cmri_lib.errors import ParameterError
from cmri_lib.networks.autoencoder import (Autoencoder, Codebook, KLAutoencoder, KLSettings, VQAutoencoder, VQSettings,
                                           perplexity)
from cmri_lib.training import TrainSettings, train

SMALL = {"widths": (16, 32), "blocks": 1}
KINDS = {"kl": lambda: KLAutoencoder(KLSettings(**SMALL)), "vq": lambda: VQAutoencoder(VQSettings(**SMALL, codes=32))}


def images(patients: int = 30, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(discs(patients, 4, seed=seed).images)


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Autoencoder:
    torch.manual_seed(1)
    model = KINDS[request.param]()
    settings = TrainSettings(steps=380, batch=4, learning_rate=8e-3, ema=0.97)
    train(model, {"image": images()}, settings, tmp_path_factory.mktemp(request.param))
    return model


@torch.no_grad()
def test_unseen_discs_come_back(trained: Autoencoder) -> None:
    unseen = images(seed=1)
    error = (trained.reconstruct(unseen) - unseen).square().mean()
    spread = (unseen - images().mean(0)).square().mean()  # the error of showing the mean image
    assert error < 0.5 * spread  # after 380 steps; the latents must tell the discs apart
    assert error > 0.5 * 0.05**2  # the discs' noise cannot pass the bottleneck


@torch.no_grad()
def test_latents_have_mean_0_and_variance_1_per_channel(trained: Autoencoder) -> None:
    latents = trained.encode(images())
    assert latents.shape[1:] == trained.latent_shape(32) == (4, 8, 8)
    assert latents.mean((0, 2, 3)).abs().max() < 0.15
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 0.15
    assert torch.allclose(trained.standardise(trained.restore(latents)), latents, atol=1e-5)


def test_running_scale_follows_the_hand_formula() -> None:
    model = KINDS["kl"]()
    raw = 3 + 2 * torch.randn(4, 4, 5, 5)
    model.measure_scale(raw)
    assert torch.allclose(model.mean, 0.02 * raw.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(model.variance, 0.98 + 0.02 * raw.var((0, 2, 3)), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_measuring_stops_outside_training(kind: str) -> None:
    model = KINDS[kind]()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.eval().loss({"image": images(2)}, "model")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model.train().loss({"image": images(2)}, "model")
    assert not torch.equal(model.mean, before["mean"])


def test_divergence_is_that_of_torch() -> None:
    model = KLAutoencoder(KLSettings(**SMALL, kl=1.0))
    x = images(2)
    mean, log_variance = model.posterior(x)
    torch.manual_seed(4)
    with_kl = model.loss({"image": x}, "model")
    model.kl = 0.0
    torch.manual_seed(4)
    without = model.loss({"image": x}, "model")
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, (0.5 * log_variance).exp()), normal(0.0, 1.0)).mean()
    assert (with_kl - without).item() == pytest.approx(expected.item(), rel=1e-3)


def test_image_loss_is_that_counted_by_hand() -> None:
    model = KLAutoencoder(KLSettings(**SMALL, detail=0.5))
    target = torch.zeros(1, 1, 4, 4)
    edge = torch.cat([torch.zeros(1, 1, 4, 2), torch.ones(1, 1, 4, 2)], dim=-1)
    # Half of the pixels are off by 1; one in three horizontal slopes is, and no vertical one.
    assert model.image_loss(edge, target).item() == pytest.approx(0.5 + 0.5 / 3)
    assert model.image_loss(target, target) == 0


def book_of(vectors: torch.Tensor, counts: torch.Tensor, revive: float = 0.0) -> Codebook:
    book = Codebook(len(vectors), vectors.shape[1], decay=0.9, revive=revive)
    book.counts.copy_(counts)
    book.sums.copy_(vectors * counts[:, None])
    return book


def test_nearest_code_is_that_of_brute_force() -> None:
    vectors, raw = torch.randn(40, 4), torch.randn(3, 4, 5, 6)
    found = book_of(vectors, torch.rand(40) + 0.5).nearest(raw)
    rows = raw.movedim(1, -1).reshape(-1, 1, 4)
    assert torch.equal(found.flatten(), (rows - vectors).norm(dim=-1).argmin(1)) and found.shape == (3, 5, 6)


def test_codebook_moves_by_the_hand_formula() -> None:
    vectors = torch.tensor([[0.0], [10.0]])
    book = book_of(vectors, torch.tensor([2.0, 4.0]))
    book.learn(torch.tensor([1.0, -3.0, 9.0, 2.0]).view(1, 1, 2, 2))  # three near 0, one near 10
    assert torch.allclose(book.counts, torch.tensor([0.9 * 2 + 0.1 * 3, 0.9 * 4 + 0.1 * 1]))
    assert torch.allclose(book.book[:, 0], torch.tensor([0.1 * (1 - 3 + 2) / 2.1, (0.9 * 40 + 0.1 * 9) / 3.7]))


def test_idle_codes_move_onto_the_data_and_others_stay() -> None:
    book = book_of(torch.tensor([[0.0], [500.0]]), torch.tensor([8.0, 1.0e-3]), revive=0.05)
    raw = torch.randn(4, 1, 2, 2)
    book._move_idle(raw)
    assert book.book[0] == 0 and (raw - book.book[1]).abs().min() < 1e-6


def test_a_new_codebook_starts_from_its_first_batch_wherever_that_lies() -> None:
    """Latents far from 0 have a few nearest codes; when codes have moved onto them, most of these are in use."""
    book, raw = Codebook(64, 4, 0.9, 0.05), 50 + 0.1 * torch.randn(8, 4, 16, 16)
    assert perplexity(book.nearest(raw), 64) < 8
    book._move_idle(raw)
    apart = (book.book[:, None] - raw.movedim(1, -1).reshape(-1, 4)).norm(dim=-1)
    assert apart.amin(1).max() < 1e-4 and torch.equal(book.counts, torch.full((64,), 2048 / 64))
    assert perplexity(book.nearest(raw), 64) > 32


def test_perplexity_counts_codes_in_use() -> None:
    assert perplexity(torch.arange(8).repeat(5), 16) == pytest.approx(8)
    assert perplexity(torch.zeros(10, dtype=torch.long), 16) == pytest.approx(1)


@torch.no_grad()
@pytest.mark.parametrize("trained", ["vq"], indirect=True)
def test_training_uses_the_codebook(trained: VQAutoencoder) -> None:
    assert perplexity(trained.tokens(images(seed=1)), trained.codes) > trained.codes / 4


@torch.no_grad()
def test_tokens_and_latents_tell_the_decoder_the_same() -> None:
    model = KINDS["vq"]().eval()
    model.quantiser.learn(model.raw_latents(images()))
    x = images(2)
    tokens = model.tokens(x)
    assert tokens.dtype == torch.long and tokens.shape == (8, 8, 8) and 0 <= tokens.min() <= tokens.max() < model.codes == 32
    assert torch.allclose(model.decode_tokens(tokens), model.reconstruct(x), atol=1e-6)
    assert torch.equal(model.quantiser.nearest(model.quantiser.vectors(tokens)), tokens)


def test_gradient_passes_the_codebook() -> None:
    model = KINDS["vq"]().train()
    model.loss({"image": images(2)}, "model").backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.encoder[1].weight.grad.abs().max() > 0


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="widths"):
        KLSettings(widths=())
    with pytest.raises(ParameterError, match="codes"):
        VQSettings(codes=1)
    with pytest.raises(ParameterError, match="size"):
        KINDS["kl"]().latent_shape(30)
