"""A label map as a condition: which labels, and by which conditioning method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from cmri_lib.errors import ParameterError
from cmri_lib.networks.conditioning.base import Batch, Conditioning, one_hot


class LabelMap(Conditioning):
    """A label map, one-hot, concatenated to the input or read by SPADE layers (Park et al. 2019, arXiv 1903.07291).

    Args:
        name: what the results tables call it, without the method.
        field: the batch entry, (B, H, W) uint8.
        labels: number of labels, background included.
        method: "concat" or "spade".
        only: labels that are given; the others count as background. All of them if empty.
    """

    def __init__(self, name: str = "mask", field: str = "mask", labels: int = 4,
                 method: Literal["concat", "spade"] = "concat", only: Sequence[int] = ()):
        super().__init__()
        if method not in ("concat", "spade"):
            raise ParameterError(f"{method!r}", field="method", remedy="choose 'concat' or 'spade'")
        self.name, self.fields, self.labels, self.only = f"{name} ({method})", (field,), labels, tuple(only)
        self.channels, self.regions = (labels, 0) if method == "concat" else (0, labels)

    def planes(self, batch: Batch) -> Tensor | None:
        return self._one_hot(batch) if self.channels else None

    def maps(self, batch: Batch) -> Tensor | None:
        return self._one_hot(batch) if self.regions else None

    def _one_hot(self, batch: Batch) -> Tensor:
        labels = batch[self.fields[0]]
        if self.only:
            for label in set(range(self.labels)) - set(self.only):
                labels = labels.masked_fill(labels == label, 0)
        return one_hot(labels, self.labels)


class AblatedLabelMap(LabelMap):
    """A label map of which any subset of structures may be given (Konz et al. 2024, arXiv 2402.05210, sec. 2.3).

    In training each structure of each image is erased to background with probability ½, so that background means
    "background, or not given", and the network learns to fill in what is not given.
    """

    def apply_dropout(self, batch: Batch) -> Batch:
        labels = batch[self.fields[0]]
        kept = torch.rand(len(labels), self.labels, device=labels.device) < 0.5
        given = kept.gather(1, labels.flatten(1).long().clamp(max=self.labels - 1)).view_as(labels)
        return {**batch, self.fields[0]: torch.where(given, labels, 0)}
