"""Every attack where its answer is known in closed form: Gaussians, point masses, planted bands."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from clouds import First, cloud
from scipy import special, stats
from torch import nn

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError, SplitError
from cmri_lib.generators.base import batch_of
from cmri_lib.generators.diffusion import Diffusion, DiffusionSettings
from cmri_lib.generators.flow import FlowMatching
from cmri_lib.generators.gan import GAN
from cmri_lib.generators.masked import MaskGIT
from cmri_lib.generators.vae import VAE
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.privacy.attack import Attack, Target
from cmri_lib.privacy.attacks.critic import CriticOutput, LatentInversion
from cmri_lib.privacy.attacks.denoising_error import FCRE, PIA, PIAN, DenoisingLoss, Fluctuation, SecMI, SimA, beside, in_band
from cmri_lib.privacy.attacks.likelihood import ELBO, ODELikelihood, TokenLikelihood
from cmri_lib.privacy.attacks.noise_path import FIRST, noise_path
from cmri_lib.privacy.attacks.samples_only import DensityRatio, NearestSamples, log_density, patient_p_values
from cmri_lib.privacy.attacks.shadow_models import RMIA, LiRA, likelihood_ratio, spreads
from cmri_lib.privacy.nearest_neighbours import Pixels
from conftest import discs

SIZE, TIMES = 16, (0.2, 0.5, 0.8)
SLICES = discs(3, 2, SIZE, seed=3)


class Gaussian(nn.Module):
    """The optimal network for N(mean, spread²) images: E[x_0 | x_u], as a flow's velocity or as a diffusion's answer."""

    def __init__(self, mean, spread, levels=None, prediction=""):
        super().__init__()
        self.register_parameter("mean", nn.Parameter(torch.as_tensor(mean, dtype=torch.float32)))
        self.spread, self.levels, self.prediction = spread, levels, prediction

    def forward(self, x, t, batch):
        a, b = (t[0], 1 - t[0]) if self.levels is None else self.levels(t[0])
        x0 = self.mean + gain(a, b, self.spread) * (x - a * self.mean)
        noise = (x - a * x0) / b
        return {"": x0 - noise, "epsilon": noise, "sample": x0, "v": a * noise - b * x0}[self.prediction]


def gain(a, b, spread):
    return a * spread**2 / (a**2 * spread**2 + b**2)


def flow_of(mean, spread=0.0):
    return FlowMatching(Gaussian(mean, spread), Conditioning())


def diffusion_of(mean, spread, prediction):
    model = Diffusion(None, Conditioning(), DiffusionSettings(prediction=prediction))

    def levels(time):
        alpha_bar = float(model.alpha_bar[round(float(time) * model.last)])
        return alpha_bar**0.5, (1 - alpha_bar) ** 0.5

    model.network = Gaussian(mean, spread, levels, prediction)
    return model


MEAN = torch.from_numpy(SLICES.images[:1])
MODELS = {"flow": flow_of(MEAN, 0.4), **{p: diffusion_of(MEAN, 0.4, p) for p in ("epsilon", "v", "sample")}}


def scores(attack: Attack, generator, slices=SLICES) -> pd.DataFrame:
    target = Target("g", frozenset(), generator)
    assert attack.suits(target)
    return attack.scores(target, slices)


def apart() -> np.ndarray:
    """(N,) mean squared difference of each slice to the mean."""
    return ((SLICES.images - SLICES.images[:1]).astype(float) ** 2).mean((1, 2, 3))


def move(path, u, w, spread=0.4) -> float:
    """By what a deterministic step multiplies x_u − a mean, for a Gaussian."""
    (a, b), (after_a, after_b) = path.levels(u), path.levels(w)
    k = gain(a, b, spread)
    return after_a * k + after_b * (1 - a * k) / b


def test_the_loss_of_a_memorised_image_is_zero_and_of_another_its_distance():
    """A point mass: x̂_0 is the image learnt, so ε̂ − ε = a (x − μ) / b whatever the noise."""
    found = scores(DenoisingLoss(TIMES, draws=8), flow_of(MEAN))
    for u in TIMES:
        np.testing.assert_allclose(-found[f"u = {u:g}"], (1 - u) ** 2 / u**2 * apart(), rtol=1e-4, atol=1e-9)
    assert (found["all times"].to_numpy()[1:] < found["all times"][0]).all()


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_under_a_gaussian_is_the_closed_form(name):
    """E ‖ε̂ − ε‖² / D = (a (1 − a k) / b)² ‖x − μ‖² / D + (a k)², k the optimal gain; here the mean over many draws."""
    model = MODELS[name]
    path, found = noise_path(model), scores(DenoisingLoss((0.5,), draws=400), model)
    a, b = path.levels(0.5)
    k = gain(a, b, 0.4)
    expected = (a * (1 - a * k) / b) ** 2 * apart() + (a * k) ** 2
    np.testing.assert_allclose(-found["u = 0.5"], expected, rtol=0.03)


@pytest.mark.parametrize("name", MODELS)
def test_errors_of_deterministic_steps_under_a_gaussian_are_the_closed_form(name):
    model = MODELS[name]
    path, found = noise_path(model), scores(SecMI(TIMES), model)
    y = path.levels(FIRST)[0] ** 2 * apart()
    for u, w in zip((FIRST, *TIMES), TIMES):
        error = (move(path, u, w) * move(path, w, u) - 1) ** 2
        np.testing.assert_allclose(-found[f"u = {u:g}"], error * y, rtol=2e-2, atol=1e-8)
        y = y * move(path, u, w) ** 2


@pytest.mark.parametrize("name", MODELS)
def test_proximal_noise_and_the_norm_of_noise_under_a_gaussian(name):
    model = MODELS[name]
    path, size = noise_path(model), SIZE**2
    a0, b0 = path.levels(FIRST)
    first = (1 - a0 * gain(a0, b0, 0.4)) / b0 * a0  # ε̂_0 in units of x − μ
    plain, sima = scores(PIA(TIMES), model), scores(SimA(TIMES), model)
    for u in TIMES:
        a, b = path.levels(u)
        k = (1 - a * gain(a, b, 0.4)) / b
        distance = np.sqrt(apart() * size)
        np.testing.assert_allclose(-plain[f"u = {u:g}, p = 2"], abs(k * (a + b * first) - first) * distance,
                                   rtol=2e-2, atol=1e-4)
        bare = SLICES.images.astype(float) - a * SLICES.images[:1]  # nothing has scaled the image by a
        norm = k * (np.abs(bare) ** 4).sum((1, 2, 3)) ** 0.25
        np.testing.assert_allclose(-sima[f"u = {u:g}, p = 4"], norm, rtol=2e-3)


def test_normalised_proximal_noise_is_as_large_as_normal_noise():
    noise = torch.rand(4, 1, 8, 8) * torch.arange(1, 5).view(4, 1, 1, 1)
    scaled = PIAN(TIMES).proximal(noise)
    np.testing.assert_allclose(scaled.abs().mean((1, 2, 3)), math.sqrt(2 / math.pi), rtol=1e-5)
    np.testing.assert_allclose(torch.corrcoef(torch.stack([noise[0].flatten(), scaled[0].flatten()])), 1,
                               rtol=1e-5)


def test_bands_take_an_image_apart_and_a_planted_one_is_found():
    """x − μ is a wave of 3 cycles in 16 pixels, 3/8 of the highest frequency: the error lies in that band and in no other."""
    x = torch.from_numpy(SLICES.images)
    bands = ((0, 0.125), (0.125, 0.25), (0.25, 0.5), (0.5, 2.0))
    np.testing.assert_allclose(sum(in_band(x, band) for band in bands), x, atol=1e-5)
    wave = 0.1 * np.cos(2 * np.pi * 3 * np.arange(SIZE) / SIZE)[None, None, None]
    shifted = Slices((SLICES.images + wave).astype(np.float32), SLICES.masks, SLICES.table)
    found = scores(FCRE((0.3,), bands=bands, steps=2, draws=2), flow_of(MEAN), shifted.take([0]))
    errors = {band: -found[f"u = 0.3, band {band[0]:g} to {band[1]:g}, squared"][0] for band in bands}
    assert errors[bands[2]] == pytest.approx((wave**2).mean(), rel=1e-3)
    assert all(errors[band] < 1e-8 for band in bands if band != bands[2])
    alike = found[[c for c in found if c.endswith("SSIM")]].iloc[0]
    assert alike.idxmin() == "u = 0.3, band 0.25 to 0.5, SSIM"


@pytest.mark.parametrize("name", MODELS)
def test_three_steps_back_under_a_gaussian_are_the_closed_form(name):
    """Two deterministic steps and an estimate multiply x_u − a μ by a known number, which depends on their times."""
    model, attack = MODELS[name], FCRE((0.6,), bands=((0.0, 0.25), (0.25, 2.0)), steps=3, draws=2)
    path, x = noise_path(model), torch.from_numpy(SLICES.images)
    (a, b), third = path.levels(0.6), path.levels(0.2)
    back, found = gain(*third, 0.4) * move(path, 0.4, 0.2) * move(path, 0.6, 0.4), scores(attack, model)
    for band in attack.bands:
        expected = torch.stack([in_band(back * (a * (x - MEAN) + b * noise) - (x - MEAN), band).square().mean((1, 2, 3))
                                for noise in attack.noises(x)]).mean(0)
        np.testing.assert_allclose(-found[f"u = 0.6, band {band[0]:g} to {band[1]:g}, squared"], expected, rtol=1e-3)


@pytest.mark.parametrize("name", ["flow", "v"])
def test_the_ode_gives_the_density_of_a_gaussian(name):
    model, size = MODELS[name], SIZE**2
    a, b = noise_path(model).levels(FIRST)
    spread = math.sqrt(a**2 * 0.4**2 + b**2)
    expected = -0.5 * a**2 * apart() * size / spread**2 - size / 2 * math.log(2 * math.pi * spread**2) + size * math.log(a)
    found = scores(ODELikelihood(steps=40), model)["log-density"]
    # Some 0.4 nats are left however many the steps: at the last time the image is still a little in the noise.
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.7)


class Mixture(nn.Module):
    """The optimal flow for images that are N(−μ, spread²) or N(μ, spread²), as likely. μ is 0 but in the first pixel, so that
    the Jacobian is diagonal, and probes of ±1 give its trace exactly."""

    def __init__(self, mean, spread):
        super().__init__()
        self.means, self.spread = nn.Parameter(torch.zeros(2, 1, 1, 4, 4)), spread
        self.means.data[:, 0, 0, 0, 0] = torch.tensor([-mean, mean])

    def logits(self, x, a, b):
        """(2, B) log-density of x_u of either kind, without what both share."""
        return -(x - a * self.means.to(x)).square().flatten(2).sum(2) / (2 * (a**2 * self.spread**2 + b**2))

    def forward(self, x, t, batch):
        a, b = t[0], 1 - t[0]
        k, weights = gain(a, b, self.spread), self.logits(x, a, b).softmax(0).view(2, -1, 1, 1, 1)
        x0 = (weights * ((1 - k * a) * self.means + k * x)).sum(0)
        return x0 - (x - a * x0) / b


def test_the_ode_gives_the_density_of_a_mixture_where_traces_differ():
    network, images = Mixture(0.5, 0.2), 0.2 * np.random.default_rng(0).normal(size=(24, 1, 4, 4)).clip(-4, 4)
    images[:, 0, 0, 0] += np.linspace(-0.6, 0.6, 24)
    slices, (a, b) = Slices.from_arrays(images.clip(-1, 1)), (1 - FIRST, FIRST)
    logits = network.logits(a * torch.from_numpy(slices.images).double(), a, b).detach().numpy()
    expected = special.logsumexp(logits, axis=0) - math.log(2) - 8 * math.log(2 * math.pi * (a**2 * 0.2**2 + b**2))
    found = scores(ODELikelihood(steps=200), FlowMatching(network, Conditioning()), slices)["log-density"]
    np.testing.assert_allclose(found, expected + 16 * math.log(a), rtol=0, atol=0.05)


class Line(nn.Module):
    """Encoder, decoder and generator along one image: code ↔ multiple of it."""

    def __init__(self, image, log_variance=-40.0):
        super().__init__()
        self.image, self.log_variance = nn.Parameter(image.clone()), log_variance

    def forward(self, x, batch):
        if x.dim() == 2:
            return x.view(-1, 1, 1, 1) * self.image
        code = (x * self.image).flatten(1).sum(1, keepdim=True) / self.image.square().sum()
        return code, torch.full_like(code, self.log_variance)


def residues() -> tuple[np.ndarray, np.ndarray]:
    """Code and mean squared error of each slice's projection on the first."""
    x = SLICES.images.reshape(len(SLICES), -1).astype(float)
    code = x @ x[0] / (x[0] @ x[0])
    return code, ((x - code[:, None] * x[0]) ** 2).mean(1)


