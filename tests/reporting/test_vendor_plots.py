"""Training sets × vendors: every cell says its Dice, frames say who was learnt from, text fits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from cmri_lib.reporting import figures, metrics, utility_plots
from cmri_lib.reporting.vendor_plots import vendor_map

ARMS = ("Phantom A + Phantom B: real", "all vendors, 36 patients: real", "Phantom A: real")
VENDORS = ("Phantom A", "Phantom B", "Phantom C")


@pytest.fixture(autouse=True)
def _style(closed_figures: None) -> None:
    figures.use_style()


def table() -> pd.DataFrame:
    rows = [{"arm": arm, "vendor": vendor, "learnt": "all" in arm or vendor in arm, "value": 0.5 + 0.1 * i + 0.02 * j,
             "low": 0.45 + 0.1 * i, "high": 0.56 + 0.1 * i, "n": 13}
            for i, arm in enumerate(ARMS) for j, vendor in enumerate(VENDORS)]
    return pd.DataFrame(rows)


def test_cells_hold_values_and_frames_those_who_were_learnt_from() -> None:
    some = table()
    axis = vendor_map(some).axes[0]
    texts = [text.get_text() for text in axis.texts]
    assert texts[0] == "0.500\n[0.45, 0.56]" and len(texts) == len(some)
    frames = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    assert len(frames) == some["learnt"].sum() == 6
    places = {(round(f.get_y() + 0.46), round(f.get_x() + 0.47)) for f in frames}
    assert places == {(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0)}
    labels = [tick.get_text() for tick in axis.get_xticklabels()]
    assert labels == [f"{vendor}\nn = 13" for vendor in VENDORS]


def test_text_of_a_cell_stays_in_it() -> None:
    figure = vendor_map(table())
    figure.draw_without_rendering()
    axis, renderer = figure.axes[0], figure.canvas.get_renderer()
    width = axis.transData.transform((1, 0))[0] - axis.transData.transform((0, 0))[0]
    assert max(text.get_window_extent(renderer).width for text in axis.texts) < 0.94 * width


def test_a_map_without_an_interval_has_its_value_and_one_without_a_vendor_says_so() -> None:
    some = table().head(1).assign(low=np.nan, high=np.nan, learnt=False)
    assert vendor_map(some).axes[0].texts[0].get_text() == "0.500"
    assert [text.get_text() for text in vendor_map(some.head(0)).axes[0].texts] == ["no vendor has enough test patients"]


def test_the_forest_names_what_all_are_compared_with() -> None:
    rows = pd.DataFrame({"group": "crop", "arm": "no crop", "family": "real",
                         "metric": ["downstream_dice_unseen", "downstream_dice_seen"],
                         "better": "higher", "value": [-0.1, 0.0], "low": [-0.2, -0.1], "high": [0.0, 0.1], "n": 13})
    figure = utility_plots.forest(rows, reference="the study's own way")
    assert [axis.get_title() for axis in figure.axes] == ["Dice, unseen vendors", "Dice, seen vendors"]
    assert all("difference to the study's own way" in axis.get_xlabel() for axis in figure.axes)


@pytest.mark.parametrize("metric", ["downstream_dice_seen", "downstream_dice_unseen", "downstream_dice_shift",
                                    "downstream_dice_on_Phantom A"])
def test_metrics_by_vendor_have_a_title(metric: str) -> None:
    assert metrics.known(metric) and "_" not in metrics.title(metric)
