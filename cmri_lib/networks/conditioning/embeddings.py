"""Conditions that are not images: categories, numbers and codes, as vectors or tokens, several at once, and dropped.

A category is a whole number, its code; a number is scaled to about −1 … 1. What is unknown has a value of its own (code 0,
NaN, `UNKNOWN_LABEL`), so dropping a condition needs no network of its own: it means writing that value into the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from cmri_lib.errors import DataError, ParameterError
from cmri_lib.networks.conditioning.base import UNKNOWN_LABEL, Batch, Conditioning


def unknown_like(values: Tensor) -> Tensor:
    """What stands for "unknown" in place of `values`: label maps are uint8, codes int64, numbers floating."""
    if values.is_floating_point():
        return torch.full_like(values, math.nan)
    return torch.full_like(values, UNKNOWN_LABEL if values.dtype == torch.uint8 else 0)


def drop_fields(batch: Batch, fields: Sequence[str]) -> Batch:
    """The batch with `fields` unknown."""
    return {**batch, **{field: unknown_like(batch[field]) for field in fields}}


class CategoricalEmbedding(Conditioning):
    """Vendor, phase, disease, …: one learnt vector per category, those of all columns side by side.

    Args:
        categories: column → its categories; "unknown" is added as code 0.
        size: numbers per column.
    """

    def __init__(self, categories: Mapping[str, Sequence[str]], size: int = 16):
        super().__init__()
        self.categories = {column: tuple(names) for column, names in categories.items()}
        self.name, self.fields, self.width = " + ".join(categories), tuple(categories), size * len(categories)
        self.tables = nn.ModuleDict({c: nn.Embedding(len(names) + 1, size) for c, names in self.categories.items()})

    def extra_repr(self) -> str:
        """The meaning of every code, which a training depends on."""
        return repr(self.categories)

    def vector(self, batch: Batch) -> Tensor:
        return torch.cat([self.tables[column](batch[column]) for column in self.fields], dim=1)


class PromptTokens(CategoricalEmbedding):
    """The same categories as a short sentence: one token each, for cross-attention."""

    def __init__(self, categories: Mapping[str, Sequence[str]], size: int = 32):
        super().__init__(categories, size)
        self.name, self.width, self.context = f"prompt ({', '.join(categories)})", 0, size
        self.place = nn.Parameter(0.02 * torch.randn(len(categories), size))

    def vector(self, batch: Batch) -> None:
        return None

    def tokens(self, batch: Batch) -> Tensor:
        """(B, n, context): the k-th token is the category of the k-th column, plus an embedding of its position."""
        tokens = [self.tables[column](batch[column]) for column in self.fields]
        return torch.stack(tokens, dim=1) + self.place


class FourierEmbedding(Conditioning):
    """Age, BMI, ejection fraction, …: sines and cosines of the scaled value, zeros where it is unknown.

    Frequencies rise from ½ to 8 periods over the scaled range −1 … 1 (the embedding of Campello et al. 2022, after Vaswani
    et al. 2017, sec. 3.5): near values get near vectors, and the network can tell fine differences.

    Args:
        scales: column → (centre, spread) that bring its values to about −1 … 1.
        size: numbers per column, even.
    """

    def __init__(self, scales: Mapping[str, tuple[float, float]], size: int = 16):
        super().__init__()
        self.scales = dict(scales)
        self.name, self.fields, self.width = " + ".join(scales), tuple(scales), size * len(scales)
        self.register_buffer("frequencies", torch.pi / 2 * 16 ** torch.linspace(0, 1, size // 2), persistent=False)

    def extra_repr(self) -> str:
        """The scales, which a training depends on."""
        return repr(self.scales)

    def vector(self, batch: Batch) -> Tensor:
        return torch.cat([self._fourier_features(batch[column]) for column in self.fields], dim=1)

    def _fourier_features(self, values: Tensor) -> Tensor:
        """(B,) → (B, size)."""
        known = values.isfinite()
        angle = values.nan_to_num()[:, None] * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=1) * known[:, None]


class VectorCondition(Conditioning):
    """A vector that the batch already holds, such as the code of another network; zeros where it is unknown.

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


class CompositeConditioning(Conditioning):
    """Several conditions, each dropped in a share of the training, so that any subset of them can be given later.

    Classifier-free guidance (Ho & Salimans 2022, alg. 1) needs a network that also knows the image without its
    condition. Fields are dropped independently, for each image anew.

    Args:
        parts: conditionings; at most one of them gives tokens.
        dropout: probability that a field is dropped in training.
    """

    def __init__(self, *parts: Conditioning, dropout: float = 0.0):
        super().__init__()
        if not 0 <= dropout < 1 or sum(part.context > 0 for part in parts) > 1:
            raise ParameterError(f"dropout {dropout}, {len(parts)} parts", field="dropout",
                                 remedy="give a probability below 1, and tokens from one part only")
        self.parts, self.dropout = nn.ModuleList(parts), dropout
        self.name = " + ".join(part.name for part in parts)
        self.fields = tuple(dict.fromkeys(field for part in parts for field in part.fields))
        self.categories = {k: v for part in parts for k, v in part.categories.items()}
        self.scales = {k: v for part in parts for k, v in part.scales.items()}
        self.channels, self.regions, self.width, self.context = (
            sum(getattr(part, kind) for part in parts) for kind in ("channels", "regions", "width", "context"))

    def apply_dropout(self, batch: Batch) -> Batch:
        for part in self.parts:
            batch = part.apply_dropout(batch)
        if not self.dropout:
            return batch
        kept = dict(batch)
        for field in self.fields:
            values = batch[field]
            dropped = torch.rand(len(values), *[1] * (values.dim() - 1), device=values.device) < self.dropout
            kept[field] = torch.where(dropped, unknown_like(values), values)
        return kept

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
