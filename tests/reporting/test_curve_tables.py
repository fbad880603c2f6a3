"""Tables of curves say what the curves say."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cmri_lib.reporting import curve_tables


def curve(kind: str, system: str, metric: str, points: dict[int, float], sampler: str | float = np.nan,
          floor: float = 0.01) -> list[dict]:
    """Values at each x, with intervals of ± 0.1."""
    return [{"curve": kind, "system": system, "metric": metric, "sampler": sampler, "x": x, "value": v, "low": v - 0.1,
             "high": v + 0.1, "floor": floor} for x, v in points.items()]


def test_the_end_of_a_training_stands_below_the_floor() -> None:
    table = pd.DataFrame([*curve("images", "B", "mmd_anatomy", {200: 0.3, 100: 0.5}),
                          *curve("images", "A", "mmd_anatomy", {100: 0.4, 50: 0.9}),
                          *curve("images", "B", "nearest_share_study", {200: 0.6}, floor=0.55),
                          *curve("patients", "A", "mmd_anatomy", {5: 0.7, 3: 0.8})])
    shown = curve_tables.at_the_end(table)
    assert list(shown.index) == ["floor", "B", "A"] and list(shown.columns) == ["anatomy (MMD)", "nearest to training"]
    assert list(shown["anatomy (MMD)"]) == ["0.010", "0.300 [0.200, 0.400]", "0.400 [0.300, 0.500]"]
    assert list(shown["nearest to training"]) == ["0.55", "0.60 [0.50, 0.70]", ""]
    over = curve_tables.side_by_side(table[table["curve"] == "patients"].sort_values("x"), "x")
    assert list(over.index) == ["floor", 3, 5] and over.loc[3, "anatomy (MMD)"] == "0.800 [0.700, 0.900]"


def test_few_evaluations_are_enough_only_where_both_distances_are() -> None:
    table = pd.DataFrame([
        *curve("NFE", "U6", "mmd_anatomy", {2: 0.9, 4: 0.35, 8: 0.3}, "ddim"),
        *curve("NFE", "U6", "mmd_classical", {2: 0.5, 4: 0.65, 8: 0.5}, "ddim"),
        *curve("NFE", "U6", "mmd_anatomy", {4: 0.39, 16: 0.3}, "ddpm"),
        *curve("NFE", "U6", "mmd_classical", {4: 0.5, 16: 0.5}, "ddpm"),
        *curve("NFE", "U6", "kid_study", {4: 99.0, 16: 0.5}, "ddpm")])
    shown = curve_tables.fewest_evaluations(table)
    assert list(shown.index) == ["floor", "U6, ddim", "U6, ddpm"]
    assert list(shown.columns) == ["anatomy (MMD)", "appearance (MMD)", "most NFE", "fewest NFE"]
    assert list(shown["most NFE"]) == ["", "8", "16"] and list(shown["fewest NFE"]) == ["", "8", "4"]
    assert shown.loc["U6, ddim", "appearance (MMD)"] == "0.500 [0.400, 0.600]"
