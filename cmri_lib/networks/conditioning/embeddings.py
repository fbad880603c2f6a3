"""Conditions that are not images: words, numbers and codes as vectors, as tokens, several at once, and hidden.

A word is a whole number, its code; a number is scaled to about −1 … 1. What is not known has a value of its own (code 0,
NaN, `UNKNOWN_LABEL`), so hiding a condition needs no network of its own: it means writing that value into the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from cmri_lib.errors import DataError, ParameterError
from cmri_lib.networks.conditioning.base import UNKNOWN_LABEL, Batch, Conditioning


def hidden(values: Tensor) -> Tensor:
    """What stands for "not known" in place of `values`: label maps are uint8, codes int64, numbers floating."""
    if values.is_floating_point():
        return torch.full_like(values, math.nan)
    return torch.full_like(values, UNKNOWN_LABEL if values.dtype == torch.uint8 else 0)


def without(batch: Batch, fields: Sequence[str]) -> Batch:
    """The batch with `fields` hidden from whoever reads it."""
    return {**batch, **{field: hidden(batch[field]) for field in fields}}


class Words(Conditioning):
    """Vendor, phase, disease, …: one learnt vector per word, those of all columns side by side.

    Args:
        words: column → number of its words, "unknown" (code 0) included.
        size: numbers per column.
    """

    def __init__(self, words: Mapping[str, int], size: int = 16):
        super().__init__()
        self.name, self.fields, self.width = " + ".join(words), tuple(words), size * len(words)
        self.tables = nn.ModuleDict({column: nn.Embedding(count, size) for column, count in words.items()})

    def vector(self, batch: Batch) -> Tensor:
        return torch.cat([self.tables[column](batch[column]) for column in self.fields], dim=1)


class Prompt(Words):
    """The same words as a short sentence: one token each, for cross-attention."""

    def __init__(self, words: Mapping[str, int], size: int = 32):
        super().__init__(words, size)
        self.name, self.width, self.context = f"prompt ({', '.join(words)})", 0, size
        self.place = nn.Parameter(0.02 * torch.randn(len(words), size))

    def vector(self, batch: Batch) -> None:
        return None

    def tokens(self, batch: Batch) -> Tensor:
        """(B, n, context): the k-th token is the k-th column's word, at its place in the sentence."""
        words = [self.tables[column](batch[column]) for column in self.fields]
        return torch.stack(words, dim=1) + self.place


class Numbers(Conditioning):
    """Age, BMI, ejection fraction, …: sines and cosines of the scaled value, zeros where it is not known.

    Frequencies rise from ½ to 8 periods over the scaled range −1 … 1 (the embedding of Campello et al. 2022, after Vaswani
    et al. 2017, sec. 3.5): near values get near vectors, and the network can tell fine differences.

    Args:
        columns: batch entries, (B,) floating.
        size: numbers per column, even.
    """

    def __init__(self, columns: Sequence[str], size: int = 16):
        super().__init__()
        self.name, self.fields, self.width = " + ".join(columns), tuple(columns), size * len(columns)
        self.register_buffer("frequencies", torch.pi / 2 * 16 ** torch.linspace(0, 1, size // 2), persistent=False)

    def vector(self, batch: Batch) -> Tensor:
        return torch.cat([self._waves(batch[column]) for column in self.fields], dim=1)

    def _waves(self, values: Tensor) -> Tensor:
        """(B,) → (B, size)."""
        known = values.isfinite()
        angle = values.nan_to_num()[:, None] * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=1) * known[:, None]


class Given(Conditioning):
    """A vector that the batch already holds, such as the code of another network; zeros where it is not known.

    Args:
        field: batch entry, (B, width) floating, of mean 0 and variance 1.
        width: its length.

    Raises:
        DataError: on a vector of another length.
    """

    def __init__(self, field: str, width: int):
        super().__init__()
        self.name, self.fields, self.width = field, (field,), width

    def vector(self, batch: Batch) -> Tensor:
        values = batch[self.fields[0]]
        if values.shape[1:] != (self.width,):
            raise DataError(f"{tuple(values.shape)} is not (B, {self.width})", field=self.fields[0],
                            remedy="give one vector of that length per image")
        return values.nan_to_num()


class Several(Conditioning):
    """Conditions side by side, each hidden in a share of the training, so that any subset of them can be given later.

    Classifier-free guidance (Ho & Salimans 2022, alg. 1) needs a network that also knows the image without its
    condition. Fields are hidden independently, for each image anew.

    Args:
        parts: conditionings; at most one of them gives tokens.
        hide: probability that a field is hidden from a network in training.
    """

    def __init__(self, *parts: Conditioning, hide: float = 0.0):
        super().__init__()
        if not 0 <= hide < 1 or sum(part.context > 0 for part in parts) > 1:
            raise ParameterError(f"hide {hide}, {len(parts)} parts", field="hide",
                                 remedy="hide with a probability below 1, and give tokens from one part only")
        self.parts, self.hide = nn.ModuleList(parts), hide
        self.name = " + ".join(part.name for part in parts)
        self.fields = tuple(dict.fromkeys(field for part in parts for field in part.fields))
        self.channels, self.regions, self.width, self.context = (
            sum(getattr(part, kind) for part in parts) for kind in ("channels", "regions", "width", "context"))

    def seen(self, batch: Batch) -> Batch:
        for part in self.parts:
            batch = part.seen(batch)
        if not self.hide:
            return batch
        shown = dict(batch)
        for field in self.fields:
            values = batch[field]
            lost = torch.rand(len(values), *[1] * (values.dim() - 1), device=values.device) < self.hide
            shown[field] = torch.where(lost, hidden(values), values)
        return shown

    def planes(self, batch: Batch) -> Tensor | None:
        return _joined([part.planes(batch) for part in self.parts])

    def maps(self, batch: Batch) -> Tensor | None:
        return _joined([part.maps(batch) for part in self.parts])

    def vector(self, batch: Batch) -> Tensor | None:
        return _joined([part.vector(batch) for part in self.parts])

    def tokens(self, batch: Batch) -> Tensor | None:
        return _joined([part.tokens(batch) for part in self.parts])


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    given = [part for part in parts if part is not None]
    return torch.cat(given, dim=1) if given else None
