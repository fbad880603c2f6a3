"""The plots that notebooks of several families share draw the numbers that they are given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmri_lib.reporting import training_plots
from cmri_lib.reporting.claims import MOVING, SETTLED, UNSEEN


def log(system: str, level: float) -> pd.DataFrame:
    """A training that falls from twice `level` to `level`, validated at every other step."""
    loss = np.linspace(2 * level, level, 5)
    validation = np.where(np.arange(5) % 2, np.nan, 1.1 * loss)
    return pd.DataFrame({"system": system, "images": 8 * np.arange(1, 6), "loss_model": loss, "validation_loss": validation})


@pytest.mark.parametrize("one_scale", [False, True])
def test_a_panel_for_each_system_with_training_and_validation(one_scale: bool) -> None:
    table = pd.concat([log("A", 1.0), log("B", 10.0)])
    figure = training_plots.losses(table, ylabel="loss", one_scale=one_scale)
    assert [axis.get_title() for axis in figure.axes] == ["A", "B"]
    for axis, (_, part) in zip(figure.axes, table.groupby("system")):
        training, validation = axis.lines
        assert np.allclose(training.get_ydata(), part["loss_model"])
        assert np.allclose(validation.get_xydata(), part[["images", "validation_loss"]].dropna())
    limits = [axis.get_ylim() for axis in figure.axes]
    assert (limits[0] == limits[1]) == one_scale and (limits[0][0] == 0) == one_scale


def test_last_doublings_are_filled_where_they_move() -> None:
    rows = [("A", "mmd_anatomy", -0.3, MOVING), ("B", "mmd_anatomy", -0.1, UNSEEN), ("A", "mmd_classical", 0.0, SETTLED),
            ("B", "mmd_classical", 0.2, MOVING), ("C", "mmd_anatomy", -0.6, UNSEEN)]
    table = pd.DataFrame(rows, columns=["system", "metric", "value", "finished"])
    table = table.assign(low=table["value"] - 0.1, high=table["value"] + 0.1, share=table["value"] / 0.5)
    figure = training_plots.last_doublings(table)
    anatomy, appearance = figure.axes
    points = [(axis, line) for axis in figure.axes for line in axis.lines if line.get_marker() == "o"]  # not the bars' caps
    filled = {(axis, x) for axis, line in points if line.get_mfc() == "C0" for x in line.get_xdata()}
    assert filled == {(anatomy, -0.3), (appearance, 0.2)}
    assert [text.get_text() for text in anatomy.texts] == ["-60%", "-20%"], "no share of what C had, which was less"
    assert training_plots.last_doublings(table[:0]).axes, "an empty table gives a notice"


def test_toy_samples_against_steps_with_what_true_points_score() -> None:
    table = pd.DataFrame({"coupling": ["a", "a", "b", "b"], "steps": [1, 100, 1, 100],
                          "distance": [3.0, 0.3, 1.0, 0.3], "rarest": [0.0, 0.1, 0.05, 0.12]})
    figure = training_plots.toy_samples(table, by="coupling", truth={"distance": 0.2, "rarest": 0.125}, xlabel="Euler steps")
    for axis, column, truth in zip(figure.axes, ("distance", "rarest"), (0.2, 0.125)):
        # The others are the legend's.
        first, second, dashed = (line.get_ydata() for line in axis.lines if len(line.get_ydata()))
        assert np.allclose([*first, *second], table[column]) and set(dashed) == {truth}
        assert list(axis.get_xticks()) == [1, 100] and axis.get_xlabel() == "Euler steps"
