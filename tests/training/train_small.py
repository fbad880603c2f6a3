"""A flow-matching training of a second, and as a process of its own one that is killed: FOLDER CHECKPOINT.

The network is a few convolutions rather than the study's U-Net, whose import takes longer than this training.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from cmri_lib.generators.flow import FlowMatching
from cmri_lib.networks.conditioning.label_map import LabelMap
from cmri_lib.training import Augment, TrainSettings, train


class Convolutions(nn.Module):
    """(x_t, t, batch) → velocity; the mask and the time are concatenated to x_t."""

    def __init__(self, conditioning: LabelMap):
        super().__init__()
        self.conditioning = conditioning
        self.layers = nn.Sequential(nn.Conv2d(2 + conditioning.channels, 24, 3, padding=1), nn.SiLU(),
                                    nn.Conv2d(24, 24, 3, padding=1), nn.SiLU(), nn.Conv2d(24, 1, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, batch: dict[str, Tensor]) -> Tensor:
        time = t.view(-1, 1, 1, 1).expand_as(x)
        return self.layers(torch.cat([x, time, self.conditioning.planes(batch)], 1))


def train_small(folder: Path) -> pd.DataFrame:
    """40 steps, a checkpoint after each."""
    generator = torch.Generator().manual_seed(0)
    data = {"image": 2 * torch.rand(40, 1, 16, 16, generator=generator) - 1,
            "mask": torch.randint(0, 4, (40, 16, 16), generator=generator, dtype=torch.uint8)}
    torch.manual_seed(0)
    conditioning = LabelMap()
    model = FlowMatching(Convolutions(conditioning), conditioning)
    return train(model, data, TrainSettings(steps=40, batch=4, log_every=10), folder, augment=Augment(), checkpoint_seconds=0)


def be_killed_at(checkpoint: int) -> None:
    """This process, when its `checkpoint`-th is written and about to take the place of the one before."""
    replace, left = os.replace, [checkpoint]

    def fatal(source: Path, target: Path) -> None:
        left[0] -= Path(target).name == "checkpoint.safetensors"
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = fatal


if __name__ == "__main__":
    be_killed_at(int(sys.argv[2]))
    train_small(Path(sys.argv[1]))
