"""Diffusion against Gaussian targets, whose score and paths are known in closed form, and against diffusers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Small, discs
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.generators.base import draw, noise_stream
from cmri_lib.generators.diffusion import SAMPLERS, Diffusion, DiffusionSettings, cumulative_alpha
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.networks.unet import Denoiser, UNetSettings
from cmri_lib.training import TrainSettings, train

MEAN, SPREAD = 0.6, 0.4
PREDICTIONS = ("epsilon", "v", "sample")
DIFFUSERS_SCHEDULE = {"linear": "linear", "cosine": "squaredcos_cap_v2"}


class Exact(nn.Module):
    """What a network that has learnt N(MEAN, SPREAD²) perfectly answers: with x_n = α x_0 + σ ε, the regression of x_0 on
    x_n has slope α SPREAD² / (α² SPREAD² + σ²), and that of ε has slope σ / (α² SPREAD² + σ²)."""

    def __init__(self, settings: DiffusionSettings):
        super().__init__()
        self.settings, self.alpha_bar = settings, cumulative_alpha(settings.schedule, settings.train_steps)

    def forward(self, x: Tensor, t: Tensor, batch: dict) -> Tensor:
        n = (t.double() * self.settings.train_steps).round().long()
        square = self.alpha_bar[n].view(-1, *[1] * (x.dim() - 1))
        alpha, sigma, variance = square.sqrt(), (1 - square).sqrt(), square * SPREAD**2 + 1 - square
        noise = sigma / variance * (x - alpha * MEAN)
        clean = MEAN + alpha * SPREAD**2 / variance * (x - alpha * MEAN)
        answer = {"epsilon": noise, "sample": clean, "v": alpha * noise - sigma * clean}[self.settings.prediction]
        return answer.to(x.dtype)


def exact(**choices: object) -> Diffusion:
    settings = DiffusionSettings(**{"clip": False, **choices})
    return Diffusion(Exact(settings), Conditioning(), settings)


def carried(diffusion: Diffusion, x: Tensor, start: int, end: int) -> Tensor:
    """Where the probability flow takes x from n = start to end: the monotone map between the two Gaussian marginals."""
    (alpha, sigma), (to_alpha, to_sigma) = ([a.sqrt(), (1 - a).sqrt()] for a in diffusion.alpha_bar[[start, end]])
    widths = [(a**2 * SPREAD**2 + s**2).sqrt() for a, s in ((alpha, sigma), (to_alpha, to_sigma))]
    return to_alpha * MEAN + widths[1] / widths[0] * (x - alpha * MEAN)


def end_of(diffusion: Diffusion, x: Tensor, sampler: str, times: list[int]) -> Tensor:
    *_, (last, x, _) = diffusion.path(x, {}, sampler, times)
    assert last == times[-1]
    return x


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpm-solver", 2)])
def test_samplers_converge_at_their_order(sampler: str, order: int, prediction: str) -> None:
    diffusion = exact(train_steps=16_000, prediction=prediction)  # so many levels that steps are equal in time
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    errors = [(end_of(diffusion, x, sampler, list(range(14_400, 1_599, -12_800 // steps)))
               - carried(diffusion, x, 14_400, 1_600)).abs().max().item() for steps in (40, 80, 160)]
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx([order, order], abs=0.25)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize(("sampler", "steps", "tolerance"), [("ddpm", 250, 0.02), ("ddim", 100, 0.02),
                                                             ("dpm-solver", 25, 0.02)])
def test_samplers_reach_the_gaussian(sampler: str, steps: int, tolerance: float, schedule: str) -> None:
    x = torch.randn(4, 1, 100, 100)
    x = (x - x.mean()) / x.std()
    made = exact(schedule=schedule, sampler=sampler, steps=steps).sample(x, {})
    assert made.mean().item() == pytest.approx(MEAN, abs=tolerance)
    assert made.std().item() == pytest.approx(SPREAD, abs=tolerance)


def test_ancestral_sampling_has_the_moments_of_its_recursion() -> None:
    diffusion = exact(schedule="linear", prediction="epsilon")
    times, x = diffusion.times(5), torch.randn(4, 1, 200, 200)
    mean, variance = x.mean().item(), x.var().item()
    for n, m in zip(times, times[1:]):  # each step is affine in x, plus the posterior's noise
        a, b = diffusion.alpha_bar[n].item(), diffusion.alpha_bar[m].item()
        total = a * SPREAD**2 + 1 - a
        slope = SPREAD**2 * a**0.5 / total
        posterior = (1 - b) / (1 - a) * (1 - a / b)
        from_clean, from_x = b**0.5 * (1 - a / b) / (1 - a), (a / b) ** 0.5 * (1 - b) / (1 - a)  # Ho et al. eq. 7
        mean = from_clean * (MEAN + slope * (mean - a**0.5 * MEAN)) + from_x * mean
        variance = (from_clean * slope + from_x) ** 2 * variance + posterior
    made = end_of(diffusion, x, "ddpm", times)
    assert made.mean().item() == pytest.approx(mean, abs=0.01) and made.std().item() == pytest.approx(variance**0.5, abs=0.01)
    assert variance**0.5 < SPREAD - 0.03  # few ancestral steps lose variance


@pytest.mark.parametrize(("prediction", "weighting"), [("epsilon", "none"), ("v", "none"), ("sample", "min-snr")])
def test_trained_score_is_the_analytic_one(prediction: str, weighting: str, tmp_path: Path) -> None:
    settings = DiffusionSettings(prediction=prediction, weighting=weighting, clip=False)
    diffusion = Diffusion(Small(), Conditioning(), settings)
    train(diffusion, {"image": MEAN + SPREAD * torch.randn(4000, 1)},
          TrainSettings(steps=900, batch=256, learning_rate=1e-2), tmp_path)
    n = torch.arange(200, 900, 100).repeat_interleave(11)
    alpha, sigma = (level[:, 0] for level in diffusion.levels(n, torch.zeros(len(n), 1)))
    variance = alpha**2 * SPREAD**2 + sigma**2
    x = alpha * MEAN + torch.linspace(-1.5, 1.5, 11).repeat(7) * variance.sqrt()
    clean = diffusion.predict_x0(x[:, None], n, {})[:, 0]
    learnt, true = (alpha * clean - x) / sigma**2, (alpha * MEAN - x) / variance  # ∇ log p(x_n)
    assert (learnt - true).square().mean().sqrt() < 0.1 * true.square().mean().sqrt()
    made = diffusion.sample(torch.randn(4000, 1), {})
    near = 0.1 if prediction == "epsilon" else 0.05  # an error in ε is divided by α < 0.01 where sampling starts
    assert made.mean().item() == pytest.approx(MEAN, abs=near) and made.std().item() == pytest.approx(SPREAD, abs=near)


def test_loss_of_the_exact_field_is_the_conditional_variance() -> None:
    diffusion = exact(prediction="epsilon")
    loss = diffusion.loss({"image": MEAN + SPREAD * torch.randn(400_000, 1)}, "model").item()
    square = diffusion.alpha_bar[1:]
    assert loss == pytest.approx((square * SPREAD**2 / (square * SPREAD**2 + 1 - square)).mean().item(), rel=0.01)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules_and_noise_agree_with_diffusers(schedule: str) -> None:
    theirs = DDPMScheduler(beta_schedule=DIFFUSERS_SCHEDULE[schedule])
    ours = exact(schedule=schedule)
    assert ours.alpha_bar[0] == 1 and (ours.alpha_bar.diff() < 0).all()
    assert torch.allclose(ours.alpha_bar[1:].float(), theirs.alphas_cumprod, rtol=2e-4)  # theirs multiplies floats
    x0, noise, n = torch.rand(5, 1, 8, 8), torch.randn(5, 1, 8, 8), torch.tensor([1, 10, 400, 900, 999])
    assert torch.allclose(ours.add_noise(x0, noise, n), theirs.add_noise(x0, noise, n - 1), atol=1e-4)


def test_schedules_have_the_values_of_their_formulas_at_both_ends() -> None:
    linear, cosine = cumulative_alpha("linear", 1000), cumulative_alpha("cosine", 1000)
    assert linear[1].item() == pytest.approx(1 - 1e-4) and linear[-1].item() == pytest.approx(4.04e-5, rel=0.01)
    start = np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    assert cosine[500].item() == pytest.approx(np.cos(0.508 / 1.008 * np.pi / 2) ** 2 / start)
    assert (1 - cosine[-1] / cosine[-2]).item() == pytest.approx(0.999)
    assert cumulative_alpha("linear", 4000)[-1].item() == pytest.approx(linear[-1].item(), rel=0.15)


def test_sampling_starts_in_noise_and_ends_at_the_image() -> None:
    for schedule in ("linear", "cosine"):
        diffusion = exact(schedule=schedule)
        times = diffusion.times(25)
        assert len(times) == 26 and times[-1] == 0 and (np.diff(times) < 0).all()
        assert 0.005 < diffusion.alpha_bar[times[0]].sqrt() < 0.01
        full = diffusion.times(1000)
        assert full == list(range(full[0], -1, -1))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_prediction_gives_the_clean_image_back(prediction: str) -> None:
    class Told(nn.Module):
        def forward(self, x: Tensor, t: Tensor, batch: dict) -> Tensor:
            return batch["answer"]

    diffusion = Diffusion(Told(), Conditioning(), DiffusionSettings(prediction=prediction))
    n = torch.tensor([1, 100, 500, 900])
    x0, noise = torch.rand(4, 1, 8, 8) * 2 - 1, torch.randn(4, 1, 8, 8)
    batch = {"answer": diffusion.target(x0, noise, n)}
    assert torch.allclose(diffusion.predict_x0(diffusion.add_noise(x0, noise, n), n, batch), x0, atol=1e-4)


def test_min_snr_weights_are_those_counted_by_hand() -> None:
    square = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)  # SNR 9, 1, 0.25; capped at 5
    by_hand = {"epsilon": [5 / 9, 1, 1], "v": [5 / 10, 1 / 2, 0.25 / 1.25], "sample": [5, 1, 0.25]}
    for prediction, wanted in by_hand.items():
        diffusion = exact(prediction=prediction, weighting="min-snr")
        diffusion.alpha_bar = square
        assert diffusion.weight(torch.arange(3)).tolist() == pytest.approx(wanted)
    assert exact().weight(torch.arange(1, 4)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_minimisers_weighted_by_min_snr_are_one_problem(prediction: str) -> None:
    x0, guess, noise, n = torch.randn(3, 9), torch.randn(3, 9), torch.randn(3, 9), torch.tensor([50, 500, 900])
    diffusion = exact(prediction=prediction, weighting="min-snr")
    alpha, sigma = diffusion.levels(n, x0)
    noise_of_guess = (diffusion.add_noise(x0, noise, n) - alpha * guess) / sigma
    error = diffusion.target(guess, noise_of_guess, n) - diffusion.target(x0, noise, n)
    weighted = diffusion.weight(n) * error.square().mean(1)
    snr = (alpha / sigma).square()[:, 0]
    assert torch.allclose(weighted, snr.clamp(max=5) * (guess - x0).square().mean(1), rtol=1e-3)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_steps_agree_with_diffusers(sampler: str, prediction: str, clip: bool) -> None:
    if sampler == "dpm-solver" and clip:
        pytest.skip("diffusers' multistep solver does not clip")
    ours = exact(schedule="linear", prediction=prediction, clip=clip)
    kind = {"prediction_type": {"v": "v_prediction"}.get(prediction, prediction), "timestep_spacing": "trailing"}
    if sampler == "dpm-solver":
        theirs = DPMSolverMultistepScheduler(**kind, final_sigmas_type="zero", beta_end=0.02, beta_start=1e-4)
    else:
        theirs = DDIMScheduler(**kind, clip_sample=clip)
    theirs.set_timesteps(10)
    x = first = torch.randn(3, 1, 8, 8)
    fresh, states = noise_stream(first), ours.path(first, {}, sampler, list(range(1000, -1, -100)))
    for t, (m, state, _) in zip(theirs.timesteps, states, strict=True):
        answer = ours.network(x, torch.full((3,), (t.item() + 1) / 1000), {})
        noise = {"eta": 1.0, "variance_noise": next(fresh) if m else torch.zeros_like(x)} if sampler == "ddpm" else {}
        if sampler != "dpm-solver":
            noise["use_clipped_model_output"] = True  # ours always takes the noise that the clipped image implies
        x = theirs.step(answer, t, x, **noise).prev_sample
        assert torch.allclose(state, x, atol=2e-3, rtol=1e-3), (t, m)


def hearts(**choices: object) -> Diffusion:
    torch.manual_seed(0)
    diffusion = Diffusion(Denoiser(UNetSettings((8, 16), head_channels=8), Conditioning()), Conditioning(),
                          DiffusionSettings(**{"steps": 4, **choices}))
    nn.init.normal_(diffusion.network.unet.out[-1].conv.weight, std=0.1)  # MONAI starts the last layer at zero
    return diffusion


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_each_sample_depends_on_its_own_noise_only(sampler: str) -> None:
    diffusion, slices = hearts(sampler=sampler), discs(4, 3)
    base = draw(diffusion, slices, "U6", seed=5, batch=12).images
    assert np.allclose(draw(diffusion, slices, "U6", seed=5, batch=5).images, base, atol=1e-4)
    assert not np.allclose(draw(diffusion, slices, "U6", seed=6).images, base, atol=1e-2)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nfe_counts_network_calls(sampler: str) -> None:
    diffusion, calls = hearts(sampler=sampler, steps=7), []
    diffusion.network.register_forward_hook(lambda *a: calls.append(1))
    diffusion.sample(torch.randn(2, 1, 16, 16), {})
    assert len(calls) == diffusion.nfe == 7


def test_latents_keep_their_channels_and_range() -> None:
    wide = Diffusion(Denoiser(UNetSettings((8, 16), head_channels=8), Conditioning(), channels=4), Conditioning(),
                     DiffusionSettings(clip=False, steps=3))
    noise = 3 * torch.randn(2, 4, 8, 8)
    assert wide.sample(noise, {}).shape == noise.shape and wide.sample(noise, {}).abs().max() > 1
    assert wide.loss({"image": noise}, "model").isfinite()
    assert hearts().sample(torch.randn(2, 1, 16, 16), {}).abs().max() <= 1


def test_the_schedule_is_no_weight_but_the_objective_is_part_of_the_model() -> None:
    assert not [name for name in hearts().state_dict() if "alpha" in name]
    assert vars(hearts(prediction="v"))["prediction"] != vars(hearts(prediction="epsilon"))["prediction"]


def test_bad_settings_are_refused() -> None:
    for wrong in ({"sampler": "euler"}, {"steps": 0}, {"steps": 2000}):
        with pytest.raises(ParameterError, match="sampler"):
            DiffusionSettings(**wrong)
        with pytest.raises(ParameterError, match="sampler"):
            hearts().sample(torch.randn(2, 1, 16, 16), {}, **wrong)
