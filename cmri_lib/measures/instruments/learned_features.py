"""The study's own feature space: a small encoder trained on real training patients, then frozen.

No network trained on photographs or on other people's scans is needed, and none that has seen a test patient is used.
The encoder learns four kinds of task at once, so that its 64 features keep what a cardiac image can get wrong:

- who and what: vendor, centre, disease, phase, level, wherever the training table knows more than one;
- anatomy: the share of every label in each 8 × 8 cell, from the map whose mean is the feature vector;
- image quality: how much noise, blur and shading was added to its input. A feature that ignores them could not see
  that a synthetic image is too smooth.

64 features and not 2,048: the Fréchet distance of identical distributions grows with the square of the dimension, and
a cardiac test set has some hundred slices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmri_lib.cohort.case import LABELS, TISSUES
from cmri_lib.cohort.slices import Slices
from cmri_lib.measures.instruments.frozen import fingerprint, freeze, in_batches, refuse_all_but_training
from cmri_lib.networks.encoder import Encoder
from cmri_lib.training import Augment, TrainSettings, Trainable, train

#: Columns of the table that the encoder learns to tell, where they have at least two values.
TASKS = ("vendor", "centre", "disease", "phase", "level")
#: Weight of the quality task: its squared error is at most the variance of a strength, about 0.1; this brings it to 1.
QUALITY = 10.0
#: Share of the mean variance that is added to every direction before whitening.
WHITENING = 0.01
#: Geometry only: invariance to contrast or noise would blind the features to them.
GEOMETRY = Augment(rotation=10.0, scale=0.05, shift=0.05, gamma=0.0, contrast=0.0, noise=0.0, labels=("labels",))


class Features(Protocol):
    """A feature space: images (N, 1, H, W) float32 in [−1, 1] → (N, `dimension`) float64."""

    name: str
    dimension: int

    def __call__(self, images: np.ndarray) -> np.ndarray: ...


def degrade(images: Tensor) -> tuple[Tensor, Tensor]:
    """Add noise, blur and linear shading of random strength: (B, 1, H, W) → images, strengths (B, 3) in [0, 1].

    Every second draw of a strength is 0, so that undamaged images stay common. Uses torch's global random state.
    """
    strength, present = torch.rand(2, len(images), 3, device=images.device)
    strength = strength * (present > 0.5)
    noise, blur, shading = (s[:, None, None, None] for s in strength.unbind(1))
    smooth = F.avg_pool2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    direction = 2 * np.pi * torch.rand(len(images), 1, 1, 1, device=images.device)
    axis = torch.linspace(-1, 1, images.shape[-1], device=images.device)
    ramp = torch.cos(direction) * axis[None, None, None, :] + torch.sin(direction) * axis[None, None, :, None]
    damaged = torch.lerp(images, smooth, blur) + 0.3 * shading * ramp + 0.2 * noise * torch.randn_like(images)
    return damaged, strength


class FeatureTraining(Trainable):
    """Multi-task training of an `Encoder`.

    Batches hold "image" (B, 1, H, W), "labels" (B, H, W) and one (B,) column of class codes per task.

    Args:
        classes: task → number of classes.
        labels: number of labels of the label map, including background.
    """

    def __init__(self, classes: dict[str, int], labels: int, dimension: int = 64):
        super().__init__()
        self.encoder = Encoder(dimension)
        self.heads = nn.ModuleDict({task: nn.Linear(dimension, k) for task, k in classes.items()})
        self.anatomy = nn.Conv2d(dimension, labels, 1)
        self.quality = nn.Linear(dimension, 3)
        self.labels = labels

    def loss(self, batch: dict[str, Tensor], group: str) -> Tensor:
        damaged, strength = degrade(batch["image"])
        features = self.encoder(damaged)
        pooled = features.mean((2, 3))
        one_hot = F.one_hot(batch["labels"].long(), self.labels).movedim(-1, 1).float()
        shares = F.adaptive_avg_pool2d(one_hot, features.shape[2:])
        # Cross-entropy against soft targets: the share of each label in a cell of the map.
        total = F.cross_entropy(self.anatomy(features), shares) + QUALITY * F.mse_loss(self.quality(pooled), strength)
        return total + sum(F.cross_entropy(head(pooled), batch[task]) for task, head in self.heads.items())


class LearnedFeatures:
    """The frozen encoder: pooled features, whitened on the training slices.

    Unwhitened, one direction carries half of the variance and hides the others.

    Attributes:
        fingerprint: hash of the weights, to print beside every distance.
        seed: the seed it was trained with.
    """

    name = "study"

    def __init__(self, encoder: Encoder, training_images: np.ndarray, seed: int):
        self.encoder, self.dimension, self.seed = freeze(encoder), encoder.dimension, seed
        self.device = next(encoder.parameters()).device
        self.fingerprint = fingerprint(encoder)
        pooled = self._pooled(training_images)
        self.mean = pooled.mean(0)
        variances, directions = np.linalg.eigh(np.cov(pooled.T))
        # Bounded, so that directions in which hardly anything varies are not blown up into ones that matter.
        scale = 1 / np.sqrt(np.clip(variances, 0, None) + WHITENING * variances.mean())
        self.whitening = (directions * scale) @ directions.T

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return (self._pooled(images) - self.mean) @ self.whitening

    def _pooled(self, images: np.ndarray) -> np.ndarray:
        return in_batches(lambda x: self.encoder(x).mean((2, 3)), images, self.device).double().numpy()


class Cached:
    """Any function of images (N, 1, H, W) → (N, ...) that judges each image by itself, computed once per image.

    Real sets are compared with every system, and comparisons of many groups share their slices. A feature space or a
    segmenter keeps its `name` and `dimension`.
    """

    def __init__(self, function: Callable[[np.ndarray], np.ndarray]):
        self.function, self.name = function, getattr(function, "name", "")
        self.dimension = getattr(function, "dimension", 0)
        self._known: dict[bytes, np.ndarray] = {}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        keys = [hashlib.sha256(np.ascontiguousarray(image)).digest() for image in images]
        new = {key: i for i, key in enumerate(keys) if key not in self._known}
        if new:
            self._known.update(zip(new, self.function(images[list(new.values())]), strict=True))
        return np.stack([self._known[key] for key in keys])


def train_features(training: Slices, settings: TrainSettings, folder: str | Path, *, dimension: int = 64
                   ) -> LearnedFeatures:
    """Train the feature extractor on real training slices, or load it if `folder` already holds this training.

    Raises:
        SplitError: if a slice is not of the training split, or is synthetic.
    """
    refuse_all_but_training(training, "feature extractor")
    codes = {task: np.unique(training.table[task].astype(str), return_inverse=True) for task in TASKS}
    codes = {task: inverse for task, (names, inverse) in codes.items() if len(names) > 1}
    maps, known = (training.masks, LABELS) if training.tissues is None else (training.tissues, TISSUES)
    torch.manual_seed(settings.seed)
    model = FeatureTraining({task: int(c.max()) + 1 for task, c in codes.items()}, len(known) + 1, dimension)
    data = {"image": torch.from_numpy(training.images), "labels": torch.from_numpy(maps)}
    data |= {task: torch.from_numpy(c.astype(np.int64)) for task, c in codes.items()}
    train(model, data, settings, folder, augment=GEOMETRY)
    return LearnedFeatures(model.encoder, training.images, settings.seed)