def test_the_elbo_of_a_linear_model_is_the_closed_form():
    vae = VAE(Line(MEAN), Line(MEAN), 1, Conditioning())
    found, (code, error) = scores(ELBO(draws=2), vae), residues()
    divergence = 0.5 * (code**2 + math.exp(-40) - 1 + 40)
    variance = np.maximum(error, vae.least_variance)
    likelihood = -SIZE**2 / 2 * (np.log(2 * np.pi * variance) + error / variance)
    np.testing.assert_allclose(found["bound"], likelihood - divergence, rtol=1e-3, atol=0.5)


def test_the_parts_of_the_elbo_are_the_mean_error_and_the_divergence_and_make_the_bound():
    """x is c m and what is orthogonal to m. Codes are N(c, v): their spread adds v z² ‖m‖² / D to the error, the same z² for
    every slice, and over many draws their mean is 1."""
    spread = 0.5
    vae = VAE(Line(MEAN, math.log(spread**2)), Line(MEAN), 1, Conditioning())
    found, (code, error) = scores(ELBO(draws=4000), vae), residues()
    added = -found["reconstruction"] - error
    assert np.ptp(added) < 1e-4 * added.mean()
    assert added.mean() == pytest.approx(spread**2 * float(MEAN.square().mean()), rel=4 * math.sqrt(2 / 4000))
    normals = torch.distributions.Normal(torch.from_numpy(code), spread), torch.distributions.Normal(0.0, 1.0)
    np.testing.assert_allclose(-found["divergence"], torch.distributions.kl_divergence(*normals), rtol=1e-5)
    # At the best σ², the mean squared error, the exponent of the density is −1/2 for each pixel.
    density = SIZE**2 * (stats.norm(scale=np.sqrt(-found["reconstruction"])).logpdf(0) - 0.5)
    np.testing.assert_allclose(found["bound"], density + found["divergence"], rtol=1e-9)


