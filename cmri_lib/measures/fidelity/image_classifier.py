"""A small convolutional network that learns to tell synthetic from real images: the judge of the two-sample test on images.

A linear classifier on frozen features sees what the features have kept. This network learns from the pixels themselves which
texture, edge or artefact gives a generator away. It is fitted anew for every fold of every pair of sets, and nothing of it is
kept: it is a statistic of the two sets, not an instrument of the study. So it does not go through the training loop, which
writes weights, a log and a fingerprint for each training.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from cmri_lib.measures.instruments.frozen import freeze, in_batches
from cmri_lib.training import TrainSettings

#: Channels of the convolutions, and groups of their norms.
WIDTHS, GROUPS = (16, 32, 64), 4
#: Largest shift, as a share of the side; largest change of contrast and of brightness, in units of the range.
SHIFT, CONTRAST = 1 / 16, 0.05


class Planes(nn.Module):
    """Images (B, 1, H, W) → (B, 2, H, W): the image, and what is left of it when the mean of 3 × 3 pixels is taken away, each
    in units of its standard deviation. Without the second plane a few hundred steps are too few to find noise or blur: the
    finest texture is a hundredth of the image's power."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.BatchNorm2d(2, affine=False)

    def forward(self, images: Tensor) -> Tensor:
        smooth = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        return self.scale(torch.cat([images, images - smooth], dim=1))


def network() -> nn.Sequential:
    """(B, 1, H, W) → logits (B, 1): three convolutions of stride 2, then the mean over all positions, so that it judges
    what an image is made of wherever it lies. The first layer has no norm, or brightness would be lost."""
    layers: list[nn.Module] = [Planes()]
    for depth, (inputs, outputs) in enumerate(zip((2, *WIDTHS), WIDTHS)):
        norm = nn.GroupNorm(GROUPS, outputs) if depth else nn.Identity()
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), norm, nn.SiLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], 1))


def jitter(images: Tensor) -> Tensor:
    """Images (B, 1, H, W) mirrored, shifted by whole pixels and a little brighter or darker, at random, so that the network
    cannot learn the few of a fold by heart. No pixel is interpolated: that would wipe out the finest texture."""
    count, side, most = len(images), images.shape[-1], int(SHIFT * images.shape[-1])

    def places() -> Tensor:
        shifted = (torch.arange(side) + torch.randint(-most, most + 1, (count, 1))).clamp(0, side - 1)
        return torch.where(torch.rand(count, 1) < 0.5, shifted, shifted.flip(1))

    def change() -> Tensor:
        return (CONTRAST * (2 * torch.rand(count, 1, 1, 1) - 1)).to(images.device)

    rows, columns = places().to(images.device), places().to(images.device)
    moved = images[torch.arange(count, device=images.device)[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]
    return moved * (1 + change()) + change()


def image_classifier(settings: TrainSettings) -> Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """``image_classifier(settings)(images, synthetic)``: images (N, 1, H, W) and whether each is synthetic (N,), 0 or 1 →
    function of images (M, 1, H, W) that answers the same, (M,).

    Of the settings it takes the steps, the batch (half of it real), the learning rate with its course, and the seed.
    Both classes weigh the same, whatever their numbers. The result depends on the images and the seed alone: not on their
    order, nor on torch's global random state, of which it leaves that of the CPU as it was.
    """
    def learn(images: np.ndarray, synthetic: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        order = sorted(range(len(images)), key=lambda i: (images[i].tobytes(), synthetic[i]))
        device = Accelerator().device
        pixels, truth = torch.from_numpy(images[order]).to(device), synthetic[order]
        classes = [torch.from_numpy(np.flatnonzero(truth == label)) for label in (0, 1)]
        half = max(1, settings.batch // 2)
        target = torch.tensor([0.0, 1.0], device=device).repeat_interleave(half)[:, None]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            judge = network().to(device)
            optimiser = torch.optim.AdamW(judge.parameters(), lr=settings.learning_rate, fused=True)
            for step in range(settings.steps):
                optimiser.param_groups[0]["lr"] = settings.rate(step)
                index = torch.cat([members[torch.randint(len(members), (half,))] for members in classes])
                loss = F.binary_cross_entropy_with_logits(judge(jitter(pixels[index.to(device)])), target)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        freeze(judge)
        return lambda unseen: in_batches(lambda x: judge(x)[:, 0] > 0, unseen, device).numpy().astype(int)

    return learn
