"""Tidy result tables: one row per score, with its n, its interval, its floor and its ceiling.

Each notebook writes ``results/<dataset>/NN_topic.csv`` (and ``NN_topic_claims.csv``, ``NN_topic_curves.csv``); notebook 13
joins scores and claims into ``results/scores.csv`` and ``results/claims.csv``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from cmri_lib.config.study import Study
from cmri_lib.errors import DataError
from cmri_lib.reporting.metrics import AXES

SCORE_COLUMNS = ("dataset", "profile", "system", "family", "conditioning", "axis", "metric", "value", "low", "high", "n",
                 "seeds", "better", "floor", "ceiling")
CLAIM_COLUMNS = ("claim", "dataset", "profile", "test", "primary", "effect", "low", "high", "unit", "p", "verdict")
#: Of a learning curve. `x` is images seen, patients or NFE, as `curve` says; `seconds` is training time.
CURVE_COLUMNS = ("system", "family", "curve", "x", "sampler", "seconds", "metric", "value", "low", "high", "n", "better",
                 "floor")
VERDICTS = ("supported", "not supported", "undecided", "not testable at this budget")


class Named(Protocol):
    """What a row can be about: a system, a run of it, a chain."""

    id: str
    family: str
    conditioning: str


def with_system_columns(of: Named | str, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the columns that say whose they are. A mere name is that of something no system has made, such as a null:
    its images are real ones."""
    named = (of, "real", "none") if isinstance(of, str) else (of.id, of.family, of.conditioning)
    return [{**dict(zip(("system", "family", "conditioning"), named)), **row} for row in rows]


def write_scores(study: Study, name: str, rows: Iterable[Mapping[str, Any]], **common: Any) -> pd.DataFrame:
    """Complete rows with dataset, profile and `common` (system, family, conditioning), check and write them.

    Raises:
        DataError: if a row lacks a column, names an unknown axis, or its interval does not hold its value.
    """
    complete = [{"dataset": study.dataset, "profile": study.profile, **common, **row} for row in rows]
    for row in complete:
        _check(row)
    return _write(study, name, complete, SCORE_COLUMNS)


def _check(row: Mapping[str, Any]) -> None:
    field = f"{row.get('system')} {row.get('metric')}"
    if missing := [c for c in SCORE_COLUMNS if c not in row]:
        raise DataError(f"score lacks {missing}", field=field, remedy="a score without n, floor and interval is not finished")
    if row["axis"] not in AXES or row["better"] not in ("lower", "higher"):
        raise DataError(f"axis {row['axis']!r}, better {row['better']!r}", field=field, remedy=f"axes are {AXES}")
    low, value, high = (float(row[k]) for k in ("low", "value", "high"))
    if math.isfinite(low) and math.isfinite(high) and not low - 1e-9 <= value <= high + 1e-9:
        raise DataError(f"value {value} lies outside [{low}, {high}]", field=field, remedy="check the interval")


def read_scores(study: Study, name: str) -> pd.DataFrame:
    """What `write_scores` wrote under `name` for this cohort and profile: no rows where that notebook has not been run."""
    file = study.results / f"{name}.csv"
    table = pd.read_csv(file, dtype={"system": str}) if file.exists() else pd.DataFrame(columns=list(SCORE_COLUMNS))
    return table[table["profile"] == study.profile]


def write_claims(study: Study, name: str, rows: Iterable[Mapping[str, Any]], *, elsewhere: Collection[str] = ()
                 ) -> pd.DataFrame:
    """Write the rows of a notebook's ledger (`claims.Ledger`).

    Args:
        elsewhere: claims whose primary test another notebook makes: here they are explored only.

    Raises:
        DataError: on an unknown verdict, or a claim without its one primary test, or with one that is made elsewhere.
    """
    complete = [{"dataset": study.dataset, "profile": study.profile, **row} for row in rows]
    for row in complete:
        if row["verdict"] not in VERDICTS:
            raise DataError(f"verdict {row['verdict']!r}", field=row["claim"], remedy=f"choose among {VERDICTS}")
    for claim in dict.fromkeys(row["claim"] for row in complete):
        if (count := sum(row["primary"] for row in complete if row["claim"] == claim)) != (claim not in elsewhere):
            raise DataError(f"{count} primary tests", field=claim, remedy="test what reporting/primary_tests.py states, once")
    return _write(study, f"{name}_claims", complete, CLAIM_COLUMNS)


def write_curves(study: Study, name: str, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Write the points of a notebook's learning curves (`experiments.learning_curves`)."""
    return _write(study, f"{name}_curves", list(rows), CURVE_COLUMNS)


def read_curves(study: Study) -> pd.DataFrame:
    """The learning curves of all notebooks of this cohort."""
    files = sorted(study.results.glob("*_curves.csv"))
    return pd.concat(map(pd.read_csv, files), ignore_index=True) if files else pd.DataFrame(columns=list(CURVE_COLUMNS))


def _write(study: Study, name: str, rows: list[dict], columns: tuple[str, ...]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(columns))
    study.results.mkdir(parents=True, exist_ok=True)
    table.to_csv(study.results / f"{name}.csv", index=False, float_format="%.6g")
    return table


def union(root: Path, *, claims: bool = False) -> pd.DataFrame:
    """All notebooks' tables of all cohorts, in file order."""
    columns = CLAIM_COLUMNS if claims else SCORE_COLUMNS
    files = [f for f in sorted((root / "results").glob("*/*.csv")) if f.stem.endswith("_claims") == claims]
    read = (pd.read_csv(f, dtype={"system": str}) for f in files)
    tables = [t for t in read if len(t) and set(columns) <= set(t.columns)]  # one without rows would leave no column a number
    return pd.concat(tables, ignore_index=True)[list(columns)] if tables else pd.DataFrame(columns=list(columns))


def json_values(value: Any) -> Any:
    """The same as JSON knows it: NumPy's numbers and arrays are plain, what is not finite is null, what is left is text."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): json_values(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_values(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)
