"""Transformers over patches and tokens: the DiT/U-ViT denoiser of U8 and the bidirectional token predictor of U9.

Peebles & Xie, "Scalable Diffusion Models with Transformers", ICCV 2023 (arXiv 2212.09748): adaLN-Zero blocks.
Bao et al., "All are Worth Words: A ViT Backbone for Diffusion Models", CVPR 2023 (arXiv 2209.12152): long skips.
Chang et al., "MaskGIT: Masked Generative Image Transformer", CVPR 2022 (arXiv 2202.04200): the token predictor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.networks.conditioning.base import Batch, Conditioning


@dataclass(frozen=True)
class TransformerSettings:
    """`width` of what attention sees at one place (a multiple of `heads`, of 4 and, for codes, of `patch`²); `depth`
    blocks. A place is a square of `patch` × `patch` latents or codes. `long_skips` (U-ViT) concern the denoiser,
    `dropout` the predictor of codes."""

    width: int = 128
    depth: int = 6
    heads: int = 4
    patch: int = 1
    long_skips: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 4:
            raise ParameterError(f"{self.width}", field="width", remedy="use a multiple of 4 and of heads")
        if self.depth < 1 or self.patch < 1:
            raise ParameterError(f"depth {self.depth}, patch {self.patch}", field="depth", remedy="give at least 1")

    def refuse(self, size: int) -> None:
        """Raises ParameterError if patches do not fill a map of size × size places."""
        if size % self.patch:
            raise ParameterError(f"patches of {self.patch}² on a map of {size}²", field="patch",
                                 remedy="give one that divides the side")


def patches(x: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) → (B, n, C·patch²): squares of `patch` pixels per side, row by row."""
    return F.pixel_unshuffle(x, patch).flatten(2).transpose(1, 2)


def assemble(tokens: Tensor, patch: int, rows: int, columns: int) -> Tensor:
    """The inverse of `patches` for a grid of rows × columns squares."""
    return F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (rows, columns)), patch)


def positions(width: int, rows: int, columns: int, like: Tensor) -> Tensor:
    """(rows·columns, width) fixed sines and cosines of a token's place; each side counts as 16, whatever the grid."""
    from diffusers.models.embeddings import get_2d_sincos_pos_embed  # here: it loads torch's compiler, seconds for everybody

    return get_2d_sincos_pos_embed(width, (rows, columns), output_type="pt", device=like.device).to(like.dtype)


