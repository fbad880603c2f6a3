"""Masked token modelling: a transformer guesses hidden tokens of a VQ autoencoder, all at once, in a few rounds.

Chang et al., "MaskGIT: Masked Generative Image Transformer", CVPR 2022 (arXiv 2202.04200).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.generators.base import chosen_settings, noise_stream
from cmri_lib.generators.latent import TwoStage
from cmri_lib.networks.autoencoder import VQAutoencoder
from cmri_lib.networks.conditioning.base import Batch, Conditioning

#: Uniform numbers stay this far from 0 and 1, where logarithms and inverse distributions have no value.
MARGIN = 1e-7


@dataclass(frozen=True)
class MaskedSettings:
    """`steps` rounds of decoding; `temperature` scales the Gumbel noise on the confidences. Confidence alone
    (temperature 0) prefers the commonest tokens; a high one reveals places in random order, which is unbiased."""

    steps: int = 12
    temperature: float = 4.5
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.temperature < 0 or not 0 <= self.label_smoothing < 1:
            raise ParameterError(f"steps {self.steps}, temperature {self.temperature}, label smoothing "
                                 f"{self.label_smoothing}", field="steps",
                                 remedy="at least one step, no negative temperature, smoothing in [0, 1)")


def hidden_fraction(progress: Tensor) -> Tensor:
    """γ(r) = cos(πr/2), the share of tokens still hidden after `progress` r ∈ [0, 1] (Chang et al., section 3.3)."""
    return torch.cos(math.pi / 2 * progress)


def hidden_count(progress: Tensor, places: Tensor) -> Tensor:
    """⌈γ(r)·n⌉ of `places` n tokens, rounding errors forgiven: all of them at r = 0, none at r = 1."""
    return torch.ceil(hidden_fraction(progress) * places - 1e-4).long()


def lowest(scores: Tensor, count: Tensor) -> Tensor:
    """(B, n) bool: the count[b] lowest entries of each row."""
    return scores.argsort(dim=1).argsort(dim=1) < count[:, None]


def choose(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Index drawn from the last axis of `probabilities`, by inverting its cumulative sum at `uniform`."""
    cumulative = probabilities.cumsum(dim=-1)
    threshold = uniform[..., None] * cumulative[..., -1:]  # the last sum is 1 but for rounding
    return (cumulative < threshold).sum(dim=-1)


