"""A flow-matching training of a few seconds, run as a process of its own so that a test can kill it."""

import sys
from pathlib import Path

import torch

from cmri_lib.generators.flow import FlowMatching
from cmri_lib.networks.conditioning.label_map import LabelMap
from cmri_lib.networks.unet import Denoiser, UNetSettings
from cmri_lib.training import Augment, TrainSettings, train

generator = torch.Generator().manual_seed(0)
data = {"image": 2 * torch.rand(40, 1, 16, 16, generator=generator) - 1,
        "mask": torch.randint(0, 4, (40, 16, 16), generator=generator, dtype=torch.uint8)}
torch.manual_seed(0)
conditioning = LabelMap()
model = FlowMatching(Denoiser(UNetSettings(channels=(8, 16), head_channels=8), conditioning), conditioning)
print("started", flush=True)
train(model, data, TrainSettings(steps=150, batch=4, checkpoint_every=7, log_every=10), Path(sys.argv[1]), augment=Augment())
