"""The toy of notebooks 02 to 05: eight narrow Gaussians on a circle, where the right answer is known.

Every sample should end near one of the eight centres, an eighth of the samples at each.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log, sqrt
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from cmri_lib.generators.base import Generator
from cmri_lib.networks.conditioning.base import Batch
from cmri_lib.training import TrainSettings, train

MODES, RADIUS, SIGMA = 8, 3.0, 0.2
#: Median distance of a true sample to its centre: the median of a Rayleigh distribution.
TRUE_DISTANCE = SIGMA * sqrt(2 * log(2))
#: A sample belongs to a mode within so many standard deviations of its centre.
NEAR = 3.0
#: What true samples score, see `mode_statistics`.
TRUTH = {"distance": TRUE_DISTANCE, "rarest": 1 / MODES}


def centres() -> Tensor:
    """(8, 2) centres of the modes."""
    angle = torch.arange(MODES) * 2 * torch.pi / MODES
    return RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)


def eight_gaussians(count: int, generator: torch.Generator) -> Tensor:
    """(count, 2) points of the mixture."""
    mode = torch.randint(MODES, (count,), generator=generator)
    return centres()[mode] + SIGMA * torch.randn(count, 2, generator=generator)


def trained(make: Callable[[], Generator], points: Tensor, settings: TrainSettings, folder: Path, seed: int) -> Generator:
    """What `make` makes after `seed`, trained on `points` (N, 2),
    or loaded from `folder` if that was done before; on the CPU."""
    torch.manual_seed(seed)
    generator = make()
    train(generator, {"image": points}, settings, folder)
    return generator.cpu()


def as_table(clouds: dict[str, Tensor], column: str) -> pd.DataFrame:
    """Columns x, y and `column`, which names the cloud (N, 2) that a point belongs to."""
    return pd.concat([pd.DataFrame(c.cpu().numpy(), columns=["x", "y"]).assign(**{column: name})
                      for name, c in clouds.items()])


def mode_statistics(points: Tensor) -> dict[str, float]:
    """How well samples (N, 2) cover the modes.

    Returns:
        ``distance``: median distance to the nearest centre; ``rarest``, ``commonest``: share of samples of the least and
        the most frequent mode; ``on a mode``: share within `NEAR` standard deviations of a centre; ``modes found``: modes
        with at least a quarter of their due among these.
    """
    distance, nearest = torch.cdist(points.cpu(), centres()).min(dim=1)
    counts = torch.bincount(nearest, minlength=MODES) / len(points)
    on_mode = torch.bincount(nearest[distance < NEAR * SIGMA], minlength=MODES) / len(points)
    return {"distance": distance.median().item(), "rarest": counts.min().item(), "commonest": counts.max().item(),
            "on a mode": on_mode.sum().item(), "modes found": int((on_mode > 0.25 / MODES).sum())}


class Perceptron(nn.Module):
    """Points (B, 2), with a time (B,) if `timed`, → (B, outputs), or (B,) for one output.

    Serves as denoiser or velocity ``network(x, t, batch)`` when timed, and as generator or critic ``network(x, batch)``.

    Args:
        hidden: hidden layers, of `width` units each.
        activation: makes what follows each of them.
    """

    def __init__(self, outputs: int = 2, *, timed: bool = False, width: int = 128, hidden: int = 2,
                 activation: Callable[[], nn.Module] = nn.SiLU):
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(2 + timed, width), activation()]
        for _ in range(hidden - 1):
            layers += [nn.Linear(width, width), activation()]
        self.layers, self.timed = nn.Sequential(*layers, nn.Linear(width, outputs)), timed

    def forward(self, x: Tensor, *rest: Tensor | Batch) -> Tensor:
        inputs = torch.cat([x, rest[0][:, None]], dim=1) if self.timed else x
        return self.layers(inputs).squeeze(1)


class PerceptronEncoder(Perceptron):
    """Points (B, 2) → mean and log-variance of a code of two numbers, each (B, 2).

    It starts with precise codes: from vague ones training would not begin, since to a linear model the ring is round noise.
    """

    def __init__(self, width: int = 64):
        super().__init__(4, width=width)
        nn.init.constant_(self.layers[-1].bias[2:], -4.0)

    def forward(self, x: Tensor, *rest: Batch) -> tuple[Tensor, Tensor]:
        return super().forward(x).chunk(2, dim=1)
