"""What a heart can be known by, as conditionings: how much of its mask, the words and numbers of its table."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from cmri_lib.cohort.case import LABELS, TISSUES
from cmri_lib.cohort.vocabulary import NUMBERS, VOCABULARY
from cmri_lib.errors import ParameterError
from cmri_lib.networks.conditioning.embeddings import Numbers, Prompt, Words
from cmri_lib.networks.conditioning.label_map import AblatedLabelMap, LabelMap

#: Content of a mask → name, batch entry, number of labels, labels that are told (all if none is named).
CONTENTS: dict[str, tuple[str, str, int, tuple[int, ...]]] = {
    "cavity": ("cavity", "mask", len(LABELS) + 1, (LABELS["LV"],)),
    "labels": ("mask", "mask", len(LABELS) + 1, ()),
    "tissues": ("tissues", "tissues", len(TISSUES) + 1, ()),
}


def mask(content: str = "labels", way: Literal["concat", "spade"] = "concat", *, ablated: bool = False) -> LabelMap:
    """The LV cavity alone, the three structures of the heart, or every tissue of the slice; `ablated` as Konz et al.

    Raises:
        ParameterError: on an unknown content or way.
    """
    _known([content], CONTENTS, "content")
    name, field, labels, only = CONTENTS[content]
    return AblatedLabelMap(f"{name}, ablated", field, labels, way, only) if ablated else LabelMap(name, field, labels, way, only)


def words(*columns: str, size: int = 16) -> Words:
    """Columns of `VOCABULARY` as a vector. Raises ParameterError on another column."""
    return Words(_sizes(columns), size)


def prompt(*columns: str, size: int = 32) -> Prompt:
    """Columns of `VOCABULARY` as tokens. Raises ParameterError on another column."""
    return Prompt(_sizes(columns), size)


def scalars(*columns: str, size: int = 16) -> Numbers:
    """Columns of `NUMBERS` as sines and cosines. Raises ParameterError on another column."""
    _known(columns, NUMBERS, "columns")
    return Numbers(columns, size)


def _sizes(columns: Collection[str]) -> dict[str, int]:
    _known(columns, VOCABULARY, "columns")
    return {column: len(VOCABULARY[column]) + 1 for column in columns}


def _known(wanted: Collection[str], known: Collection[str], field: str) -> None:
    if strange := sorted(set(wanted) - set(known)):
        raise ParameterError(f"{strange}", field=field, remedy=f"choose among {sorted(known)}")
