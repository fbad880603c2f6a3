"""Flow matching: a network learns the velocity that carries noise to images along straight lines.

Lipman et al., "Flow Matching for Generative Modeling", ICLR 2023 (arXiv 2210.02747); Tong et al., "Improving and
Generalizing Flow-Based Generative Models with Minibatch Optimal Transport", TMLR 2024 (arXiv 2302.00482).
Time runs from noise (t = 0) to image (t = 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.generators.base import Generator, chosen_settings
from cmri_lib.networks.conditioning.base import Batch, Conditioning
from cmri_lib.networks.conditioning.partner import PARTNER

#: The entry of a batch that holds the noise coupled with its images.
COUPLED = "coupled noise"
#: Network evaluations per step of each solver.
EVALUATIONS = {"euler": 1, "midpoint": 2, "heun": 2}


@dataclass(frozen=True)
class FlowSettings:
    """`coupling` pairs noise with images: independently, or by optimal transport within a `pool` of so many of both (0: within
    the batch, where it changes little); `times` draws t uniformly or
    logit-normally (more weight in the middle, Esser et al. 2024, eq. 19); `solver` and `steps` are the default sampler."""

    coupling: Literal["independent", "ot"] = "ot"
    pool: int = 0
    times: Literal["uniform", "logit-normal"] = "uniform"
    solver: Literal["euler", "midpoint", "heun"] = "euler"
    steps: int = 20

    def __post_init__(self) -> None:
        if self.solver not in EVALUATIONS or self.steps < 1:
            raise ParameterError(f"solver {self.solver!r}, {self.steps} steps", field="solver",
                                 remedy=f"choose one of {list(EVALUATIONS)} and at least one step")


class FlowMatching(Generator):
    """U10 and its conditional kin.

    Args:
        network: (x_t, t, batch) → velocity of x_t's shape.
        conditioning: the one that `network` uses.
        settings: objective and sampler.
    """

    def __init__(self, network: nn.Module, conditioning: Conditioning, settings: FlowSettings = FlowSettings()):
        super().__init__()
        self.network, self.conditioning, self.settings = network, conditioning, settings
        self.coupling, self.times = settings.coupling, settings.times  # what training depends on, unlike the sampler
        self.pool = settings.pool if settings.coupling == "ot" else 0

    @property
    def recordable(self) -> bool:
        """A transport plan within the batch is made on the CPU."""
        return self.coupling != "ot" or self.pool > 0

    @property
    def nfe(self) -> int:
        return self.settings.steps * EVALUATIONS[self.settings.solver]

    def loss(self, batch: Batch, group: str) -> Tensor:
        """Conditional flow matching, Lipman et al. eq. 23 with σ_min = 0: E ‖v(x_t, t) − (x_1 − x_0)‖²."""
        x1 = batch["image"]
        x0 = batch[COUPLED] if COUPLED in batch else self._paired(x1, torch.randn_like(x1))
        t = self._draw_times(len(x1), x1.device)
        s = t.view(-1, *[1] * (x1.dim() - 1))
        xt = (1 - s) * x0 + s * x1  # straight path
        return F.mse_loss(self.network(xt, t, batch), x1 - x0)

    def couple(self, images: Batch, generator: torch.Generator) -> Batch:
        """The noise of each image of a pool."""
        x1 = images["image"]
        return {COUPLED: self._paired(x1, torch.randn(x1.shape, generator=generator).to(x1))}

    def _paired(self, x1: Tensor, x0: Tensor) -> Tensor:
        return x0[transport_plan(x0, x1)] if self.coupling == "ot" else x0

    def _draw_times(self, n: int, device: torch.device) -> Tensor:
        if self.times == "logit-normal":
            return torch.sigmoid(torch.randn(n, device=device))
        return torch.rand(n, device=device)

    def sample(self, noise: Tensor, batch: Batch, *, solver: str | None = None, steps: int | None = None) -> Tensor:
        """Images by the given or else the default solver and number of steps. Raises ParameterError as `FlowSettings` does."""
        chosen = chosen_settings(self.settings, solver=solver, steps=steps)
        return self.integrate(noise, batch, chosen.solver, chosen.steps)

    @torch.no_grad()
    def integrate(self, x: Tensor, batch: Batch, solver: str, steps: int) -> Tensor:
        """Solve dx/dt = v(x, t) from t = 0 to 1 in equal steps; `EVALUATIONS[solver]` network calls per step."""
        h = 1.0 / steps

        def velocity(x: Tensor, t: float) -> Tensor:
            return self.network(x, torch.full((len(x),), t, dtype=x.dtype, device=x.device), batch)

        for t in (k * h for k in range(steps)):
            slope = velocity(x, t)
            if solver == "midpoint":
                slope = velocity(x + h / 2 * slope, t + h / 2)
            elif solver == "heun":
                slope = (slope + velocity(x + h * slope, t + h)) / 2
            x = x + h * slope
        return x


class DirectFlow(FlowMatching):
    """C17 Direct-FM: the flow starts from the source image of a translation in the place of noise, so each image has one
    translation, and its noise changes nothing. The pairs are given: they need no coupling."""

    def loss(self, batch: Batch, group: str) -> Tensor:
        return super().loss(batch | {COUPLED: batch[PARTNER]}, group)

    def sample(self, noise: Tensor, batch: Batch, *, solver: str | None = None, steps: int | None = None) -> Tensor:
        return super().sample(batch[PARTNER].to(noise), batch, solver=solver, steps=steps)


@torch.no_grad()
def transport_plan(x0: Tensor, x1: Tensor) -> Tensor:
    """(B,) order of x0 that minimises Σ ‖x0[order] − x1‖² within the batch (Tong et al. 2024, alg. 3): exact, by the
    Hungarian method. Only noise is reordered, so an image keeps its own mask. With conditions and large batches the
    pairing would tie noise to condition, a bias; systems with masks therefore couple independently."""
    cost = torch.cdist(x0.flatten(1).float(), x1.flatten(1).float()).square()
    _, order = linear_sum_assignment(cost.T.cpu().numpy())
    return torch.as_tensor(order, device=x0.device)