def test_the_elbo_of_a_slice_that_is_made_without_error_has_the_least_sigma():
    vae = VAE(Line(MEAN), Line(MEAN), 1, Conditioning())
    found = scores(ELBO(draws=1), vae).iloc[0]
    assert found["reconstruction"] == pytest.approx(0, abs=1e-9)
    assert found["bound"] - found["divergence"] == pytest.approx(SIZE**2 * stats.norm(scale=1 / 255).logpdf(0), rel=1e-5)


@pytest.mark.parametrize("kind", ["VAE", "GAN"])
def test_inversion_finds_the_nearest_image_that_can_be_made(kind):
    line = Line(MEAN)
    model = VAE(line, line, 1, Conditioning()) if kind == "VAE" else GAN(line, nn.Identity(), Conditioning())
    if kind == "GAN":
        model.noise_shape = lambda size: (1,)
    found = scores(LatentInversion(steps=200), model)
    np.testing.assert_allclose(-found["error"], residues()[1], rtol=1e-3, atol=1e-4)
    assert line.image.grad is None


def test_of_several_starts_of_an_inversion_the_best_counts():
    model = GAN(Line(MEAN), nn.Identity(), Conditioning())
    model.noise_shape = lambda size: (1,)
    each = np.stack([scores(LatentInversion(steps=2, seed=seed), model)["error"] for seed in range(4, 7)])
    np.testing.assert_allclose(scores(LatentInversion(steps=2, starts=3, seed=4), model)["error"], each.max(0), rtol=1e-6)
    assert set(each.argmax(0)) == {1}, "neither the first start nor the last is the best"


