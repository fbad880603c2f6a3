"""Conditioning: how what is known of a slice (mask, vendor, …) enters a network.

A denoiser, flow or adversarial generator holds one `Conditioning` and asks it for what it can take: planes to concatenate
to its input, maps that modulate its normalisation (SPADE), a vector beside the time, tokens for cross-attention. A
conditioning reads named fields of the batch; it does not know which network it serves.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmri_lib.errors import ParameterError

Batch = dict[str, Tensor]

#: Method of a conditioning → the attribute that says how many channels it gives.
GIVES = {"planes": "channels", "maps": "regions", "vector": "width", "tokens": "context"}
#: What stands in a label map where nothing is known, not even that it is background.
UNKNOWN_LABEL = 255


class Conditioning(nn.Module):
    """No condition at all; the base of every other.

    Attributes:
        name: what the results tables call it.
        fields: the batch entries it reads.
        categories: of the fields that are categories, their names; the code of a name is its place from 1, 0 is unknown.
        scales: of the fields that are numbers, the centre and spread that bring them to about −1 … 1; NaN is unknown.
        channels, regions, width, context: channels of what `planes`, `maps`, `vector` and `tokens` give; 0 for nothing.
    """

    name = "none"
    fields: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str, ...]] = {}
    scales: Mapping[str, tuple[float, float]] = {}
    channels = 0
    regions = 0
    width = 0
    context = 0

    def refuse_unused(self, *taken: str) -> None:
        """For a network that takes no more than some of `GIVES`: raises ParameterError if this has more to give, which would be
        ignored without a word."""
        unused = [method for method, channels in GIVES.items() if getattr(self, channels) and method not in taken]
        if unused:
            raise ParameterError(f"{self.name!r} gives {' and '.join(unused)}, this network takes {' and '.join(taken)}",
                                 field="conditioning", remedy="give the condition in that way, or take another network")

    def apply_dropout(self, batch: Batch) -> Batch:
        """The batch as a network sees it in training: conditions that may be left out later are dropped at random here."""
        return batch

    def planes(self, batch: Batch) -> Tensor | None:
        """(B, channels, H, W) to concatenate to the input, or None."""
        return None

    def maps(self, batch: Batch) -> Tensor | None:
        """(B, regions, H, W) from which SPADE layers read scale and shift, or None."""
        return None

    def vector(self, batch: Batch) -> Tensor | None:
        """(B, width) to add, after a linear layer, to the embedding of the time, or None."""
        return None

    def tokens(self, batch: Batch) -> Tensor | None:
        """(B, n, context) for cross-attention, or None."""
        return None


def one_hot(labels: Tensor, count: int) -> Tensor:
    """Label map (B, H, W) → (B, count, H, W); zeros where it is `UNKNOWN_LABEL`."""
    known = labels != UNKNOWN_LABEL
    planes = F.one_hot(labels.long().masked_fill(~known, 0), count).movedim(-1, 1)  # (B, count, H, W)
    return (planes * known[:, None]).to(torch.get_default_dtype())
