"""A flow-matching training of a few seconds, run as a process of its own so that a test can kill it.

The network is a few convolutions rather than the study's U-Net, whose import takes longer than this training.
"""

import sys
from pathlib import Path

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


generator = torch.Generator().manual_seed(0)
data = {"image": 2 * torch.rand(40, 1, 16, 16, generator=generator) - 1,
        "mask": torch.randint(0, 4, (40, 16, 16), generator=generator, dtype=torch.uint8)}
torch.manual_seed(0)
conditioning = LabelMap()
model = FlowMatching(Convolutions(conditioning), conditioning)
print("started", flush=True)
train(model, data, TrainSettings(steps=400, batch=4, log_every=10), Path(sys.argv[1]), augment=Augment(),
      checkpoint_seconds=0.05)
