"""Strong augmentation for downstream segmentation: the transforms of nnU-Net, on whole batches.

Isensee et al., Nature Methods 18, 2021, supplementary note 4, with their probabilities; elastic deformation
and the coil's bias field are added. Mirror images are left out unless asked for: a mirrored heart is situs
inversus, and a quarter turn is no view of a short axis. MONAI's random transforms take one image at a time
and draw from a random state of their own; these act on a batch, and what they draw depends on torch's global
seed alone, as the training loop needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Transform = Callable[[Tensor], Tensor]
#: Nodes per side of the random fields that are smooth: displacements and the coil's shading.
NODES = 5


@dataclass(frozen=True)
class StrongAugment:
    """Random geometry of image and mask together, then random intensities of the image.

    Each transform acts on each image with its own probability. Images stay in [−1, 1].

    Attributes:
        rotation: largest angle in degrees; zoom: limits of the size; elastic: standard deviation of the
            displacement of `NODES` × `NODES` nodes as a fraction of the side; shift: largest shift as a
            fraction of the side.
        mirror: whether half of the images are mirrored, along each axis.
        noise: largest standard deviation, in units of the range [−1, 1]; blur: limits of the kernel's in
            pixels.
        brightness, contrast: limits of a factor of the image on [0, 1], and of its distance from its mean.
        resolution: limits of the side of a smaller image that is enlarged again, as a fraction.
        gamma: limits of the exponent on [0, 1], of the inverted image (seldom) and of the image as it is.
        bias: standard deviation of the logarithm of a smooth factor of the image on [0, 1].
        likely: multiplies every probability; 0 leaves batches as they are.
        labels: names of the label maps in the batch, sampled by nearest neighbour.
    """

    rotation: float = 30.0
    zoom: tuple[float, float] = (0.7, 1.4)
    elastic: float = 0.02
    shift: float = 0.05
    mirror: bool = False
    noise: float = 0.1
    blur: tuple[float, float] = (0.5, 1.0)
    brightness: tuple[float, float] = (0.75, 1.25)
    contrast: tuple[float, float] = (0.75, 1.25)
    resolution: tuple[float, float] = (0.5, 1.0)
    gamma: tuple[float, float] = (0.7, 1.5)
    bias: float = 0.2
    likely: float = 1.0
    labels: tuple[str, ...] = ("mask", "tissues")

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Augment ``batch["image"]`` (B, 1, H, W) in [−1, 1] and every label map (B, H, W) present."""
        image = batch["image"]
        grid = self.grid(image)
        moved = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
        out = {**batch, "image": self.intensity(moved)}
        for name in self.labels:
            if name in batch:
                labels = batch[name][:, None].to(image.dtype)
                moved = F.grid_sample(labels, grid, mode="nearest", align_corners=False)
                out[name] = moved[:, 0].to(batch[name].dtype)
        return out

    def grid(self, image: Tensor) -> Tensor:
        """(B, H, W, 2): for every pixel the place in the input that it comes from, in [−1, 1]."""
        turned = math.radians(self.rotation) * _signed(image) * self._chosen(image, 0.2)
        size = torch.where(self._chosen(image, 0.2), _between(image, *self.zoom), 1.0)
        moved = torch.cat([_signed(image), _signed(image)], 1) * self._chosen(image, 0.2)
        mirrored = [torch.where(self._chosen(image, 0.5 * self.mirror), -1.0, 1.0) for _ in range(2)]
        cos, sin = torch.cos(turned) / size, torch.sin(turned) / size
        rows = torch.cat([mirrored[0] * cos, -mirrored[0] * sin, mirrored[1] * sin, mirrored[1] * cos], 1)
        shift = 2 * self.shift * moved.reshape(-1, 2, 1)  # the side spans 2
        affine = torch.cat([rows.reshape(-1, 2, 2), shift], 2)
        straight = F.affine_grid(affine, list(image.shape), align_corners=False)
        bent = 2 * self.elastic * _smooth(image, 2) * self._chosen(image, 0.2)
        return straight + bent.permute(0, 2, 3, 1)

    def intensity(self, image: Tensor) -> Tensor:
        """The images with every transform of intensity on those that it is drawn for."""
        steps: list[tuple[float, Transform]] = [
            (0.1, self._noisy), (0.2, self._blurred), (0.15, self._brighter), (0.15, self._contrasted),
            (0.25, self._coarse), (0.15, self._shaded), (0.1, self._inverted_gamma), (0.3, self._gamma)]
        for probability, transform in steps:
            image = torch.where(self._chosen(image, probability), transform(image).clamp(-1, 1), image)
        return image

    def _chosen(self, image: Tensor, probability: float) -> Tensor:
        """(B, 1, 1, 1) bool."""
        return torch.rand(len(image), 1, 1, 1, device=image.device) < probability * self.likely

    def _noisy(self, image: Tensor) -> Tensor:
        return image + _between(image, 0.0, self.noise) * torch.randn_like(image)

    def _blurred(self, image: Tensor) -> Tensor:
        return blur(image, _between(image, *self.blur))

    def _brighter(self, image: Tensor) -> Tensor:
        return _on_unit(image, lambda unit: unit * _between(image, *self.brightness))

    def _contrasted(self, image: Tensor) -> Tensor:
        mean = image.mean((1, 2, 3), keepdim=True)
        return mean + (image - mean) * _between(image, *self.contrast)

    def _coarse(self, image: Tensor) -> Tensor:
        return torch.cat([_coarser(one[None], share) for one, share
                          in zip(image, _between(image, *self.resolution).flatten().tolist())])

    def _shaded(self, image: Tensor) -> Tensor:
        return _on_unit(image, lambda unit: unit * torch.exp(self.bias * _smooth(image, 1)))

    def _gamma(self, image: Tensor) -> Tensor:
        return _on_unit(image, lambda unit: unit ** _between(image, *self.gamma))

    def _inverted_gamma(self, image: Tensor) -> Tensor:
        return -self._gamma(-image)


def blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian filter of images (B, 1, H, W), each with its own standard deviation in pixels (B, 1, 1, 1)."""
    radius = max(1, math.ceil(3 * float(sigma.max())))
    place = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.softmax(-0.5 * (place / sigma[:, :, 0]) ** 2, -1)[:, :, None]  # (B, 1, 1, K), sums to 1
    stack = F.pad(image.transpose(0, 1), (radius,) * 4, mode="replicate")
    along = F.conv2d(stack, kernel, groups=len(image))
    return F.conv2d(along, kernel.transpose(2, 3), groups=len(image)).transpose(0, 1)


def _coarser(image: Tensor, share: float) -> Tensor:
    """An image (1, 1, H, W) as its nearest pixels on a grid of a smaller side show it."""
    small = [max(1, round(side * share)) for side in image.shape[2:]]
    return F.interpolate(F.interpolate(image, small, mode="nearest-exact"), image.shape[2:], mode="bicubic")


def _on_unit(image: Tensor, change: Transform) -> Tensor:
    """`change` acts on [0, 1] in the place of [−1, 1]."""
    return 2 * change((image.clamp(-1, 1) + 1) / 2) - 1


def _signed(image: Tensor) -> Tensor:
    return _between(image, -1.0, 1.0)


def _between(image: Tensor, low: float, high: float) -> Tensor:
    """(B, 1, 1, 1), uniform."""
    return low + (high - low) * torch.rand(len(image), 1, 1, 1, device=image.device)


def _smooth(image: Tensor, channels: int) -> Tensor:
    """(B, channels, H, W): standard normal at `NODES` × `NODES` nodes, and a cubic surface between them."""
    nodes = torch.randn(len(image), channels, NODES, NODES, device=image.device)
    return F.interpolate(nodes, image.shape[2:], mode="bicubic", align_corners=True)
