"""Plots of the privacy audits show what their tables say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmri_lib.reporting import privacy_plots, utility_plots

pytestmark = pytest.mark.usefixtures("closed_figures")


def test_the_map_shows_every_attack_once_and_marks_what_lies_above_guessing() -> None:
    rows = [("U6 DDPM", "attack_auc_loss", 0.62, 0.55, 0.7), ("U6 DDPM", "attack_auc_fcre", 0.40, 0.30, 0.49),
            ("U1 VAE", "attack_auc_elbo", 0.91, 0.80, 0.95), ("U1 VAE", "attack_auc_pfami", 0.51, 0.40, 0.6),
            ("U1 VAE", "attack_auc_max_elbo", 0.99, 0.9, 1.0), ("U1 VAE", "near_copy_rate_copy", 0.5, 0.4, 0.6)]
    columns = ["system", "metric", "value", "low", "high"]
    figure = privacy_plots.attack_map(pd.DataFrame(rows, columns=columns))
    axis = figure.axes[0]
    assert sorted(text.get_text() for text in axis.texts) == ["0.40 ◦", "0.51", "0.62 •", "0.91 •"]
    assert [label.get_text().replace("\n", " ") for label in axis.get_xticklabels()] == [
        "denoising loss", "FCRE", "PFAMI", "evidence lower bound"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["U6 DDPM", "U1 VAE"]
    assert "no attack" in privacy_plots.attack_map(pd.DataFrame(rows[-1:], columns=columns)).axes[0].texts[0].get_text()


def test_low_rates_are_logarithmic_and_reach_the_least_rate() -> None:
    table = pd.DataFrame({"curve": ["a", "a", "a", "b", "b"], "fpr": [0, 0.05, 1, 0, 1],
                          "tpr": [0.2, 0.5, 1, 0.0, 1]})
    axis = privacy_plots.low_rates(table).axes[0]
    assert axis.get_xscale() == axis.get_yscale() == "log" and axis.get_xlim()[0] == pytest.approx(0.025)
    assert len(axis.lines) == 3 and np.allclose(axis.lines[0].get_xdata(), [0.025, 0.05, 1])


def test_recall_keeps_the_order_of_disguises() -> None:
    table = pd.DataFrame([(d, s, r) for d, r in (("mirrored", 0.0), ("exact", 1.0))
                          for s in ("pixel", "copy", "either")],
                         columns=["disguise", "space", "recall"])
    axis = privacy_plots.recall(table).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["mirrored", "exact"]
    assert [text.get_text() for text in axis.texts] == ["0%"] * 3 + ["100%"] * 3


def test_every_system_has_a_curve_along_its_training() -> None:
    table = pd.DataFrame({"system": ["a", "a", "b"], "images": [100, 200, 200], "value": [0.5, 0.6, 0.7],
                          "low": [0.4, 0.5, np.nan], "high": [0.6, 0.7, np.nan]})
    axis = privacy_plots.along_training(table).axes[0]
    assert len(axis.containers) == 2 and [t.get_text() for t in axis.get_xticklabels()] == ["100", "200"]
    close = privacy_plots.along_training(pd.concat([table, table.assign(images=table["images"] + 10)])).axes[0]
    assert [t.get_text() for t in close.get_xticklabels()] == ["100", "200"], "names of near points stay apart"
    assert "no system" in privacy_plots.along_training(table.iloc[:0]).axes[0].texts[0].get_text()


def test_groups_stand_beside_guessing() -> None:
    groups = [("disease", "DCM"), ("disease", "HCM"), ("vendor", "A")]
    rows = [(kind, group, arm, 0.8, 0.7, 0.9, 32) for kind, group in groups for arm in ("VAE", "flow")]
    table = pd.DataFrame(rows, columns=["kind", "group", "arm", "value", "low", "high", "n"])
    axes = utility_plots.by_group(table, "AUC", guessing=0.5).axes
    assert [axis.get_title() for axis in axes] == ["disease", "vendor"] and axes[0].get_ylabel() == "AUC"
    assert all(any(set(line.get_ydata()) == {0.5} for line in axis.lines) for axis in axes)
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["DCM\nn = 32", "HCM\nn = 32"]
    assert "no group" in utility_plots.by_group(table.iloc[:0]).axes[0].texts[0].get_text()


def test_every_pair_of_trainings_is_a_line_beside_their_mean_and_what_differs_has_a_panel() -> None:
    rows = [{"attack": attack, "pair": pair, "disease": place, "value": 0.2 * k + j, "low": 0.2 * k + j - 1, "high": 3.0}
            for attack in ("loss", "distance_pixel") for k, pair in enumerate(("1", "2", "all"))
            for j, place in enumerate(("as common as others", "rare", "rare − common"))]
    figure = privacy_plots.rare_exposure(pd.DataFrame(rows))
    *panels, last = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["denoising loss", "distance to samples, pixels", "rare − common"]
    for axis in panels:
        lines = [list(line.get_ydata()) for line in axis.get_lines()]
        assert [0.0, 1.0] in lines and [0.2, 1.2] in lines and [0.4, 1.4] in lines
        assert [tick.get_text().replace("\n", " ") for tick in axis.get_xticklabels()] == ["as common as others", "rare"]
    shown = [list(line.get_ydata()) for line in last.get_lines()]
    assert [2.0, 2.2, 2.0, 2.2] in shown and [2.4, 2.4] in shown
    assert privacy_plots.rare_exposure(pd.DataFrame(columns=["attack", "disease"])).axes[0].texts
