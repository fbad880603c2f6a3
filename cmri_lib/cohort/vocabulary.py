"""Words and numbers about a slice that a generator can be told: the columns of a table as codes and as floats."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cmri_lib.cohort.case import PHASES
from cmri_lib.errors import DataError

UNKNOWN = "unknown"

#: Column → the words it may hold, besides "unknown". A word's code is its place, from 1; 0 is unknown.
VOCABULARY: dict[str, tuple[str, ...]] = {
    "vendor": ("Phantom A", "Phantom B", "Phantom C", "Phantom D", "Siemens", "Philips", "GE", "Canon"),
    "disease": ("NOR", "DCM", "HCM", "MINF", "RV", "ARV", "HHD", "AHS", "IHD", "LVNC", "LV", "FALL", "CIA", "TRI"),
    "phase": PHASES,
    "level": ("basal", "mid", "apical"),
}

#: Column → (centre, spread) that bring its values to about −1 … 1; NaN is unknown. Years, kg/m², %, mL, mL.
NUMBERS: dict[str, tuple[float, float]] = {
    "age": (50.0, 20.0), "bmi": (26.0, 6.0), "lvef": (50.0, 20.0), "lvedv": (160.0, 70.0), "rvedv": (160.0, 70.0),
    "height": (0.5, 0.5),
}


def encode(table: pd.DataFrame, column: str) -> np.ndarray:
    """(N,) int64 codes of a column of words.

    Raises:
        DataError: on a word that `VOCABULARY` does not have.
    """
    codes = {UNKNOWN: 0, "other": 0, **{word: k for k, word in enumerate(VOCABULARY[column], 1)}}
    if strange := sorted(set(table[column]) - set(codes)):
        raise DataError(f"{strange[:3]} are not in the vocabulary", field=column,
                        remedy=f"add them at the end of VOCABULARY[{column!r}]")
    return table[column].map(codes).to_numpy(np.int64, copy=True)  # pandas lends what must not be written


def numbers(table: pd.DataFrame, column: str) -> np.ndarray:
    """(N,) float32, centred and scaled; NaN where the table does not know."""
    centre, spread = NUMBERS[column]
    return ((pd.to_numeric(table[column]).to_numpy(float) - centre) / spread).astype(np.float32)
