"""The review's claims as tests: each function turns scores into one row of the ledger, whichever way it falls.

A claim about a difference is *supported* when its whole 95 % interval lies on the claimed side of a bound that was
fixed beforehand, *not supported* when it lies wholly on the other, and *undecided* in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pandas as pd

from cmri_lib.errors import DataError
from cmri_lib.measures.statistics.bootstrap import Score, score_difference

Row = dict[str, object]


def decide(claim: str, test: str, effect: Score, unit: str, *, claimed: Literal["above", "below"], bound: float = 0.0
           ) -> Row:
    """A ledger row: is `effect` on the `claimed` side of `bound`?"""
    above, below = effect.low > bound, effect.high < bound
    if claimed == "below":
        above, below = below, above
    verdict = "supported" if above else "not supported" if below else "undecided"
    return _row(claim, test, effect, unit, verdict)


def differ(claim: str, test: str, effect: Score, unit: str, *, bound: float) -> Row:
    """A ledger row for a claim without a direction: *supported* if `effect` lies wholly beyond ± `bound`, on one side,
    *not supported* if wholly between (the two are equivalent), else *undecided*."""
    beyond, within = effect.low > bound or effect.high < -bound, -bound < effect.low and effect.high < bound
    verdict = "supported" if beyond else "not supported" if within else "undecided"
    return _row(claim, test, effect, unit, verdict)


def _row(claim: str, test: str, effect: Score, unit: str, verdict: str) -> Row:
    return {"claim": claim, "test": test, "effect": effect.value, "low": effect.low, "high": effect.high, "unit": unit,
            "verdict": verdict}


def score_of(table: pd.DataFrame, metric: str, **columns: object) -> Score:
    """The one score of `metric` in a tidy table whose columns have the given values.

    Raises:
        DataError: unless there is exactly one.
    """
    found = table[table["metric"] == metric]
    for column, value in columns.items():
        found = found[found[column] == value]
    if len(found) != 1:
        raise DataError(f"{len(found)} rows", field=f"{metric} {columns}", remedy="run the notebook that writes the row")
    row = found.iloc[0]
    return Score(float(row["value"]), float(row["low"]), float(row["high"]), int(row["n"]))


def overfitting(curves: pd.DataFrame, system: str, rivals: Mapping[str, str], metric: str = "nearest_share_study"
                ) -> list[Row]:
    """F3: with few training patients, how much more do samples of `system` huddle around them than with all patients,
    and than samples of the `rivals` (label → system) do with as few?"""
    by_patients = curves[curves["curve"] == "patients"]
    few, every = by_patients["x"].min(), by_patients["x"].max()
    mine = score_of(by_patients, metric, system=system, x=few)
    drop = score_difference(mine, score_of(by_patients, metric, system=system, x=every))
    rows = [decide("F3", f"nearest share, {few:.0f} − {every:.0f} patients, {system}", drop, "share", claimed="above")]
    for label, rival in rivals.items():
        excess = score_difference(mine, score_of(by_patients, metric, system=rival, x=few))
        rows.append(decide("F3", f"nearest share with {few:.0f} patients, {system} − {label}", excess, "share",
                           claimed="above"))
    return rows


def slower(scores: pd.DataFrame, system: str, rivals: Mapping[str, float]) -> list[Row]:
    """E1: how many times longer does one image of `system` take than one of each rival? `rivals`: system → the ratio
    that the review reports; the claim holds if ours lies above 1 and is *undecided* where repeats overlap."""
    mine = score_of(scores, "seconds_per_image", system=system)
    rows = []
    for rival, reported in rivals.items():
        other = score_of(scores, "seconds_per_image", system=rival)
        ratio = Score(mine.value / other.value, mine.low / other.high, mine.high / other.low, n=min(mine.n, other.n))
        rows.append(decide("E1", f"seconds per image, {system} / {rival} (review: {reported:.0f})", ratio, "ratio",
                           claimed="above", bound=1.0))
    return rows


def time_to_quality(curves: pd.DataFrame, target: float, metric: str = "kid_study") -> pd.DataFrame:
    """Equal quality instead of equal compute: images and seconds of training until `metric` is at most `target`.

    The first measured point (snapshot or end) that is good enough; NaN where none is. The seconds contain the first stage.
    """
    points = curves[(curves["curve"] == "images") & (curves["metric"] == metric)]
    rows = []
    for system, line in points.groupby("system", sort=False):
        good = line[line["value"] <= target].sort_values("x").head(1)
        reached = good.iloc[0] if len(good) else {"x": float("nan"), "seconds": float("nan"), "value": float("nan")}
        rows.append({"system": system, "images": reached["x"], "seconds": reached["seconds"], metric: reached["value"],
                     "at the end": line.sort_values("x")["value"].iloc[-1]})
    return pd.DataFrame(rows)
