"""An image as the condition of another: the source of a translation."""

from __future__ import annotations

from torch import Tensor

from cmri_lib.networks.conditioning.base import Batch, Conditioning

#: The entry of a batch that holds, for each image, the one that it is to be made from: (B, 1, H, W).
PARTNER = "partner"


class PartnerImage(Conditioning):
    """The source image beside the network's input (`planes`), or only in the batch, where the objective starts from it."""

    name = "image"
    fields = (PARTNER,)

    def __init__(self, concatenated: bool = True):
        super().__init__()
        self.channels = int(concatenated)

    def planes(self, batch: Batch) -> Tensor | None:
        return batch[PARTNER] if self.channels else None
