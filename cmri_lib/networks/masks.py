"""The mask as a condition: how much of it is told, and by which way it enters."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cmri_lib.cohort.case import LABELS, TISSUES
from cmri_lib.errors import ParameterError
from cmri_lib.networks.conditioning import Batch, Conditioning, one_hot

Content = Literal["cavity", "labels", "tissues"]

#: Content → batch entry, number of planes. "cavity" is the LV cavity alone, "tissues" every structure of the slice.
CONTENTS: dict[str, tuple[str, int]] = {
    "cavity": ("mask", 2), "labels": ("mask", len(LABELS) + 1), "tissues": ("tissues", len(TISSUES) + 1)}


class Mask(Conditioning):
    """A label map, one-hot, concatenated to the input or read by SPADE layers (Park et al. 2019, arXiv 1903.07291).

    Args:
        content: what of it is told.
        way: "concat" or "spade".
    """

    def __init__(self, content: Content = "labels", way: Literal["concat", "spade"] = "concat"):
        super().__init__()
        if content not in CONTENTS or way not in ("concat", "spade"):
            raise ParameterError(f"content {content!r}, way {way!r}", field="content",
                                 remedy=f"choose a content of {list(CONTENTS)} and 'concat' or 'spade'")
        self.content, self.way = content, way
        field, count = CONTENTS[content]
        self.fields, self.name = (field,), f"{'mask' if content == 'labels' else content} ({way})"
        self.channels, self.regions = (count, 0) if way == "concat" else (0, count)

    def planes(self, batch: Batch) -> Tensor | None:
        return self._one_hot(batch) if self.way == "concat" else None

    def maps(self, batch: Batch) -> Tensor | None:
        return self._one_hot(batch) if self.way == "spade" else None

    def _one_hot(self, batch: Batch) -> Tensor:
        labels = batch[self.fields[0]]
        if self.content == "cavity":
            labels = torch.where((labels == LABELS["Myo"]) | (labels == LABELS["RV"]), 0, labels)
        return one_hot(labels, self.channels or self.regions)


class AblatedMask(Mask):
    """A mask of which any subset of structures may be given (Konz et al. 2024, arXiv 2402.05210, sec. 2.3).

    In training each structure of each image is erased to background with probability ½, so that background means
    "background, or not told", and the network learns to fill in what is not told.
    """

    def __init__(self, content: Content = "labels", way: Literal["concat", "spade"] = "concat"):
        super().__init__(content, way)
        self.name = self.name.replace(")", ", ablated)")

    def seen(self, batch: Batch) -> Batch:
        labels = batch[self.fields[0]]
        kept = torch.rand(len(labels), CONTENTS[self.content][1], device=labels.device) < 0.5
        told = kept.gather(1, labels.flatten(1).long().clamp(max=kept.shape[1] - 1)).view_as(labels)
        return {**batch, self.fields[0]: torch.where(told, labels, 0)}
