"""What a generator can be conditioned on: how much of the mask, which categories and numbers of the table, all together.

Each function returns a `Condition`, which becomes a network's `Conditioning` once the cohort's vocabulary is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from cmri_lib.cohort.case import LABELS, TISSUES
from cmri_lib.cohort.vocabulary import SCALES, Vocabulary
from cmri_lib.errors import ParameterError
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.networks.conditioning.embeddings import (CategoricalEmbedding, CompositeConditioning, FourierEmbedding,
                                                       PromptTokens)
from cmri_lib.networks.conditioning.label_map import AblatedLabelMap, LabelMap
from cmri_lib.networks.conditioning.partner import PartnerImage

Condition = Callable[[Vocabulary], Conditioning]

#: Content of a mask → name, batch entry, number of labels, labels that are given (all if none is named).
CONTENTS: dict[str, tuple[str, str, int, tuple[int, ...]]] = {
    "cavity": ("cavity", "mask", len(LABELS) + 1, (LABELS["LV"],)),
    "labels": ("mask", "mask", len(LABELS) + 1, ()),
    "tissues": ("tissues", "tissues", len(TISSUES) + 1, ()),
}
#: Ways of a mask into a network that is trained as a whole.
Method = Literal["concat", "spade"]
METHODS = get_args(Method)
#: Probability with which a condition is dropped in training, where it may be left out or guided later.
CONDITION_DROPOUT = 0.15


def unconditional(vocabulary: Vocabulary) -> Conditioning:
    """No condition at all."""
    return Conditioning()


def mask(content: str = "labels", method: Method = "concat", *, ablated: bool = False) -> Condition:
    """The LV cavity alone, the three structures of the heart ("labels"), every tissue of the slice, or the "fullest" of
    these that the cohort has; `ablated` as Konz et al.

    Raises:
        ParameterError: on an unknown content or method.
    """
    if method not in METHODS:
        raise ParameterError(f"{method!r}", field="method", remedy=f"choose among {list(METHODS)}; for a ControlNet leave "
                             "this out and give the builder control=True")
    if content not in (*CONTENTS, "fullest"):
        raise ParameterError(f"{content!r}", field="content", remedy=f"choose among {[*CONTENTS, 'fullest']}")

    def condition(vocabulary: Vocabulary) -> LabelMap:
        chosen = content if content != "fullest" else "tissues" if vocabulary.tissues else "labels"
        name, field, labels, only = CONTENTS[chosen]
        kind, name = (AblatedLabelMap, f"{name}, ablated") if ablated else (LabelMap, name)
        return kind(name, field, labels, method, only)
    return condition


def categories(*columns: str, size: int = 16) -> Condition:
    """Columns of categories (vendor, disease, phase, level) as one vector."""
    return lambda vocabulary: CategoricalEmbedding(vocabulary.choose(*columns), size)


def prompt(*columns: str, size: int = 32) -> Condition:
    """Columns of categories as tokens for cross-attention."""
    return lambda vocabulary: PromptTokens(vocabulary.choose(*columns), size)


def numbers(*columns: str, size: int = 16) -> Condition:
    """Columns of numbers (age, EF, …) as sines and cosines. Raises ParameterError on a column without a scale."""
    if strange := sorted(set(columns) - set(SCALES)):
        raise ParameterError(f"{strange} have no scale", field="columns", remedy=f"choose among {sorted(SCALES)}, or enter it "
                             "in SCALES of cohort/vocabulary.py; a column of words belongs into categories(…)")
    return lambda vocabulary: FourierEmbedding({column: SCALES[column] for column in columns}, size)


def partner(concatenated: bool = True) -> Condition:
    """Another image of the same place: beside the network's input, or only where the objective starts from it."""
    return lambda vocabulary: PartnerImage(concatenated)


def together(*conditions: Condition, dropout: float = 0.0) -> Condition:
    """Several conditions at once, each dropped with probability `dropout` in training."""
    return lambda vocabulary: CompositeConditioning(*(c(vocabulary) for c in conditions), dropout=dropout)
