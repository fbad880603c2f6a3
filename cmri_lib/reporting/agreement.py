"""Whether two copies of a table agree: numbers that another processor, or another day, has computed again.

Sums are rounded in another order on another processor, so trained networks, and what is sampled from them, differ a
little. A score may differ by a share of its own interval; what was counted or decided may not differ at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

#: Of the width of a score's published interval.
OF_INTERVAL = 0.25
#: Of the size of a score that has no interval, and of the spread of a column of a figure's other numbers.
OF_VALUE, OF_SPREAD = 0.02, 0.1
#: Of a p-value: verdicts change with it by design, so a small p may not become a large one.
OF_P = 0.05
#: Columns of numbers that may not differ at all.
COUNTED = ("n", "seeds")
#: What belongs to the machine and the hour, and is never compared.
OF_THE_MACHINE = ("seconds", "seconds_per_image", "peak_memory_gib", "training_seconds", "images_per_s")


@dataclass(frozen=True)
class Agreement:
    """How a table fared. `worst` is the largest difference in units of what is tolerated; `exceeding` names each row and
    column above 1, `missing` the rows that only one of the two has; `problem` says why nothing could be compared."""

    file: Path
    compared: int = 0
    worst: float = np.nan
    exceeding: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    problem: str = ""

    @property
    def holds(self) -> bool:
        return not (self.exceeding or self.missing or self.problem)


def agreement(file: Path, published: pd.DataFrame, again: pd.DataFrame) -> Agreement:
    """Compare two copies of a table, row by row: rows with the same words belong together, in their order where several
    have them. `file` is only the name in the result."""
    if list(published.columns) != list(again.columns):
        other = ", ".join(sorted({*published.columns} ^ {*again.columns}))
        return Agreement(file, problem=f"columns in one copy only: {other}" if other else "its columns are in another order")
    numbers = [c for c in published.columns if _numeric(published[c]) and _numeric(again[c])]
    words = [c for c in published.columns if c not in numbers]
    one, two = _keyed(published, words), _keyed(again, words)
    missing = tuple(map(_name, one.index.symmetric_difference(two.index)))
    shared = one.index.intersection(two.index)
    one, two = one.loc[shared, numbers].astype(float), two.loc[shared, numbers].astype(float)
    ratio = _difference(one, two) / _tolerated(one)
    ratio = ratio.where(~_of_the_machine(one, shared), 0.0)
    beyond = ratio.stack()
    beyond = beyond[beyond > 1]
    named = tuple(f"{_name(key[:-1])}, {key[-1]}: {one.loc[key[:-1], key[-1]]:.4g} → {two.loc[key[:-1], key[-1]]:.4g}"
                  for key in beyond.index)
    return Agreement(file, int(ratio.size), float(np.nanmax(ratio.to_numpy(), initial=0.0)), named, missing)


def _numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _keyed(table: pd.DataFrame, words: list[str]) -> pd.DataFrame:
    """The table under its words and the place among rows with the same words."""
    text = table[words].astype(object).fillna("").astype(str)  # pandas groups no rows by what is missing
    place = text.groupby(words).cumcount() if words else pd.Series(range(len(table)), index=table.index)
    return table.set_index([*(text[w] for w in words), place.rename("place")])


def _difference(one: pd.DataFrame, two: pd.DataFrame) -> pd.DataFrame:
    """Absolute; infinite where only one of the two has a number, 0 where neither has."""
    return (one - two).abs().where(one.notna() & two.notna(), np.inf).where(one.notna() | two.notna(), 0.0)


def _tolerated(table: pd.DataFrame) -> pd.DataFrame:
    """Of every number: a share of its row's interval where it has one, else of its own size or of its column's spread."""
    spread = OF_SPREAD * table.std(ddof=0)
    least = (OF_VALUE * table.abs()).clip(lower=1e-6)
    allowed = least.clip(lower=spread, axis=1)
    if {"low", "high"} <= set(table):
        width = OF_INTERVAL * (table["high"] - table["low"])
        scored = [c for c in ("value", "effect", "low", "high", "floor", "ceiling") if c in table]
        exact = width.notna() & (width > 0)
        for column in scored:
            allowed[column] = np.where(exact, np.maximum(width, 1e-6), least[column])
    fixed = {**dict.fromkeys(COUNTED, 1e-6), "p": OF_P}  # the interval is in the units of the effect, p is not
    return allowed.assign(**{column: most for column, most in fixed.items() if column in table})


def _of_the_machine(table: pd.DataFrame, index: pd.Index) -> pd.DataFrame:
    """Cells that no repetition can give again: columns of time and memory, and rows about them."""
    rows = np.zeros(len(index), bool)
    for level in range(index.nlevels):
        rows |= index.get_level_values(level).isin(OF_THE_MACHINE)
    return pd.DataFrame({c: rows | (c in OF_THE_MACHINE) for c in table}, index=table.index)


def _name(key: object) -> str:
    """The words of a row, without those that say nothing."""
    parts = key if isinstance(key, tuple) else (key,)
    return " · ".join(str(p) for p in parts[:-1] if str(p) not in ("nan", ""))
