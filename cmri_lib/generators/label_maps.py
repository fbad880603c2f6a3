"""Generators of label maps: an image generator whose images are the planes of a mask, one per label.

A mask that no patient has is then the condition of the image generators of C4, C5 and C10. Any generator of tensors can
draw one, for a one-hot label map, scaled to [−1, 1], is an image with as many channels as there are labels; the
largest channel names the label (Li, Ma & Shi, "Multi-Label Conditioned Diffusion for Cardiac MR Image Augmentation and
Segmentation", Bioengineering 12:812, 2025, for diffusion).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import ParameterError
from cmri_lib.generators.base import Generator, as_own_patients, batch_of, chunks, part_on, seeded_noise
from cmri_lib.generators.prior import PriorGenerator
from cmri_lib.networks.conditioning.base import Batch, Conditioning, one_hot

#: Batch entries that hold what is to be drawn.
TARGETS = ("mask", "tissues")


class WithMaskAsTarget(Conditioning):
    """What the training of a mask generator reads: the conditions of its prior, and the mask, which is the target. It gives
    nothing to a network; the prior's networks hold the prior's own conditioning."""

    def __init__(self, conditioning: Conditioning):
        super().__init__()
        self.name, self.fields = conditioning.name, (*conditioning.fields, "mask")
        self.categories, self.scales = conditioning.categories, conditioning.scales


class LabelMaps(PriorGenerator):
    """A generator of masks, as planes (B, labels, H, W) in [−1, 1]. Drawn by `draw_masks`; `base.draw` makes images.

    Args:
        prior: VAE or diffusion whose networks take `labels` channels.
        labels: number of labels, background included.
        shrink: the prior draws planes of a side so many times smaller, where a pixel holds the share of each label in its
            square. Outlines are smooth, so interpolation finds them again; noise on the finest pixels is what a short
            training cannot tell from anatomy.

    Raises:
        ParameterError: if the prior is conditioned on the mask or the tissues that it should draw.
    """

    def __init__(self, prior: Generator, labels: int = len(LABELS) + 1, shrink: int = 1):
        super().__init__()
        if known := sorted(set(TARGETS) & set(prior.conditioning.fields)):
            raise ParameterError(f"the prior is conditioned on {known}", field="conditioning",
                                 remedy="condition a generator of masks on categories and numbers only")
        self.prior, self.labels, self.shrink = prior, labels, shrink
        self.conditioning = WithMaskAsTarget(prior.conditioning)

    def noise_shape(self, size: int) -> tuple[int, ...]:
        """(labels, H, W) where the prior draws planes from noise of their own shape, else the prior's: a VAE's code."""
        side = size // self.shrink
        shape = self.prior.noise_shape(side)
        return (self.labels, side, side) if shape == (1, side, side) else shape

    def prepare(self, data: Batch) -> Batch:
        """The planes of ``data["mask"]`` in the place of images, beside the conditions of the prior, and no mask."""
        shares = F.avg_pool2d(planes(data["mask"], self.labels), self.shrink)
        return {"image": shares, **{field: data[field] for field in self.prior.conditioning.fields}}

    def sample(self, noise: Tensor, batch: Batch, **choices: object) -> Tensor:
        """Planes (B, labels, H, W); `choices` are for the prior's sampler. A mask in `batch` is not looked at."""
        drawn = self.prior.sample(noise, batch, **choices)
        return F.interpolate(drawn, scale_factor=self.shrink, mode="bilinear") if self.shrink > 1 else drawn


def planes(masks: Tensor, labels: int = len(LABELS) + 1) -> Tensor:
    """Label map (B, H, W) → (B, labels, H, W) of −1 and 1."""
    return 2 * one_hot(masks, labels) - 1


def label_map(planes: Tensor) -> np.ndarray:
    """Planes (B, labels, H, W) → label map (B, H, W) uint8, the largest plane of each pixel."""
    return planes.argmax(dim=1).to(torch.uint8).cpu().numpy()


@torch.no_grad()
def draw_masks(generator: LabelMaps, conditions: Slices, source: str, seed: int = 0, *, batch: int = 16,
               **choices: object) -> Slices:
    """One synthetic mask for every slice of `conditions`, whose table gives the conditions of the prior.

    As in `base.draw`, sample i depends on (seed, i) alone and is its own patient and scan; masks of `conditions` are
    not looked at. Images are zeros: there are none yet. Categories that are no condition become "unknown", numbers and
    `PHENOTYPES` that are none NaN; `height` and `index`, places in a stack, are kept.

    Args:
        source: the system's id, for the table.
        seed: of the noise.
        batch: masks evaluated at once.
        choices: for `LabelMaps.sample`, e.g. ``steps=4``.
    """
    known = generator.prior.conditioning
    given = {field: values for field, values in batch_of(conditions, known).items() if field != "image"}
    generator.eval()
    shape, masks = generator.noise_shape(conditions.size), []
    for rows in tqdm(chunks(len(conditions), batch), desc=f"draw {source}", mininterval=2.0, unit="batch"):
        noise = seeded_noise(seed, rows, shape).to(generator.device)
        masks.append(label_map(generator.sample(noise, part_on(generator.device, given, rows), **choices)))
    return masks_only(np.concatenate(masks), as_own_patients(conditions.table, source, known.fields))


def masks_only(masks: np.ndarray, table: pd.DataFrame, tissues: np.ndarray | None = None) -> Slices:
    """`Slices` whose images are zeros, for masks (N, H, W) that have no image yet."""
    return Slices(np.zeros((len(masks), 1, *masks.shape[1:]), np.float32), masks, table, tissues)