def test_the_critic_says_what_it_says():
    class Critic(nn.Module):
        def forward(self, x, batch):
            return torch.stack([x.mean((1, 2, 3)), x.mean((1, 2, 3)) + 1], 1)  # two patches

    gan = GAN(Line(MEAN), Critic(), Conditioning())
    np.testing.assert_allclose(scores(CriticOutput(), gan)["logit"], SLICES.images.mean((1, 2, 3)) + 0.5,
                               rtol=1e-4)
    assert not CriticOutput().suits(Target("g", frozenset(), flow_of(MEAN)))
    around = np.mean([beside(SLICES, 0.1, seed).images.mean((1, 2, 3)) for seed in (0, 1)], axis=0)
    attack = Fluctuation(CriticOutput(), (0.1, 0.1))
    np.testing.assert_allclose(scores(attack, gan)["logit"], SLICES.images.mean((1, 2, 3)) - around, atol=1e-5)
    assert attack.name == "pfami_critic" and np.abs(around - SLICES.images.mean((1, 2, 3))).min() > 1e-4


def test_tokens_of_a_network_that_guesses_by_frequency_are_as_likely_as_frequent():
    class Codes(nn.Module):
        """Tokens by brightness, two kinds."""
        codes = 2

        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def tokens(self, images):
            return (images[:, 0] > 0).long()

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.log(torch.tensor([0.8, 0.2])))

        def forward(self, tokens, batch):
            return self.logits.expand(*tokens.shape, 2)

    found = scores(TokenLikelihood((0.5, 1.0), draws=4), MaskGIT(Codes(), Network()))
    bright = (SLICES.images[:, 0] > 0).mean((1, 2))
    np.testing.assert_allclose(found["100% hidden"], bright * math.log(0.2) + (1 - bright) * math.log(0.8),
                               rtol=1e-6)
    np.testing.assert_allclose(found["50% hidden"], found["100% hidden"], atol=0.1)


