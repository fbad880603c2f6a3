"""Diffusion: a network learns to undo noise, one level at a time.

Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020 (arXiv 2006.11239); Nichol & Dhariwal 2021 (2102.09672);
Song et al., DDIM, 2021 (2010.02502); Salimans & Ho 2022 (2202.00512); Lu et al., DPM-Solver++, 2022 (2211.01095); Hang et
al., min-SNR, 2023 (2303.09556). Time runs from image (n = 0) to noise (n = T): x_n = α_n x_0 + σ_n ε with α² + σ² = 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.generators.base import Generator, chosen_settings, noise_stream
from cmri_lib.networks.conditioning.base import Batch, Conditioning
from cmri_lib.training.shared import places_in_batch

SAMPLERS = ("ddpm", "ddim", "dpm-solver")

#: Sampling starts where log(α/σ) first exceeds this: above it the cosine schedule divides by almost nothing, and the
#: image is below 1 % of the noise anyway (the bound of DPM-Solver's authors for this schedule).
LEAST_LOG_RATIO = -5.1

#: Upper bound of the signal-to-noise ratio in min-SNR weights (Hang et al. 2023, sec. 4.3).
GAMMA = 5.0


@dataclass(frozen=True)
class DiffusionSettings:
    """Noise levels, what the network predicts, how errors at different levels count, and the default sampler.

    `schedule`: "linear" of Ho et al. or "cosine" of Nichol & Dhariwal, which destroys small images less abruptly.
    `prediction`: the noise ε, the clean image ("sample"), or v = α ε − σ x_0. `clip` keeps the predicted clean image in
    [−1, 1] while sampling: for pixels, not for latents.
    """

    schedule: Literal["linear", "cosine"] = "cosine"
    train_steps: int = 1000
    prediction: Literal["epsilon", "v", "sample"] = "v"
    weighting: Literal["none", "min-snr"] = "none"
    sampler: Literal["ddpm", "ddim", "dpm-solver"] = "dpm-solver"
    steps: int = 20
    clip: bool = True

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS or not 1 <= self.steps <= self.train_steps:
            raise ParameterError(f"sampler {self.sampler!r}, {self.steps} of {self.train_steps} steps", field="sampler",
                                 remedy=f"choose one of {list(SAMPLERS)} and 1 to train_steps steps")


class Diffusion(Generator):
    """U6, and the diffusion of the latent systems: any tensors (B, C, H, W), or (B, D) in a toy.

    Args:
        network: (x_n, n/T, batch) → ε, v or x_0 of x_n's shape, as `settings.prediction` says.
        conditioning: the one that `network` uses.
        settings: objective and sampler.
    """

    recordable = True

    def __init__(self, network: nn.Module, conditioning: Conditioning, settings: DiffusionSettings = DiffusionSettings()):
        super().__init__()
        self.network, self.conditioning, self.settings = network, conditioning, settings
        # What training depends on, unlike the sampler:
        self.schedule, self.last = settings.schedule, settings.train_steps
        self.prediction, self.weighting = settings.prediction, settings.weighting
        # Double precision: near n = 0 and n = T one of α, σ is a small difference of large numbers.
        self.register_buffer("alpha_bar", cumulative_alpha(self.schedule, self.last), persistent=False)

    @property
    def nfe(self) -> int:
        return self.settings.steps

    def loss(self, batch: Batch, group: str) -> Tensor:
        """E w(n) ‖f(x_n, n) − target‖²; with ε as target and w = 1 it is Ho et al. eq. 14."""
        x0 = batch["image"]
        n = self._draw_times(len(x0), x0.device)
        noise = torch.randn_like(x0)
        xn = self.add_noise(x0, noise, n)
        error = self.network(xn, n / self.last, batch) - self.target(x0, noise, n)
        return (self.weight(n) * error.square().flatten(1).mean(1)).mean()

    def _draw_times(self, count: int, device: torch.device) -> Tensor:
        """(count,) integers, each uniform in 1 … T, together spread evenly: small batches see all noise levels, which
        steadies the gradient (Kingma et al. 2021, app. I.1)."""
        even = (torch.rand((), device=device) + places_in_batch(count, device)) % 1
        return (even * self.last).long().clamp(max=self.last - 1) + 1

    def levels(self, n: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """α_n and σ_n of integer times n (B,), shaped to multiply `like` (B, …), in its precision."""
        alpha_bar = self.alpha_bar[n].view(-1, *[1] * (like.dim() - 1))
        return alpha_bar.sqrt().to(like.dtype), (1 - alpha_bar).sqrt().to(like.dtype)

    def add_noise(self, x0: Tensor, noise: Tensor, n: Tensor) -> Tensor:
        """x_n = α_n x_0 + σ_n ε, Ho et al. eq. 4."""
        alpha, sigma = self.levels(n, x0)
        return alpha * x0 + sigma * noise

    def target(self, x0: Tensor, noise: Tensor, n: Tensor) -> Tensor:
        """What the network should answer."""
        alpha, sigma = self.levels(n, x0)
        return {"epsilon": noise, "sample": x0, "v": alpha * noise - sigma * x0}[self.prediction]

    def weight(self, n: Tensor) -> Tensor:
        """(B,) weights of squared errors. Min-SNR caps the weight of the error in x_0, SNR = α²/σ² for plain ε, at γ
        (Hang et al. 2023, sec. 3.4); dividing by SNR or SNR + 1 makes it one of ε or v."""
        if self.weighting == "none":
            return torch.ones(len(n), device=n.device)
        snr = self.alpha_bar[n] / (1 - self.alpha_bar[n])
        scale = {"sample": torch.ones_like(snr), "epsilon": snr, "v": snr + 1}[self.prediction]
        return (snr.clamp(max=GAMMA) / scale).float()

    def predict_x0(self, xn: Tensor, n: Tensor, batch: Batch) -> Tensor:
        """The network's opinion of x_0, whatever it predicts, clipped if the settings say so. n (B,) in 1 … T."""
        alpha, sigma = self.levels(n, xn)
        answer = self.network(xn, (n / self.last).to(xn.dtype), batch)
        if self.prediction == "epsilon":
            answer = (xn - sigma * answer) / alpha
        elif self.prediction == "v":
            answer = alpha * xn - sigma * answer
        return answer.clamp(-1, 1) if self.settings.clip else answer

    def sample(self, noise: Tensor, batch: Batch, *, sampler: str | None = None, steps: int | None = None) -> Tensor:
        """Images by the given or else the default sampler and number of steps; one network evaluation per step. Raises
        ParameterError as `DiffusionSettings` does."""
        chosen = chosen_settings(self.settings, sampler=sampler, steps=steps)
        *_, (_, x, _) = self.path(noise, batch, chosen.sampler, self.times(chosen.steps))
        return x

    def times(self, steps: int) -> list[int]:
        """`steps` + 1 integers (fewer if there are not so many levels), equally spaced, from where sampling starts to 0."""
        start = int((0.5 * torch.logit(self.alpha_bar) > LEAST_LOG_RATIO).nonzero().max())
        return torch.linspace(start, 0, min(steps, start) + 1, dtype=torch.float64).round().int().tolist()

    @torch.no_grad()
    def path(self, x: Tensor, batch: Batch, sampler: str, times: Sequence[int]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Denoise x along decreasing `times`; yields (m, x_m, predicted x_0) after each step n → m.

        All three samplers remix the predicted image x̂_0 and the noise ε̂ that it implies, at the next level:
        x_m = α_m x̂_0 + √(σ_m² − s²) ε̂ + s z (Song et al. 2021, eq. 12). "ddpm" is ancestral: fresh noise z with the
        posterior's s (Ho et al. eq. 7). "ddim" has s = 0. "dpm-solver" is DDIM with x̂_0 extrapolated to the middle of the
        step from this and the previous prediction (Lu et al. 2022, alg. 2), of second order in log(α/σ).
        """
        fresh = noise_stream(x)
        before: tuple[int, Tensor] | None = None
        for n, m in pairwise(times):
            (alpha, sigma), (next_alpha, next_sigma) = self._levels_at(n), self._levels_at(m)
            x0 = guess = self.predict_x0(x, torch.full((len(x),), n, device=x.device), batch)
            if sampler == "dpm-solver" and before is not None and m > 0:
                guess = x0 + self._half_step(before[0], n, m) * (x0 - before[1])
            noise = (x - alpha * guess) / sigma
            spread = next_sigma / sigma * (1 - (alpha / next_alpha) ** 2) ** 0.5 if sampler == "ddpm" else 0.0
            x = next_alpha * guess + (next_sigma**2 - spread**2) ** 0.5 * noise
            if spread > 0:
                x = x + spread * next(fresh)
            before = n, x0
            yield m, x, x0

    def _levels_at(self, n: int) -> tuple[float, float]:
        alpha_bar = float(self.alpha_bar[n])
        return alpha_bar**0.5, (1 - alpha_bar) ** 0.5

    def _half_step(self, before: int, n: int, m: int) -> float:
        """Half of step n → m in units of the step before it, both measured in λ = log(α/σ)."""
        earlier, here, later = (0.5 * torch.logit(self.alpha_bar[[before, n, m]])).tolist()
        return 0.5 * (later - here) / (here - earlier)


def cumulative_alpha(schedule: str, steps: int) -> Tensor:
    """(T + 1,) ᾱ_n = α_n², the share of the image's variance left after n steps; ᾱ_0 = 1.

    "linear": β from 1e-4 to 0.02 (Ho et al., sec. 4), scaled so that any T ends alike. "cosine": Nichol & Dhariwal eq. 17,
    with β ≤ 0.999.
    """
    if schedule == "linear":
        beta = torch.linspace(1e-4, 0.02, steps, dtype=torch.float64) * (1000 / steps)
    else:
        n = torch.arange(steps + 1, dtype=torch.float64)
        angle = (n / steps + 0.008) / 1.008 * torch.pi / 2
        beta = (1 - angle[1:].cos().square() / angle[:-1].cos().square()).clamp(max=0.999)
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - beta).cumprod(0)])