class AdaptiveBlock(nn.Module):
    """Self-attention and MLP, each shifted, scaled and gated by the time (adaLN-Zero, Peebles & Xie, fig. 3).

    The gates start at zero, so a new block is the identity.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.modulation = zeroed(nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, n, width); condition (B, width)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)[:, None].chunk(6, dim=-1)
        y = self.norm(x) * (1 + scale1) + shift1
        x = x + gate1 * self.attention(y, y, y, need_weights=False)[0]
        return x + gate2 * self.mlp(self.norm(x) * (1 + scale2) + shift2)


class TransformerDenoiser(nn.Module):
    """(x_t, t, condition) → an image of x_t's shape; takes the place of `unet.Denoiser`.

    Args:
        settings: sizes. With `long_skips`, the k-th block from the end also sees what entered the k-th from the start.
        conditioning: its planes are concatenated to the input.
        channels: of the image or latent.

    Raises:
        ParameterError: if the conditioning gives more than planes.
    """

    def __init__(self, settings: TransformerSettings, conditioning: Conditioning, channels: int = 1):
        from diffusers.models.embeddings import TimestepEmbedding, Timesteps  # as above

        super().__init__()
        conditioning.refuse_unused("planes")
        self.conditioning, self.patch = conditioning, settings.patch
        width, area = settings.width, settings.patch**2
        self.embed = nn.Linear((channels + conditioning.channels) * area, width)
        # The embedding of the time expects diffusion's 0 … 1000.
        self.time = nn.Sequential(Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0, scale=1000),
                                  TimestepEmbedding(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(AdaptiveBlock(width, settings.heads) for _ in range(settings.depth))
        skips = settings.depth // 2 if settings.long_skips else 0
        self.merge = nn.ModuleList(_blind_to_second_half(width) for _ in range(skips))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = zeroed(nn.Linear(width, 2 * width))
        self.head = zeroed(nn.Linear(width, channels * area))

    def forward(self, x: Tensor, t: Tensor, batch: Batch) -> Tensor:
        """x (B, C, H, W), sides divisible by `patch`; t (B,) in [0, 1]; `batch` holds what the conditioning reads."""
        planes = self.conditioning.planes(batch)
        inputs = x if planes is None else torch.cat([x, planes.to(x.dtype)], dim=1)
        rows, columns = x.shape[2] // self.patch, x.shape[3] // self.patch
        tokens = self.embed(patches(inputs, self.patch))
        condition = self.time(t).to(tokens.dtype)
        tokens = self._through_blocks(tokens + positions(tokens.shape[-1], rows, columns, tokens), condition)
        shift, scale = self.modulation(condition)[:, None].chunk(2, dim=-1)
        return assemble(self.head(self.norm(tokens) * (1 + scale) + shift), self.patch, rows, columns)

    def _through_blocks(self, tokens: Tensor, condition: Tensor) -> Tensor:
        skips, kept = len(self.merge), []
        for i, block in enumerate(self.blocks):
            if i < skips:
                kept.append(tokens)
            elif (late := i - (len(self.blocks) - skips)) >= 0:
                tokens = self.merge[late](torch.cat([tokens, kept.pop()], dim=-1))
            tokens = block(tokens, condition)
        return tokens


class TokenTransformer(nn.Module):
    """Code indices, some of them hidden → logits of every code at every place, each seeing all others.

    The embeddings of a square of `patch` × `patch` codes are concatenated to one place of the transformer, which
    answers for all of them: attention costs patch⁴ times less, and still each code is predicted from all that are shown.

    Args:
        settings: sizes.
        codes: size of the codebook; index `codes` stands for a hidden token.
        conditioning: its vector is added at every place.

    Raises:
        ParameterError: if the conditioning gives more than a vector.
    """

    def __init__(self, settings: TransformerSettings, codes: int, conditioning: Conditioning | None = None):
        super().__init__()
        self.conditioning = conditioning or Conditioning()
        self.conditioning.refuse_unused("vector")
        width, area, self.patch = settings.width, settings.patch**2, settings.patch
        if width % area:
            raise ParameterError(f"{width}", field="width", remedy=f"use a multiple of patch² = {area}")
        self.embed = nn.Embedding(codes + 1, width // area)
        self.drop = nn.Dropout(settings.dropout)
        self.blocks = nn.Sequential(*(
            nn.TransformerEncoderLayer(width, settings.heads, 4 * width, settings.dropout, "gelu", batch_first=True,
                                       norm_first=True) for _ in range(settings.depth)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, codes * area))
        self.condition = nn.Linear(self.conditioning.width, width) if self.conditioning.width else None

    def forward(self, tokens: Tensor, batch: Batch) -> Tensor:
        """tokens (B, h, w) integers in [0, codes], sides divisible by `patch` → logits (B, h, w, codes)."""
        rows, columns = (side // self.patch for side in tokens.shape[1:])
        x = patches(self.embed(tokens).movedim(-1, 1), self.patch)
        x = x + positions(x.shape[-1], rows, columns, x)
        if self.condition is not None:
            batch = self.conditioning.apply_dropout(batch) if self.training else batch
            x = x + self.condition(self.conditioning.vector(batch))[:, None]
        x = self.drop(x)
        return assemble(self.head(self.blocks(x)), self.patch, rows, columns).movedim(1, -1)


def zeroed(layer: nn.Linear) -> nn.Linear:
    """`layer` with all parameters at zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _blind_to_second_half(width: int) -> nn.Linear:
    """A linear map of two concatenated tokens that starts by returning the first, so that a new denoiser's blocks are
    the identity with long skips as without."""
    layer = zeroed(nn.Linear(2 * width, width))
    with torch.no_grad():
        layer.weight[:, :width] = torch.eye(width)
    return layer