class Peak(Attack):
    """Minus the squared distance to the first slice: a density with its peak there."""

    name = "loss"

    def suits(self, target):
        return True

    def scores(self, target, slices):
        return pd.DataFrame({"peak": -((slices.images - SLICES.images[:1]) ** 2).sum((1, 2, 3))})


def test_fluctuation_is_largest_on_a_peak():
    attack = Fluctuation(Peak())
    found = scores(attack, None)["peak"]
    assert attack.name == "pfami" and found[0] > 0 and found.idxmax() == 0
    flat = Fluctuation(Peak(), strengths=(0.0,))
    np.testing.assert_allclose(scores(flat, None)["peak"], 0, atol=1e-3)


# --- shadows
def test_the_likelihood_ratio_of_gaussians_is_the_closed_form():
    rng = np.random.default_rng(0)
    inside = rng.random((4000, 50)) < 0.5
    values = rng.normal(np.where(inside, 1.0, 0.0), np.where(inside, 0.5, 1.0))
    own = rng.normal(0.5, 1, 50)
    exact = stats.norm.logpdf(own, 1, 0.5) - stats.norm.logpdf(own, 0, 1)
    np.testing.assert_allclose(likelihood_ratio(own, values, inside, spreads(values, inside)), exact, rtol=0.1, atol=0.15)
    assert np.corrcoef(likelihood_ratio(own, values, inside, spreads(values, inside)), exact)[0, 1] > 0.99
    never = np.zeros((30, 50), bool)
    out = rng.normal(2, 3, (30, 50))
    far = likelihood_ratio(own, out, never, spreads(out, never))
    np.testing.assert_allclose(far, (own - out.mean(0)) / np.sqrt(out.var(0, ddof=1).mean()), rtol=1e-9)
    np.testing.assert_allclose(far, (own - out.mean(0)) / 3, rtol=0.05)
    with pytest.raises(DataError, match="left out by fewer than 2"):
        likelihood_ratio(own, values[:2], np.ones((2, 50), bool), (1.0, 1.0))


