"""The smallest things that can be trained, for tests of the loop."""

from __future__ import annotations

import torch
from torch import nn

from cmri_lib.training import Trainable


class Line(Trainable):
    """y = a x + b, fitted by least squares."""

    def __init__(self, noise: float = 0.0):
        super().__init__()
        self.linear, self.noise = nn.Linear(1, 1), noise

    def loss(self, batch: dict, player: str) -> torch.Tensor:
        jitter = self.noise * torch.randn_like(batch["x"])
        return (self.linear(batch["x"]) - batch["y"] + jitter).square().mean()


def line_data(n: int = 64) -> dict[str, torch.Tensor]:
    x = torch.linspace(-1, 1, n)[:, None]
    return {"x": x, "y": 3 * x - 2}


class Pair(Trainable):
    """Two numbers, each with a group of its own and a slope of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.critic, self.generator = (nn.Parameter(torch.zeros(())) for _ in range(2))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"critic": [self.critic], "generator": [self.generator]}

    def loss(self, batch: dict, group: str) -> torch.Tensor:
        return getattr(self, group) * batch["x"].mean()
