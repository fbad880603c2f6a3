"""Plots of private trainings show what their tables say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmri_lib.reporting import differential_privacy_plots as plots
from cmri_lib.reporting import metrics

pytestmark = pytest.mark.usefixtures("closed_figures")


def rows() -> pd.DataFrame:
    common = {"metric": "heart_valid", "floor": 0.8, "ceiling": np.nan, "better": "higher"}
    made = [("U10 FM", "flow", training, epsilon, value) for training, epsilon, value in (
        (plots.PRIVATE, 10.0, 0.3), (plots.PRIVATE, np.inf, 0.6), (plots.PRIVATE, 1.0, 0.1), (plots.PUBLIC, np.nan, 0.2),
        (plots.ORDINARY, np.nan, 0.7), ("private, last layers", 10.0, 0.4))]
    made.append(("U6 DDPM", "diffusion", plots.PRIVATE, 1.0, 0.15))
    return pd.DataFrame([{"generator": g, "family": f, "training": t, "epsilon": e, "value": v, "low": v - 0.05,
                          "high": v + 0.05, **common} for g, f, t, e, v in made])


def test_values_stand_in_the_order_of_epsilon_and_references_are_lines() -> None:
    figure = plots.against_epsilon(rows())
    axis = figure.axes[0]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["1", "10", "∞, no noise"]
    line = axis.containers[0].lines[0]
    assert line.get_xdata().tolist() == [0, 1, 2] and line.get_ydata().tolist() == [0.1, 0.3, 0.6]
    flat = {(one.get_linestyle(), round(one.get_ydata()[0], 6)) for one in axis.lines if len(one.get_ydata()) == 2}
    assert {(":", 0.2), ("-.", 0.7), ("--", 0.8)} <= flat
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"U10 FM", "U6 DDPM", plots.PUBLIC, plots.ORDINARY, "private, last layers"} <= set(words)
    assert "private, from nothing" not in words
    assert "no system" in plots.against_epsilon(rows().iloc[:0]).axes[0].texts[0].get_text()


def test_a_point_far_off_does_not_flatten_the_curves() -> None:
    table = rows()
    table.loc[table["training"] == "private, last layers", ["value", "low", "high"]] = [90.0, 80.0, 99.0]
    axis = plots.against_epsilon(table).axes[0]
    assert axis.get_ylim()[1] < 2 and any("↑ 90" in text.get_text() for text in axis.texts)


def test_the_end_of_a_metrics_range_is_no_line() -> None:
    table = rows().assign(metric="downstream_dice", floor=0.0, ceiling=0.8)
    table["value"] = 0.7 + table["value"] / 10
    table["low"], table["high"] = table["value"] - 0.01, table["value"] + 0.01
    axis = plots.against_epsilon(table).axes[0]
    assert axis.get_ylim()[0] > 0.6, "nobody has scored 0"
    assert [line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == "--"] == pytest.approx([0.8])


def test_what_no_other_training_beats_in_both_is_on_the_front() -> None:
    attacks = rows()[lambda t: t["training"] == plots.PRIVATE].assign(metric="attack_auc_loss_calibrated", better="lower")
    attacks["value"] = [0.6, 0.8, 0.55, 0.7]  # ε = 10, ∞ and 1 of the flow, and the diffusion
    attacks["low"], attacks["high"] = attacks["value"] - 0.05, attacks["value"] + 0.1
    attacks = pd.concat([attacks, attacks.iloc[:1].assign(generator="U2", metric="attack_auc_critic_calibrated")])
    pairs = plots.trade_offs(pd.concat([rows(), attacks]))
    assert list(pairs["metric"].unique()) == ["heart_valid"] and len(pairs) == 5, "those of which both are known"
    found = pairs.set_index(["generator", "epsilon"])
    # The public generator gives nothing away, and has more hearts than the flow at ε = 1 and the diffusion.
    assert found["front"].to_dict() == {("U10 FM", 0.0): True, ("U10 FM", 10.0): True, ("U10 FM", np.inf): True,
                                        ("U10 FM", 1.0): False, ("U6 DDPM", 1.0): False}
    np.testing.assert_allclose(found.loc[("U10 FM", np.inf), ["auc_low", "auc_high"]].astype(float), [0.75, 0.9])
    axis, = plots.worth_against_attack(pairs).axes
    assert axis.get_xlabel().endswith("higher is better")
    lines = [line.get_xydata().tolist() for line in axis.lines if len(line.get_xdata()) > 1]
    assert lines[0] == [[0.2, 0.5], [0.1, 0.55], [0.3, 0.6], [0.6, 0.8]]
    sizes = {tuple(line.get_xydata()[0]): line.get_markersize() for line in axis.lines if line.get_marker() == "o"}
    assert sizes[0.2, 0.5] < sizes[0.1, 0.55] < sizes[0.3, 0.6] < sizes[0.6, 0.8], "marks grow with ε"
    empty = plots.trade_offs(rows())
    assert empty.empty and "no system" in plots.worth_against_attack(empty).axes[0].texts[0].get_text()


def test_bounds_of_every_system_are_lines() -> None:
    values = {"epsilon_rdp": 10.0, "epsilon_prv": 8.0, "epsilon_lower": 0.5, "epsilon_lower_most": 1.5,
              "heart_valid": 0.3}
    table = pd.DataFrame([{"generator": g, "epsilon": 10.0, "metric": m, "value": v}
                          for g in ("A", "B") for m, v in values.items()])
    figure = plots.bounds(table)
    assert [axis.get_title() for axis in figure.axes] == ["A", "B"]
    assert sorted(line.get_ydata()[0] for line in figure.axes[0].lines) == [0.5, 1.5, 8.0, 10.0]
    assert "no system" in plots.bounds(table.iloc[:0]).axes[0].texts[0].get_text()


def test_every_bound_has_a_name() -> None:
    assert all(metrics.known(name) and metrics.describe(name).axis == "privacy" for name in plots.BOUNDS)


def test_tosses_are_dots_and_their_mean_a_diamond_with_an_interval() -> None:
    table = pd.DataFrame([{"generator": "A", "epsilon": epsilon, "toss": toss, "value": value, "low": value - 0.1,
                           "high": value + 0.1}
                          for epsilon, mean in ((10.0, 0.5), (np.inf, 0.7))
                          for toss, value in ((1, mean - 0.05), (2, mean + 0.05), (np.nan, mean))])
    axis = plots.over_tosses(table).axes[0]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["A, ε = 10", "A, no noise"]
    assert sorted(line.get_xdata()[0] for line in axis.lines if line.get_marker() == "o") == pytest.approx([.45, .55, .65, .75])
    assert [one.lines[0].get_xdata()[0] for one in axis.containers] == [0.5, 0.7]
    assert "no system" in plots.over_tosses(table.iloc[:0]).axes[0].texts[0].get_text()