class Named(Attack):
    """A score for every (target, slice), given beforehand."""

    name = "given"

    def __init__(self, table):
        self.table = table

    def suits(self, target):
        return True

    def scores(self, target, slices):
        return pd.DataFrame({"s": [self.table[target.name][p] for p in slices.patients]})


def test_shadows_know_whom_they_have_seen():
    rng, people, strangers = np.random.default_rng(0), discs(40, 1, 8, seed=1), discs(30, 1, 8, seed=2)
    hard = {p: rng.normal(0, 5) for p in [*people.patients, *strangers.patients]}
    seen = {name: frozenset(rng.permutation(people.patients)[:20])
            for name in ("g", *(f"s{i}" for i in range(12)))}
    table = {name: {p: hard[p] + (p in inside) + 0.2 * rng.normal() for p in hard}
             for name, inside in seen.items()}
    target, *shadows = (Target(name, inside) for name, inside in seen.items())
    inside = np.isin(people.patients, list(target.seen))
    for attack in (LiRA(Named(table), tuple(shadows), people), RMIA(Named(table), tuple(shadows), strangers)):
        found = attack.scores(target, people)["s"].to_numpy()
        assert found[inside].min() > found[~inside].max(), attack.name
    plain = Named(table).scores(target, people)["s"]
    assert plain[inside].min() < plain[~inside].max()
    with pytest.raises(SplitError, match="population"):
        RMIA(Named(table), tuple(shadows), people).scores(target, people)


def test_members_and_strangers_are_told_on_one_scale():
    """A slice has the same score whether those of its side are asked about alone, or all together."""
    rng, people = np.random.default_rng(2), discs(20, 1, 8, seed=1)
    names = np.unique(people.patients)
    seen = {name: frozenset(rng.permutation(names)[:10]) for name in ("g", *(f"s{i}" for i in range(8)))}
    table = {name: {p: rng.normal(0, 1 + 4 * (p in names[:10])) for p in names} for name in seen}
    target, *shadows = (Target(name, inside) for name, inside in seen.items())
    attack = LiRA(Named(table), tuple(shadows), people)
    first = np.isin(people.patients, names[:10])
    apart = np.concatenate([attack.scores(target, people.take(side))["s"] for side in (first, ~first)])
    together = attack.scores(target, people)["s"].to_numpy()
    np.testing.assert_allclose(apart, np.concatenate([together[first], together[~first]]))