class MaskGIT(TwoStage):
    """U9, and C8, conditioned on phenotypes: a prior over the tokens of a VQ autoencoder.

    Args:
        autoencoder: the first stage.
        network: (tokens (B, h, w), hidden ones = autoencoder.codes; batch) → logits (B, h, w, codes).
        settings: sampler and label smoothing.
        conditioning: the one that `network` uses.
    """

    def __init__(self, autoencoder: VQAutoencoder, network: nn.Module, settings: MaskedSettings = MaskedSettings(),
                 conditioning: Conditioning | None = None):
        super().__init__(autoencoder)
        self.network, self.conditioning, self.settings = network, conditioning or Conditioning(), settings
        self.label_smoothing = settings.label_smoothing  # what training depends on, unlike the sampler

    @property
    def nfe(self) -> int:
        """Of the transformer; the decoder is evaluated once more."""
        return self.settings.steps

    @property
    def hidden(self) -> int:
        """The index that stands for a hidden token."""
        return self.autoencoder.codes

    def compress(self, images: Tensor) -> Tensor:
        return self.autoencoder.tokens(images)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"model": list(self.network.parameters())}

    def noise_shape(self, size: int) -> tuple[int, ...]:
        """Two numbers per token: one chooses the token, one perturbs the confidence in it."""
        return 2, *self.autoencoder.latent_shape(size)[-2:]

    def loss(self, batch: Batch, group: str) -> Tensor:
        """Cross entropy of the hidden tokens given the others, their number drawn by the cosine schedule (eq. 1).
        `batch["image"]` holds tokens (B, h, w), as `prepare` makes them."""
        tokens = batch["image"]
        scores = torch.rand(tokens.flatten(1).shape, device=tokens.device)
        progress = torch.rand(len(tokens), device=tokens.device)
        places = torch.full_like(progress, scores.shape[1])
        hidden = lowest(scores, hidden_count(progress, places).clamp(min=1)).view_as(tokens)
        logits = self.network(tokens.masked_fill(hidden, self.hidden), batch)
        return F.cross_entropy(logits[hidden], tokens[hidden], label_smoothing=self.label_smoothing)

    @torch.no_grad()
    def sample(self, noise: Tensor, batch: Batch, *, steps: int | None = None, temperature: float | None = None
               ) -> Tensor:
        """Images decoded in `steps` rounds from nothing but `noise` (B, 2, h, w)."""
        unknown = torch.full(noise[:, 0].shape, self.hidden, device=noise.device)
        return self.autoencoder.decode_tokens(self.complete(unknown, noise, steps, temperature, batch))

    @torch.no_grad()
    def inpaint(self, images: Tensor, known: Tensor, noise: Tensor, *, steps: int | None = None,
                temperature: float | None = None, batch: Batch | None = None) -> Tensor:
        """Images that agree with `images` (B, 1, H, W) wherever `known` (B, H, W) is true, the rest made up.

        What stands in the unknown pixels is never read. A token counts as known if all pixels of its square are.
        """
        kept = known[:, None]
        tokens = self.autoencoder.tokens(images.masked_fill(~kept, -1.0))
        square = known.shape[-1] // tokens.shape[-1]
        lost = F.max_pool2d((~kept).float(), square)[:, 0] > 0
        tokens = self.complete(tokens.masked_fill(lost, self.hidden), noise, steps, temperature, batch)
        return torch.where(kept, images, self.autoencoder.decode_tokens(tokens))

    def complete(self, tokens: Tensor, noise: Tensor, steps: int | None = None, temperature: float | None = None,
                 batch: Batch | None = None) -> Tensor:
        """The hidden tokens of (B, h, w) filled in, the others kept: the end of `rounds`. Raises ParameterError as
        `MaskedSettings` does."""
        chosen = chosen_settings(self.settings, steps=steps, temperature=temperature)
        for tokens in self.rounds(tokens, noise, chosen.steps, chosen.temperature, batch):
            pass
        return tokens

    @torch.no_grad()
    def rounds(self, tokens: Tensor, noise: Tensor, steps: int, temperature: float, batch: Batch | None = None
               ) -> Iterator[Tensor]:
        """Iterative decoding of (B, h, w) tokens, yielding them after each round (Chang et al., section 3.2).

        Each round draws every hidden token, then hides those again in which there is least confidence: the log
        probability of what was drawn plus Gumbel noise, whose scale falls linearly to zero.
        """
        places = (tokens == self.hidden).flatten(1).sum(dim=1)
        fresh = noise_stream(noise)
        for k in range(1, steps + 1):
            uniform = torch.special.ndtr(noise if k == 1 else next(fresh)).clamp(MARGIN, 1 - MARGIN)
            hidden = tokens == self.hidden
            probabilities = self.network(tokens, batch or {}).float().softmax(dim=-1)
            drawn = torch.where(hidden, choose(probabilities, uniform[:, 0]), tokens)
            chance = probabilities.gather(-1, drawn[..., None])[..., 0]
            gumbel = -torch.log(-torch.log(uniform[:, 1]))
            confidence = chance.log() + temperature * (1 - k / steps) * gumbel
            confidence = confidence.masked_fill(~hidden, math.inf).flatten(1)
            progress = torch.full_like(places, k / steps, dtype=torch.float32)
            tokens = drawn.masked_fill(lowest(confidence, hidden_count(progress, places)).view_as(drawn), self.hidden)
            yield tokens
