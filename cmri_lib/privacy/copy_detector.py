"""A space for finding copies: a network that gives a slice and its disguises one place, and other slices
others.

Pixels lose a copy that has been shifted or mirrored, and features that were made to judge images keep what a
disguise changes. So an encoder learns to name every training slice whatever was done to it: two disguises of
each are drawn, and each must find the other among all of a batch (Chen, Kornblith, Norouzi & Hinton, "A
Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, arXiv 2002.05709, eq. 1; for
copies: Pizzi, Roy, Ravindra, Goyal & Douze, "A Self-Supervised Descriptor for Image Copy Detection", CVPR
2022, arXiv 2202.10261). Mirrors need not be learnt: the description is the mean over the four mirrored
images, and so the same for each of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmri_lib.cohort.slices import Slices
from cmri_lib.measures.instruments.frozen import fingerprint, freeze, in_batches, refuse_all_but_training
from cmri_lib.networks.encoder import Encoder
from cmri_lib.training import Trainable, TrainSettings, train

#: Softmax temperature: SimCLR's for small data sets.
TEMPERATURE = 0.1
#: Cells of the encoder's map, per side, that are described apart: where something is tells slices apart, too.
CELLS = 2
#: Axes along which an image is mirrored: none, up and down, left and right, both.
MIRRORS = ((), (2,), (3,), (2, 3))


@dataclass(frozen=True)
class Disguise:
    """What a copy may look like, drawn for each image alone: turned, shifted and zoomed, its grey values
    bent, blurred or noisy.

    Attributes:
        rotation: degrees, uniform in ±. shift: share of the side. zoom: relative. gamma: spread of the
            natural log of the exponent.
        contrast: relative, and brightness in units of the range. noise: largest standard deviation.
    """

    rotation: float = 20.0
    shift: float = 0.08
    zoom: float = 0.1
    gamma: float = 0.4
    contrast: float = 0.2
    noise: float = 0.1

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) → the same, by torch's global random state."""
        count = len(images)

        def spread(width: float) -> Tensor:
            return (2 * torch.rand(count, device=images.device) - 1) * width

        angle, size = spread(math.radians(self.rotation)), 1 + spread(self.zoom)
        cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
        rows = [torch.stack([cos, -sin, spread(2 * self.shift)], -1),
                torch.stack([sin, cos, spread(2 * self.shift)], -1)]
        grid = F.affine_grid(torch.stack(rows, 1).to(images), list(images.shape), align_corners=False)
        return self._intensity(F.grid_sample(images, grid, padding_mode="border", align_corners=False))

    def _intensity(self, images: Tensor) -> Tensor:
        def draw(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(len(images), 1, 1, 1, device=images.device)

        smooth = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        images = torch.lerp(images, smooth, draw(0, 1) * (draw(0, 1) > 0.5))
        unit = ((images + 1) / 2).clamp(0, 1) ** torch.exp(draw(-self.gamma, self.gamma))
        contrast, brightness = 1 + draw(-self.contrast, self.contrast), draw(-self.contrast, self.contrast)
        changed = (2 * unit - 1) * contrast + brightness
        return (changed + draw(0, self.noise) * torch.randn_like(images)).clamp(-1, 1)


class CopyTraining(Trainable):
    """Contrastive training of an `Encoder`: batches hold "image" (B, 1, H, W).

    Args:
        dimension: length of the description.
        disguise: what it is to see through.
    """

    def __init__(self, dimension: int = 64, disguise: Disguise = Disguise()):
        super().__init__()
        self.encoder, self.disguise = Encoder(dimension, (16, 32, 64)), disguise
        self.head = nn.Linear(dimension * CELLS**2, dimension)

    def describe(self, images: Tensor) -> Tensor:
        """(B, dimension) of length 1."""
        return F.normalize(self.head(F.adaptive_avg_pool2d(self.encoder(images), CELLS).flatten(1)), dim=1)

    def loss(self, batch: dict[str, Tensor], group: str) -> Tensor:
        first, second = (self.describe(self.disguise(batch["image"])) for _ in range(2))
        return contrastive_loss(first, second, TEMPERATURE)


def contrastive_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """NT-Xent (Chen et al. 2020, eq. 1): each of 2 B unit vectors must find its partner among the other 2 B
    − 1; mean negative log-probability. `first[i]` and `second[i]` are partners."""
    both = torch.cat([first, second])
    alike = (both @ both.T / temperature).fill_diagonal_(-math.inf)
    partners = torch.arange(len(both), device=both.device).roll(len(first))
    return F.cross_entropy(alike, partners)


class CopySpace:
    """The frozen network as a feature space: the mean description of the four mirrored images, of length 1,
    so that distances lie between 0 and 2."""

    name = "copy"
    learnt = True  # from the training slices, which it therefore places apart from all others

    def __init__(self, model: CopyTraining):
        self.model, self.dimension = freeze(model), model.encoder.dimension
        self.device, self.fingerprint = next(model.parameters()).device, fingerprint(model)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(N, 1, H, W) → (N, dimension) float64."""
        def describe(x: Tensor) -> Tensor:
            return F.normalize(sum(self.model.describe(x.flip(axes)) for axes in MIRRORS), dim=1)

        return in_batches(describe, images, self.device).double().numpy()


def train_copy_detector(training: Slices, settings: TrainSettings, folder: str | Path, *,
                        disguise: Disguise = Disguise()) -> CopySpace:
    """Train the copy detector on real training slices, or load it if `folder` already holds this training.

    Raises:
        SplitError: if a slice is not of the training split, or is synthetic.
    """
    refuse_all_but_training(training, "copy detector")
    torch.manual_seed(settings.seed)
    model = CopyTraining(disguise=disguise)
    train(model, {"image": torch.from_numpy(training.images)}, settings, folder)
    return CopySpace(model)
