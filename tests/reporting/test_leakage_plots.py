"""Plots of an audit's choices and of what drives leakage show what their tables say."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest

from cmri_lib.reporting import leakage_plots

pytestmark = pytest.mark.usefixtures("closed_figures")


def test_every_setting_is_a_cell_in_both_halves_and_choices_are_marked() -> None:
    settings = [f"u = {u:g}, band {band}, {error}" for u, error, band in
                itertools.product((0.4, 0.05), ("SSIM", "squared"), ("0 to 0.125", "0.125 to 1"))]
    rows = [{"system": system, "setting": setting, "half": half, "value": 0.1 * k + 0.01 * j, "picked": k == 1 + j,
             "used": k == 2 - j} for system in ("U6 DDPM", "U10 FM") for j, half in enumerate(("first half", "second half"))
            for k, setting in enumerate(settings)]
    figure = leakage_plots.band_map(pd.DataFrame(rows))
    assert [axis.get_title() for axis in figure.axes] == [
        f"{system}: {half} of the patients" for system in ("U6 DDPM", "U10 FM") for half in ("first half", "second half")]
    # Times rise downwards, the squared error comes first.
    texts = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    assert texts[0] == texts[2] == ["0.60", "0.70", "0.40", "0.50", "0.20 ○", "0.30", "0.00", "0.10 ●"]
    assert texts[1] == texts[3] == ["0.61", "0.71", "0.41", "0.51", "0.21 ●", "0.31", "0.01", "0.11 ○"]
    assert [label.get_text() for label in figure.axes[2].get_xticklabels()] == 2 * ["0–0.125", "0.125–1"]
    assert figure.axes[2].get_xlabel().endswith("squared error | 1 − SSIM")
    assert "no system" in leakage_plots.band_map(pd.DataFrame(rows[:0], columns=list(rows[0]))).axes[0].texts[0].get_text()


def test_access_has_a_panel_of_its_own_for_the_difference() -> None:
    rows = [{"system": system, "access": access, "value": value, "low": value - 0.1, "high": value + 0.1}
            for k, system in enumerate(("U6 DDPM", "U10 FM"))
            for access, value in (("weights", 0.7 + 0.1 * k), ("samples alone", 0.5),
                                  ("weights − samples alone", 0.2 + 0.1 * k))]
    both, more = leakage_plots.by_access(pd.DataFrame(rows)).axes
    points = [[tuple(round(x, 6) for x in line.get_xdata()) for line in axis.get_lines() if len(line.get_xdata()) == 2]
              for axis in (both, more)]
    assert (0.7, 0.8) in points[0] and (0.5, 0.5) in points[0] and (0.2, 0.3) in points[1]
    assert (0.2, 0.3) not in points[0] and more.get_xlabel().endswith("weights − samples alone")
    assert [label.get_text() for label in both.get_yticklabels()] == ["U6 DDPM", "U10 FM"] and both.yaxis_inverted()
    assert "no attack" in leakage_plots.by_access(pd.DataFrame(columns=["system", "access"])).axes[0].texts[0].get_text()


@pytest.mark.parametrize("choices", [(0.0, 1.0, 3.0), ("deterministic", "ancestral")])
def test_choices_that_are_numbers_are_joined_and_real_images_are_dashed(choices: tuple) -> None:
    names = ("near_copy_rate_copy", "swapped_share_copy", "mmd_anatomy", "heart_valid")
    table = pd.DataFrame([{"choice": choice, "metric": name, "value": 0.1 * k + j, "low": 0.1 * k + j - 0.2,
                           "high": 0.1 * k + j + 0.2, "better": "lower", "floor": 0.5 + j, "ceiling": float("nan")}
                          for k, choice in enumerate(choices) for j, name in enumerate(names)])
    figure = leakage_plots.by_choice(table, "what is chosen")
    assert len(figure.axes) == len(names) and figure.axes[0].get_xlabel() == "what is chosen"
    numbers = isinstance(choices[0], float)
    for j, axis in enumerate(figure.axes):
        line = axis.containers[0].lines[0]
        assert list(line.get_xdata()) == (list(choices) if numbers else [0, 1])
        assert line.get_linestyle() == ("-" if numbers else "None")
        assert list(line.get_ydata()) == [0.1 * k + j for k in range(len(choices))]
        assert any(set(other.get_ydata()) == {0.5 + j} for other in axis.get_lines() if other is not line)
        assert [t.get_text() for t in axis.get_xticklabels()] == ([f"{c:g}" for c in choices] if numbers else list(choices))
    assert "several ways" in leakage_plots.by_choice(table.iloc[:0], "").axes[0].texts[0].get_text()


def test_every_version_is_a_line_and_every_attack_a_panel() -> None:
    versions = ("the slice itself", "mirrored", "mean over the changes")
    rows = [{"system": system, "attack": attack, "version": version, "value": 0.9 - 0.1 * k - 0.05 * j, "low": 0.3, "high": 1.0}
            for j, system in enumerate(("U10 FM", "its twin")) for attack in ("loss", "distance_pixel")
            for k, version in enumerate(versions)]
    figure = leakage_plots.by_version(pd.DataFrame(rows))
    assert [axis.get_title() for axis in figure.axes] == ["denoising loss", "distance to samples, pixels"]
    for axis in figure.axes:
        found = [container.lines[0] for container in axis.containers]
        assert [list(line.get_xdata()) for line in found] == [[0.9 - 0.1 * k - 0.05 * j for k in range(3)] for j in range(2)]
        assert [[round(y) for y in line.get_ydata()] for line in found] == [[0, 1, 2], [0, 1, 2]]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(versions)
    assert "changed slices" in leakage_plots.by_version(pd.DataFrame(rows).iloc[:0]).axes[0].texts[0].get_text()
