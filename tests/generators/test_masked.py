"""Masked token modelling: counts in closed form, decoding against token distributions that are known exactly."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import discs
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.generators.base import draw
from cmri_lib.generators.masked import MaskGIT, MaskedSettings, choose, hidden_count, hidden_fraction, lowest
from cmri_lib.networks.transformer import TokenTransformer, TransformerSettings
from cmri_lib.training import TrainSettings, train

CODES = 5
SMALL = TransformerSettings(width=32, depth=2, heads=2)


class Squares(nn.Module):
    """A tokeniser known in closed form: a token is the grey level of a square of 4 × 4 pixels."""

    codes = CODES

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.linspace(-1, 1, CODES))

    def tokens(self, images: Tensor) -> Tensor:
        means = nn.functional.avg_pool2d(images, 4)[:, 0]
        return (means[..., None] - self.levels).abs().argmin(-1)

    def decode_tokens(self, tokens: Tensor) -> Tensor:
        return self.levels[tokens][:, None].repeat_interleave(4, 2).repeat_interleave(4, 3)

    def latent_shape(self, size: int) -> tuple[int, int, int]:
        return 1, size // 4, size // 4


class Independent(nn.Module):
    """The network that knows independent tokens: the same logits wherever and whatever the others are."""

    def __init__(self, probabilities: Tensor):
        super().__init__()
        self.register_buffer("logits", probabilities.log())
        self.asked: list[Tensor] = []

    def forward(self, tokens: Tensor, batch: dict) -> Tensor:
        self.asked.append(tokens)
        return self.logits.expand(*tokens.shape, -1)


class Chain(nn.Module):
    """The network that knows that a token is its left neighbour's successor and the first anything: as long as the left
    neighbour is hidden it has no opinion."""

    def forward(self, tokens: Tensor, batch: dict) -> Tensor:
        left = nn.functional.pad(tokens, (1, 0), value=CODES)[..., :-1]
        certain = 50.0 * nn.functional.one_hot((left + 1) % CODES, CODES)
        return torch.where((left == CODES)[..., None], 0.0, certain)


def hidden_grid(n: int, h: int, w: int) -> Tensor:
    return torch.full((n, h, w), CODES)


def small_maskgit() -> MaskGIT:
    torch.manual_seed(0)
    return MaskGIT(Squares(), TokenTransformer(SMALL, CODES), MaskedSettings(steps=4)).eval()


def test_schedule_falls_from_all_to_none() -> None:
    r = torch.linspace(0, 1, 101)
    share = hidden_fraction(r)
    assert share[0] == 1 and abs(share[-1]) < 1e-6 and (share.diff() < 0).all() and (share.diff().diff() < 1e-5).all()
    n = torch.tensor([1, 7, 64, 256])
    assert torch.equal(hidden_count(torch.zeros(4), n), n) and not hidden_count(torch.ones(4), n).any()
    # cos(π/3) = 1/2 exactly, cos(π/6) = √3/2.
    counts = hidden_count(torch.tensor([2 / 3, 1 / 3]), torch.tensor([64, 64]))
    assert counts.tolist() == [32, math.ceil(64 * 3**0.5 / 2)]


@pytest.mark.parametrize("steps", [1, 3, 8, 40])
def test_each_round_hides_as_many_as_the_schedule_says(steps: int) -> None:
    model = MaskGIT(Squares(), Independent(torch.full((CODES,), 1 / CODES)))
    noise = torch.randn(3, 2, 4, 4)
    tokens = hidden_grid(3, 4, 4)
    tokens[1, :2] = 0  # 8 of 16 are known
    path = list(model.rounds(tokens, noise, steps, 1.0))
    for k, now in enumerate(path, 1):
        wanted = [math.ceil(n * math.cos(math.pi / 2 * k / steps) - 1e-4) for n in (16, 8, 16)]
        assert (now == CODES).flatten(1).sum(1).tolist() == wanted
    assert len(model.network.asked) == len(path) == steps and not (path[-1] == CODES).any()
    for before, after in zip(path, path[1:]):
        assert torch.equal(after[before != CODES], before[before != CODES])  # what is shown stays


def test_choosing_inverts_the_distribution() -> None:
    p = torch.tensor([0.0, 0.2, 0.5, 0.0, 0.3])
    u = torch.tensor([1e-7, 0.1, 0.21, 0.69, 0.71, 1 - 1e-7])
    assert choose(p.expand(6, -1), u).tolist() == [1, 1, 2, 2, 4, 4]
    many = choose(p.expand(50_000, -1), torch.rand(50_000))
    assert torch.bincount(many, minlength=5).div(50_000).sub(p).abs().max() < 0.01


def test_lowest_takes_exactly_so_many() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0, math.inf], [0.0, -1.0, 5.0, 4.0]])
    assert lowest(scores, torch.tensor([2, 0])).tolist() == [[False, True, True, False], [False] * 4]


def test_independent_tokens_keep_their_frequencies_in_random_order_only() -> None:
    """Confidence picks what is likely and draws the unlikely anew, so it favours the commonest token (a bias of
    MaskGIT's decoding); an order decided by the Gumbel noise alone has none, nor has a single round."""
    p = torch.tensor([0.05, 0.1, 0.15, 0.2, 0.5])
    model, noise = MaskGIT(Squares(), Independent(p)), torch.randn(400, 2, 8, 8)

    def shares(steps: int, temperature: float) -> Tensor:
        tokens = model.complete(hidden_grid(400, 8, 8), noise, steps, temperature)
        return torch.bincount(tokens.flatten(), minlength=CODES) / tokens.numel()

    deviation = 4 * (0.25 / 25_600) ** 0.5  # four standard errors, at most
    assert (shares(1, 0.0) - p).abs().max() < deviation
    assert (shares(8, 1e4) - p)[-1].abs() < 0.03  # the last round knows no noise
    assert shares(8, 0.0)[-1] > 0.7
    assert shares(8, 0.0)[-1] > shares(8, 2.0)[-1] > shares(8, 20.0)[-1] - deviation


def test_a_deterministic_sequence_comes_out_exactly() -> None:
    model = MaskGIT(Squares(), Chain())
    start = hidden_grid(4, 1, 12)
    start[:, 0, 0] = torch.arange(4)
    # Without noise on the confidences certain tokens come first; as many rounds as tokens suffice for any schedule ...
    full = model.complete(start, torch.randn(4, 2, 1, 12), 400, 0.0)
    assert torch.equal(full[:, 0], (torch.arange(4)[:, None] + torch.arange(12)) % CODES)
    # ... and one round guesses all but the first blindly.
    blind = model.complete(start, torch.randn(4, 2, 1, 12), 1, 0.0)
    assert not torch.equal(blind, full) and torch.equal(blind[:, 0, :2], full[:, 0, :2])


def test_loss_of_the_exact_distribution_is_its_entropy() -> None:
    p = torch.tensor([0.05, 0.1, 0.15, 0.2, 0.5])
    model = MaskGIT(Squares(), Independent(p))
    tokens = torch.multinomial(p, 64 * 2000, replacement=True).view(2000, 8, 8)
    loss = model.loss({"image": tokens}, "model").item()
    assert loss == pytest.approx(-(p * p.log()).sum().item(), rel=0.01)
    # E cos(πr/2) = 2/π of the tokens are hidden on average.
    assert (model.network.asked[-1] == CODES).float().mean().item() == pytest.approx(2 / math.pi, abs=0.02)
    assert ((model.network.asked[-1] == CODES) | (model.network.asked[-1] == tokens)).all()


def test_inpainting_keeps_what_is_known_and_reads_nothing_else() -> None:
    model = small_maskgit()
    noise, images = torch.randn(2, 2, 4, 4), Squares().decode_tokens(torch.randint(CODES, (2, 4, 4))).detach()
    known = torch.ones(2, 16, 16, dtype=torch.bool)
    known[0, 5:11, 5:11] = False
    known[1] = False
    filled = model.inpaint(images, known, noise)
    assert torch.equal(filled[:, 0][known], images[:, 0][known])
    assert torch.equal(model.inpaint(images.masked_fill(~known[:, None], 0.7), known, noise), filled)
    assert torch.equal(filled[1], model.sample(noise, {})[1])  # nothing known: an ordinary sample
    tokens = hidden_grid(2, 4, 4)
    tokens[0, 0], tokens[1, :, 2] = 3, 1
    complete = model.complete(tokens, noise)
    assert (complete[0, 0] == 3).all() and (complete[1, :, 2] == 1).all() and complete.max() < CODES


def test_learns_two_patterns(tmp_path: Path) -> None:
    """Left half dark and right half bright, or the reverse: no place alone tells which, so all must agree."""
    tokens = torch.full((2, 4, 4), 0)
    tokens[0, :, 2:] = tokens[1, :, :2] = CODES - 1
    images = Squares().decode_tokens(tokens).detach().repeat(32, 1, 1, 1)
    model = small_maskgit()
    data = model.prepare({"image": images})
    assert torch.equal(data["image"], tokens.repeat(32, 1, 1))
    train(model, data, TrainSettings(steps=400, batch=16, learning_rate=2e-3, ema=0.98), tmp_path)
    drawn = model.sample(torch.randn(64, 2, 4, 4), {}, steps=8, temperature=1.0)
    which = (drawn[:, None] == images[:2]).flatten(2).all(2)
    assert which.any(1).float().mean() > 0.9 and 0.2 < which[:, 0].float().mean() < 0.8
    half = torch.zeros(64, 16, 16, dtype=torch.bool)
    half[:, :, :8] = True
    assert (model.inpaint(images, half, torch.randn(64, 2, 4, 4)) == images).float().mean() > 0.95


def test_only_the_transformer_learns() -> None:
    model = small_maskgit()
    assert not model.train().autoencoder.training and model.network.training
    learnt = {id(p) for player in model.parameter_groups().values() for p in player}
    assert learnt == {id(p) for p in model.network.parameters()}


def test_each_sample_depends_on_its_own_noise_only() -> None:
    model, slices = small_maskgit(), discs(4, 3)
    base = draw(model, slices, "U9", seed=5, batch=12)
    assert np.array_equal(draw(model, slices, "U9", seed=5, batch=5).images, base.images)
    assert not np.array_equal(draw(model, slices, "U9", seed=6).images, base.images)
    assert base.images.shape == slices.images.shape and model.nfe == 4


def test_bad_settings_are_refused() -> None:
    for wrong in ({"steps": 0}, {"temperature": -1.0}, {"label_smoothing": 1.0}):
        with pytest.raises(ParameterError):
            MaskedSettings(**wrong)
    for wrong in ({"steps": 0}, {"temperature": -1.0}):  # nor are they taken for the defaults
        with pytest.raises(ParameterError):
            small_maskgit().sample(torch.randn(2, 2, 4, 4), {}, **wrong)
