"""Random geometry and contrast for training segmenters, detectors and classifiers.

Acts on whole batches with torch's global random state, which the loop seeds per step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augment:
    """Random affine map of image and mask together, then gamma, contrast and noise on the image.

    Attributes:
        rotation: largest angle in degrees, uniform in ±.
        scale: largest relative change of size and, separately, of aspect.
        shift: largest shift as a fraction of the side.
        gamma: spread (natural log) of the exponent applied to the image on [0, 1].
        contrast: largest relative change of contrast and, in units of the range, of brightness.
        noise: largest standard deviation of added Gaussian noise, in units of the image range [−1, 1].
        labels: names of the label maps in the batch, sampled by nearest neighbour.
    """

    rotation: float = 15.0
    scale: float = 0.1
    shift: float = 0.05
    gamma: float = 0.3
    contrast: float = 0.1
    noise: float = 0.03
    labels: tuple[str, ...] = ("mask", "tissues")

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Augment ``batch["image"]`` (B, 1, H, W) in [−1, 1] and every label map (B, H, W) present."""
        image = batch["image"]
        grid = F.affine_grid(self._affine(len(image), image), list(image.shape), align_corners=False)
        moved = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
        out = {**batch, "image": self._intensity(moved)}
        for name in self.labels:
            if name in batch:
                labels = batch[name][:, None].to(image.dtype)
                out[name] = F.grid_sample(labels, grid, mode="nearest", align_corners=False)[:, 0].to(batch[name].dtype)
        return out

    def _affine(self, n: int, like: Tensor) -> Tensor:
        """(B, 2, 3) maps from output to input coordinates."""
        def spread(width: float) -> Tensor:
            return (2 * torch.rand(n, device=like.device) - 1) * width

        angle, size, aspect = spread(math.radians(self.rotation)), spread(self.scale), spread(self.scale / 2)
        cos, sin = torch.cos(angle), torch.sin(angle)
        sx, sy = 1 + size + aspect, 1 + size - aspect
        tx, ty = spread(2 * self.shift), spread(2 * self.shift)  # grid coordinates span 2
        return torch.stack([torch.stack([sx * cos, -sy * sin, tx], -1), torch.stack([sx * sin, sy * cos, ty], -1)], 1)

    def _intensity(self, image: Tensor) -> Tensor:
        def draw(width: float) -> Tensor:
            return (2 * torch.rand(len(image), 1, 1, 1, device=image.device) - 1) * width

        unit = ((image + 1) / 2).clamp(0, 1) ** torch.exp(draw(self.gamma))
        changed = (2 * unit - 1) * (1 + draw(self.contrast)) + draw(self.contrast)
        sigma = self.noise * torch.rand(len(image), 1, 1, 1, device=image.device)
        return (changed + sigma * torch.randn_like(image)).clamp(-1, 1)
