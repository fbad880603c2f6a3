"""Trainings that processes share, launched by a test: ``torchrun --nproc_per_node 2 train_shared.py FOLDER``."""

import sys
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from conftest import discs
from torch import Tensor, nn

from cmri_lib.generators.base import draw
from cmri_lib.generators.diffusion import Diffusion
from cmri_lib.generators.flow import FlowMatching, FlowSettings
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.training import Augment, TrainSettings, Trainable, train
from cmri_lib.training.loop import Training

SETTINGS = TrainSettings(steps=6, batch=8, log_every=1, learning_rate=1e-2, ema=0.9)
SAVE = Training._save
DATA = {"image": 2 * torch.rand(20, 1, 16, 16, generator=torch.Generator().manual_seed(0)) - 1}


class Convolutions(nn.Module):
    """(x_t, t) → velocity or noise, with dimensions that no batch has."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(2, 12, 3, padding=1), nn.SiLU(), nn.Conv2d(12, 1, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return self.layers(torch.cat([x, t.view(-1, 1, 1, 1).expand_as(x)], 1))


class Players(Trainable):
    """A critic and a generator: the loss of one leaves the other's parameters without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.critic, self.generator = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"critic": list(self.critic.parameters()), "generator": list(self.generator.parameters())}

    def loss(self, batch: dict[str, Tensor], group: str) -> Tensor:
        made = self.generator(torch.randn_like(batch["image"]))
        if group == "critic":
            return (self.critic(made.detach()) - self.critic(batch["image"])).tanh().mean()
        return -self.critic(made).tanh().mean()


def models() -> dict[str, Trainable]:
    """Name → a model whose loss is a mean over images, under a fixed seed."""
    torch.manual_seed(0)
    flow, ot = FlowSettings(coupling="independent"), FlowSettings(coupling="ot", pool=16)
    return {"flow": FlowMatching(Convolutions(), Conditioning(), flow),
            "ot-flow": FlowMatching(Convolutions(), Conditioning(), ot),
            "diffusion": Diffusion(Convolutions(), Conditioning()), "players": Players()}


def cut_after_four_steps(self: Training, name: str) -> None:
    """In the place of `Training._save`: the power fails when the checkpoint is written."""
    SAVE(self, name)
    if self.step == 4:
        raise InterruptedError


def main(folder: Path) -> None:
    """Every model's training; the flow's once more, cut after four steps and gone on with; samples of the flow."""
    for name, model in models().items():
        train(model, DATA, SETTINGS, folder / name, augment=Augment())
        if name == "flow":
            images = draw(model, discs(9, 2, size=16), "flow", batch=4).images
    with suppress(InterruptedError), patch.object(Training, "_save", cut_after_four_steps):
        train(models()["flow"], DATA, SETTINGS, folder / "cut", augment=Augment(), checkpoint_seconds=0)
    assert (folder / "cut" / "checkpoint.safetensors").exists()
    train(models()["flow"], DATA, SETTINGS, folder / "cut", augment=Augment())
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    np.save(folder / f"samples-{rank}.npy", images)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