def test_the_ratio_to_the_population_is_counted_by_hand():
    people, strangers = discs(4, 1, 8, seed=1), discs(5, 1, 8, seed=2)
    rng = np.random.default_rng(1)
    table = {name: {p: rng.normal() for p in [*people.patients, *strangers.patients]}
             for name in ("g", "a", "b")}
    found = RMIA(Named(table), (Target("a", frozenset()), Target("b", frozenset())),
                 strangers).scores(Target("g", frozenset()), people)
    ratio = {p: table["g"][p] - (table["a"][p] + table["b"][p]) / 2 for p in table["g"]}
    expected = [np.mean([ratio[p] >= ratio[z] for z in strangers.patients]) for p in people.patients]
    np.testing.assert_allclose(found["s"], expected)


# --- samples alone
def test_distances_to_samples_are_brute_force():
    made = discs(6, 2, SIZE, seed=9)
    found = NearestSamples(Pixels(), (1, 5)).scores(Target("g", frozenset(), None, made), SLICES)
    x, y = (s.images.reshape(len(s), -1).astype(float) for s in (SLICES, made))
    distances = np.sort(np.sqrt(((x[:, None] - y[None]) ** 2).mean(2)), axis=1)
    np.testing.assert_allclose(-found["nearest 1"], distances[:, 0], rtol=1e-6)
    np.testing.assert_allclose(-found["nearest 5"], distances[:, :5].mean(1), rtol=1e-6)


def test_a_kernel_density_is_that_of_a_gaussian():
    rng = np.random.default_rng(0)
    data, points = rng.normal(size=(20000, 2)), 0.8 * rng.normal(size=(50, 2))
    width = 20000 ** (-1 / 6)
    exact = stats.multivariate_normal(np.zeros(2), (1 + width**2) * np.eye(2)).logpdf(points)
    np.testing.assert_allclose(log_density(points, data, 1.0), exact, atol=0.1)
    single = log_density(np.zeros((1, 3)), np.ones((1, 3)), 0.7)[0]
    assert single == pytest.approx(stats.multivariate_normal(np.ones(3),
                                                             0.49 * np.eye(3)).logpdf(np.zeros(3)))


def test_where_samples_are_too_dense_somebody_was_learnt():
    rng = np.random.default_rng(0)
    people, strangers, others = (cloud(0.1 * rng.normal(size=(40, 3)), name) for name in "mno")
    around = np.repeat(First(3)(people.images), 10, axis=0) + 0.01 * rng.normal(size=(400, 3))
    attack, target = DensityRatio(First(3), others, components=3), Target("g", frozenset(people.patients),
                                                                         None, cloud(around, "s"))
    ins, outs = (attack.scores(target, side)["bandwidth 0.5"] for side in (people, strangers))
    assert np.mean(ins.to_numpy()[:, None] > outs.to_numpy()) > 0.8
    with pytest.raises(SplitError, match="density ratio"):
        DensityRatio(First(3), people).scores(target, strangers)


def test_p_values_of_patients_are_valid_where_a_t_test_of_their_slices_is_not():
    rng, ours, naive = np.random.default_rng(0), [], []
    for _ in range(300):
        people = rng.normal(0, 1, 41)[:, None] + 0.1 * rng.normal(size=(41, 8))  # 8 slices that are alike, nobody learnt
        ours.append(patient_p_values(people[:1].mean(1), people[1:].mean(1))[0])
        naive.append(stats.ttest_ind(people[0], people[1:].ravel(), alternative="greater").pvalue)
    assert np.mean(np.array(ours) <= 0.05) <= 0.09
    assert np.mean(np.array(naive) <= 0.05) > 0.15
    assert patient_p_values(np.array([9.0]), np.arange(19.0) / 3)[0] == pytest.approx(1 / 20)
    with pytest.raises(DataError, match="no strangers"):
        patient_p_values(np.zeros(1), np.zeros(0))


def test_batches_are_what_the_generator_learns_from():
    path = noise_path(MODELS["flow"])
    x, batch = next(path.batches(SLICES))
    np.testing.assert_array_equal(x, batch_of(SLICES)["image"])
    assert path.images(x) is x and noise_path(VAE(Line(MEAN), Line(MEAN), 1, Conditioning())) is None
