"""What the slices of a cohort can be conditioned on: the categories that occur in it, its numbers, its label maps.

A vocabulary is read off a cohort, not kept in a list: a vendor or a disease that only another cohort has changes no
network of this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.slices import CATEGORIES, UNKNOWN, Slices
from cmri_lib.errors import ParameterError

#: Categories that name nothing.
NAMELESS = (UNKNOWN, "other", "")


def names_nothing(word: str) -> bool:
    """Whether a category says that it is not known, or none of the others: "unknown", M&Ms' "Other"."""
    return str(word).strip().lower() in NAMELESS


#: Column → (centre, spread) that bring its values to about −1 … 1; NaN is unknown. Years, kg/m², %, mL, mL, share.
SCALES: dict[str, tuple[float, float]] = {
    "age": (50.0, 20.0), "bmi": (26.0, 6.0), "lvef": (50.0, 20.0), "lvedv": (160.0, 70.0), "rvedv": (160.0, 70.0),
    "height": (0.5, 0.5),
}


@dataclass(frozen=True)
class Vocabulary:
    """Conditions that a cohort knows.

    Attributes:
        categories: column of `CATEGORIES` → its values in the cohort, sorted.
        tissues: whether every tissue of a slice is labelled, not the heart alone.
        structures: those of `LABELS` that are labelled.
    """

    categories: Mapping[str, tuple[str, ...]]
    tissues: bool = False
    structures: tuple[str, ...] = tuple(LABELS)

    @classmethod
    def of(cls, slices: Slices) -> Vocabulary:
        """The vocabulary of a whole cohort, all splits: what occurs is no secret, whose it is would be."""
        found = {column: sorted(word for word in set(slices.table[column].astype(str)) if not names_nothing(word))
                 for column in CATEGORIES}
        structures = tuple(name for name, label in LABELS.items() if (slices.masks == label).any())
        return cls({column: tuple(names) for column, names in found.items()}, slices.tissues is not None, structures)

    def choose(self, *columns: str) -> dict[str, tuple[str, ...]]:
        """The categories of `columns`. Raises ParameterError on a column that holds none."""
        if strange := sorted(set(columns) - set(self.categories)):
            raise ParameterError(f"{strange} hold no categories", field="columns",
                                 remedy=f"choose among {sorted(self.categories)}")
        return {column: self.categories[column] for column in columns}
