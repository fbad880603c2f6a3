"""ControlNet: a frozen denoiser, and a trained copy of its first half that is also shown the condition.

Zhang, Rao & Agrawala, "Adding Conditional Control to Text-to-Image Diffusion Models", ICCV 2023 (arXiv 2302.05543).
"""

from __future__ import annotations

from collections.abc import Mapping

from monai.networks.nets import ControlNet
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.networks.conditioning.base import Batch, Conditioning
from cmri_lib.networks.unet import TIMES, Denoiser, UNetSettings


class Controlled(nn.Module):
    """(x_t, t, batch) → as `Denoiser`. Fresh, it equals its base exactly: the copy enters through layers of zeros.

    Args:
        settings: sizes, those of the base.
        base: the conditioning of the denoiser that is to be controlled.
        hint: the conditioning whose planes are shown to the copy.
        channels: of the image or latent.
        shrink: how many times the hint's planes must be halved to be as wide as x: 0 for images, more for latents. They
            are halved further where the settings put the pixels of a square in one place.

    Call `load_pretrained` with the trained weights of the base before training. What conditions drop in training is
    dropped once, for base and copy alike.

    Raises:
        ParameterError: on a negative `shrink`, a patch that is no power of 2, or a hint that gives more than planes.
    """

    def __init__(self, settings: UNetSettings, base: Conditioning, hint: Conditioning, channels: int = 1,
                 shrink: int = 0):
        super().__init__()
        if shrink < 0:
            raise ParameterError(f"{shrink}", field="shrink", remedy="give the number of halvings, at least 0")
        if settings.patch & (settings.patch - 1):
            raise ParameterError(f"{settings.patch}", field="patch", remedy="give a power of 2, for the hint is halved")
        hint.refuse_unused("planes")
        self.base, self.hint = Denoiser(settings, base, channels), hint
        levels, shrink = len(settings.channels), shrink + settings.patch.bit_length() - 1
        options = {"with_conditioning": True, "cross_attention_dim": base.context} if base.context else {}
        if base.width:
            options |= {"num_class_embeds": 1}
        # MONAI halves the hint between any two of these. As in the paper there are few channels where it is large; as
        # many as the copy has would cost more there than all the rest at the latents' size.
        embedding = tuple(max(1, settings.channels[0] >> k) for k in reversed(range(shrink + 1)))
        self.copy = ControlNet(
            spatial_dims=2, in_channels=settings.patch ** 2 * (channels + base.channels), channels=settings.channels,
            num_res_blocks=settings.blocks, norm_num_groups=8,
            attention_levels=(False,) * (levels - 1) + (True,), num_head_channels=settings.head_channels,
            conditioning_embedding_in_channels=hint.channels,
            conditioning_embedding_num_channels=embedding, **options)
        if base.width:
            self.copy.class_embedding = nn.Linear(base.width, 4 * settings.channels[0])
        self.load_pretrained(self.base.state_dict())

    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of a trained `Denoiser` for the base and the copy, and freeze the base."""
        self.base.load_state_dict(weights)
        self.copy.load_state_dict(self.base.unet.state_dict(), strict=False)  # all that the copy has of it
        self.base.requires_grad_(False)

    def train(self, mode: bool = True) -> Controlled:
        """As `nn.Module.train`, except that the base stays in eval mode: it is frozen, and must not drop by itself what
        the copy is given."""
        super().train(mode)
        self.base.eval()
        return self

    def forward(self, x: Tensor, t: Tensor, batch: Batch) -> Tensor:
        """x (B, C, H, W); t (B,) in [0, 1]; the hint's planes in `batch` are 2^shrink times as wide as x."""
        if self.training:
            batch = self.hint.apply_dropout(self.base.conditioning.apply_dropout(batch))
        condition = self.base.conditioning
        down, middle = self.copy(self.base.inputs(x, batch), TIMES * t, self.hint.planes(batch).to(x.dtype),
                                 context=condition.tokens(batch), class_labels=condition.vector(batch))
        return self.base(x, t, batch, control=(tuple(down), middle))
