"""Ways in: how what we know of a slice (mask, vendor, …) enters a network.

A denoiser, flow or adversarial generator holds one `Conditioning` and asks it for planes to concatenate to its input.
A conditioning reads named fields of the batch; it does not know what network it serves.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batch = dict[str, Tensor]


class Conditioning(nn.Module):
    """No condition at all; the base of every other.

    Attributes:
        name: what the results tables call it.
        fields: the batch entries it reads.
        channels: number of planes that `planes` adds to the network's input.
    """

    name = "none"
    fields: tuple[str, ...] = ()
    channels = 0

    def planes(self, batch: Batch) -> Tensor | None:
        """(B, channels, H, W) to concatenate to the input, or None."""
        return None


class ConcatMask(Conditioning):
    """The label map, one-hot, concatenated to the noisy image (Konz et al. 2024, without ablation).

    Args:
        labels: number of labels including background.
    """

    fields = ("mask",)

    def __init__(self, labels: int = 4):
        super().__init__()
        self.name = "mask (concat)"
        self.channels = labels

    def planes(self, batch: Batch) -> Tensor:
        one_hot = F.one_hot(batch["mask"].long(), self.channels)  # (B, H, W, labels)
        return one_hot.movedim(-1, 1).to(torch.get_default_dtype())
