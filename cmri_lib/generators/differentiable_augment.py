"""Augmentation of what the critic sees, which gradients pass through on their way to the generator.

Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020 (arXiv 2006.10738); Karras et
al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020 (arXiv 2006.06676). A critic that sees
few images learns them by heart; augmenting real images and fakes alike keeps it from doing so. As long as images stand
a fair chance to be seen as they are, the augmentation does not leak into what the generator makes.

Both papers' flips and quarter turns are left out: a mirrored heart is situs inversus, not another heart. Small
rotations are too, because shifts and stretches alone are separable, so warping is two products of matrices, which are
fast, deterministic on every device and twice differentiable, as a gradient penalty before the augmentation would need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cmri_lib.errors import ParameterError

Transform = Callable[[Tensor], Tensor]


class Augment(nn.Module):
    """Each transform acts on each image with probability `p`, independently.

    Args:
        transforms: images (B, 1, H, W) → images, random from torch's global state.
        p: probability of each.
    """

    def __init__(self, transforms: Sequence[Transform], p: float):
        super().__init__()
        self.transforms = list(transforms)
        self.register_buffer("p", torch.tensor(float(p)))

    def forward(self, images: Tensor) -> Tensor:
        for transform in self.transforms:
            chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < self.p
            images = torch.where(chosen, transform(images), images)
        return images

    def update(self, real_logits: Tensor) -> None:
        """Called with the critic's logits (B,) of the real images of this step; only ADA uses them."""


class AdaptiveAugment(Augment):
    """ADA (Karras et al. 2020b, sec. 3.1): `p` rises while r_t = E[sign D(real)] exceeds `target`, else falls.

    Args:
        transforms: as in `Augment`.
        target: of r_t; 1 would be a critic that recognises every real image, 0 one that knows nothing.
        images: real images over which `p` could rise from 0 to 1. The paper has 500,000, a fiftieth of a training of 25
            million images; trainings of tens of thousands need fewer.
        limit: of `p`; an image should stand a chance to be seen as it is, or the augmentation leaks (fig. 4).
    """

    def __init__(self, transforms: Sequence[Transform], target: float, images: int = 10_000, limit: float = 0.8):
        super().__init__(transforms, p=0.0)
        self.target, self.images, self.limit = target, images, limit
        self.register_buffer("overfitting", torch.tensor(float(target)))  # running r_t

    @torch.no_grad()
    def update(self, real_logits: Tensor) -> None:
        # The paper averages 4 batches of 64; small batches need about 16.
        self.overfitting.lerp_(real_logits.sign().mean().to(self.overfitting), 1 / 16)
        step = (self.overfitting - self.target).sign() * len(real_logits) / self.images
        self.p.copy_((self.p + step).clamp(0, self.limit))


def make_augment(kind: str, target: float = 0.6) -> Augment:
    """"none"; "diffaug": brightness, contrast, shift and cutout at all times, in the strength of Zhao et al.; "ada":
    shift, stretch, brightness, contrast, noise and cutout as often as `target` asks for. Raises ParameterError."""
    if kind == "none":
        return Augment((), p=0.0)
    if kind == "diffaug":
        return Augment((brightness, contrast, shift, cutout), p=1.0)
    if kind == "ada":
        return AdaptiveAugment((shift, stretch, brightness, contrast, noise, cutout), target)
    raise ParameterError(f"{kind!r}", field="augment", remedy="choose 'none', 'diffaug' or 'ada'")


def _normal(images: Tensor) -> Tensor:
    """One standard normal number per image, (B, 1, 1, 1)."""
    return torch.randn(len(images), 1, 1, 1, device=images.device, dtype=images.dtype)


def brightness(images: Tensor) -> Tensor:
    """A normal offset, σ = 0.2."""
    return images + 0.2 * _normal(images)


def contrast(images: Tensor) -> Tensor:
    """Distances from the image's mean times a log-normal factor, σ = 0.5 octaves."""
    mean = images.mean((2, 3), keepdim=True)
    return mean + (images - mean) * torch.exp2(0.5 * _normal(images))


def noise(images: Tensor) -> Tensor:
    """White noise whose σ is |N(0, 0.1²)|."""
    return images + 0.1 * _normal(images).abs() * torch.randn_like(images)


def cutout(images: Tensor) -> Tensor:
    """A square of half the side, its centre uniform in the image, becomes 0."""
    side = images.shape[-1]
    centre = torch.rand(2, len(images), 1, device=images.device) * side
    inside = (torch.arange(side, device=images.device) + 0.5 - centre).abs() < side / 4  # (2, B, side)
    return images.masked_fill((inside[0, :, :, None] & inside[1, :, None, :])[:, None], 0.0)


def shift(images: Tensor) -> Tensor:
    """A whole number of pixels, uniform up to an eighth of the side, on each axis."""
    furthest = images.shape[-1] // 8
    offset = torch.randint(-furthest, furthest + 1, (2, len(images), 1), device=images.device).to(images.dtype)
    return warp(images, torch.ones_like(offset), offset)


def stretch(images: Tensor) -> Tensor:
    """Each axis about the centre by a log-normal factor, σ = 0.2 octaves: hearts differ in size and in shape."""
    factor = torch.exp2(0.2 * torch.randn(2, len(images), 1, device=images.device, dtype=images.dtype))
    return warp(images, factor, torch.zeros_like(factor))


def warp(images: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    """Images (B, 1, H, H) stretched about the centre by `factor` and moved by `offset` pixels, both (2, B, 1) for rows
    and columns; linear interpolation; beyond the edge the edge goes on."""
    side = images.shape[-1]
    place = torch.arange(side, device=images.device, dtype=images.dtype)
    middle = (side - 1) / 2
    # Where each pixel comes from, (2, B, side).
    source = ((place - middle - offset) / factor + middle).clamp(0, side - 1)
    rows, columns = (1 - (source[..., None] - place).abs()).clamp(min=0)  # (B, side, side) each: weights, rows sum to 1
    return (rows @ images[:, 0] @ columns.mT)[:, None]
