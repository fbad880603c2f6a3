"""Axes of plots: nothing is cut off, nothing is shown that a sentence says better, and a colour means one thing."""

from __future__ import annotations

from itertools import combinations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from cmri_lib.measures.fidelity.corruptions import LARGEST
from cmri_lib.reporting import axes, figures, plots
from cmri_lib.systems.unconditional import UNCONDITIONAL

matplotlib.use("Agg")
POINT = {"curve": "images", "x": 1000, "sampler": "", "metric": "mmd_anatomy", "value": 0.1, "low": 0.05, "high": 0.2,
         "better": "lower", "floor": 0.0}


@pytest.fixture(autouse=True)
def _style(closed_figures: None) -> None:
    figures.use_style()


def table(**values: list[float]) -> pd.DataFrame:
    """One row per system and metric, without intervals."""
    return pd.DataFrame([{"metric": metric, "system": f"system {k}", "value": v, "low": v, "high": v}
                         for metric, found in values.items() for k, v in enumerate(found)])


@given(st.lists(st.tuples(st.floats(-5, 300), st.floats(1e-3, 50), st.floats(1e-3, 50)), min_size=2, max_size=12))
def test_an_axis_over_orders_of_magnitude_cuts_no_interval(intervals: list[tuple[float, float, float]]) -> None:
    values, below, above = map(np.array, zip(*intervals))
    _, axis = plt.subplots()
    axes.orders_of_magnitude(axis, "x", values, values - below, values + above, 3.0)
    first, last = axis.get_xlim()
    assert first <= (values - below).min() and (values + above).max() <= last
    plt.close("all")


def test_a_metric_that_is_the_same_for_all_is_said_in_words() -> None:
    shown, same = axes.without_constants(table(downstream_missed=[0.0, 0.0, 0.0], dice_mean=[0.7, 0.8, 0.8]))
    assert list(shown["metric"].unique()) == ["dice_mean"]
    assert same == "Share of structures missed by a segmenter trained on samples: 0.00 throughout"


@pytest.mark.parametrize("values", [{"dice_mean": [0.7, 0.7]}, {"dice_mean": [0.7, 0.7, 0.7]},
                                    {"dice_mean": [0.7, 0.7, 0.8], "heart_valid": [0.9, 0.8, 0.9]}])
def test_two_equal_points_the_only_metric_and_metrics_that_differ_stay_in_the_plot(values: dict[str, list[float]]) -> None:
    shown, same = axes.without_constants(table(**values))
    assert len(shown) == len(table(**values)) and same == ""


def test_an_interval_about_a_constant_value_stays_in_the_plot() -> None:
    rows = table(downstream_missed=[0.0, 0.0, 0.0], dice_mean=[0.7, 0.8, 0.8])
    rows.loc[0, "high"] = 0.01
    assert set(axes.without_constants(rows)[0]["metric"]) == {"downstream_missed", "dice_mean"}


def test_every_unconditional_system_has_a_shade_of_its_own_family() -> None:
    assert {name: system.family for name, system in UNCONDITIONAL.items()} == {
        name: family for family, names in figures.SHADED.items() for name in names}


@pytest.mark.parametrize("family", figures.SHADED)
def test_shades_of_a_family_can_be_told_apart(family: str) -> None:
    colours = [np.array(to_rgb(figures.system_colour(name))) for name in figures.SHADED[family]]
    assert all(np.abs(one - other).max() > 0.15 for one, other in combinations(colours, 2))


def test_a_system_has_the_same_colour_in_whatever_company() -> None:
    def colour(names: list[str]) -> str:
        rows = [POINT | {"system": name, "family": UNCONDITIONAL[name].family, "x": x} for name in names for x in (1000, 2000)]
        drawn = plots.learning_curves(pd.DataFrame(rows)).axes[0]
        return drawn.get_lines()[3 * names.index("U7 LDM-KL")].get_color()  # a line and its two caps each
    assert colour(["U7 LDM-KL", "U6 DDPM"]) == colour(["U1 VAE", "U8 DiT", "U7 LDM-KL", "U10 FM"]) == figures.system_colour(
        "U7 LDM-KL")


def test_no_conditioning_method_has_the_colour_of_a_family() -> None:
    assert set(figures.METHOD_COLOURS.values()).isdisjoint(figures.FAMILY_COLOURS.values())


def test_the_map_of_responses_cuts_off_where_the_responses_are_cut_off() -> None:
    assert plots.CUT == LARGEST
