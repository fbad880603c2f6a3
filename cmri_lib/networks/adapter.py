"""ControlNet for adversarial generators: a frozen generator, and a trained branch that sees the mask.

Zhang, Rao & Agrawala, "Adding Conditional Control to Text-to-Image Diffusion Models", ICCV 2023 (arXiv 2302.05543): the
frozen base and the convolutions that start at zero. Mou et al., "T2I-Adapter", 2023 (arXiv 2302.08453): the branch.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.networks.conditioning.base import Batch, Conditioning
from cmri_lib.networks.mask_to_image import ConditionalGenerator, MaskToImageSettings


class Adapter(nn.Module):
    """Planes (B, channels, H, W) → what is added at every level of a generator, coarsest first; all zeros when fresh.

    No norm: an image's additions depend on its own mask alone, in training too.

    Args:
        channels: of the planes.
        widths: channels of the generator's features, finest (full size) first; each level halves the one before.
    """

    def __init__(self, channels: int, widths: tuple[int, ...]):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, widths[0], 3, padding=1), nn.LeakyReLU(0.2))
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(b, b, 3, padding=1), nn.LeakyReLU(0.2))
            for a, b in zip(widths, widths[1:]))
        self.zeros = nn.ModuleList(nn.Conv2d(width, width, 1) for width in widths)
        for layer in self.zeros:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, planes: Tensor) -> tuple[Tensor, ...]:
        features = [self.first(planes)]
        for layer in self.down:
            features.append(layer(features[-1]))
        return tuple(zero(x) for zero, x in zip(self.zeros, features))[::-1]


class ControlledGenerator(nn.Module):
    """(z, batch) → as `ConditionalGenerator`. Fresh, it equals its base exactly, whatever the mask.

    A ControlNet's branch is a copy of its base's encoder. A generator that starts from a vector has no encoder, so there is
    nothing to copy: an encoder of the mask's planes takes its place, as in T2I-Adapter, and is trained from scratch. It
    does not see z, so that it adds the same for every z; how that acts with z is left to the base's own layers.

    Args:
        latent, size, settings: those of the base.
        hint: the conditioning whose planes are shown to the branch.
        base: the conditioning of the generator that is to be controlled; none if not given.

    Call `load_pretrained` with the trained weights of the base before training. What conditions drop in training is
    dropped once, for base and branch alike.

    Raises:
        ParameterError: if `hint` has no planes, or gives more; if `size` cannot be halved as often as `settings` says.
    """

    def __init__(self, latent: int, size: int, settings: MaskToImageSettings, hint: Conditioning,
                 base: Conditioning | None = None):
        super().__init__()
        if not hint.channels:
            raise ParameterError(f"{hint.name!r} has no planes", field="hint", remedy="give a mask that is concatenated")
        hint.refuse_unused("planes")
        self.base = ConditionalGenerator(latent, size, settings, Conditioning() if base is None else base)
        self.hint, widths = hint, settings.generator
        self.branch = Adapter(hint.channels, (widths[0] // 2, *widths))
        self.load_pretrained(self.base.state_dict())

    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of a trained `ConditionalGenerator` for the base, and freeze it."""
        self.base.load_state_dict(weights)
        self.base.requires_grad_(False)
        self.base.eval()

    def train(self, mode: bool = True) -> ControlledGenerator:
        """As `nn.Module.train`, except that the base stays in eval mode: the statistics of its batch norm are part of what
        is frozen, and it must not drop by itself what the branch is given."""
        super().train(mode)
        self.base.eval()
        return self

    def forward(self, z: Tensor, batch: Batch) -> Tensor:
        """z (B, latent) → (B, 1, H, W) in [−1, 1]."""
        if self.training:
            batch = self.hint.apply_dropout(self.base.conditioning.apply_dropout(batch))
        planes = self.hint.planes(batch).to(z.dtype)
        return self.base(z, batch, control=self.branch(planes))
