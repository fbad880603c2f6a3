"""Figures keep their numbers, and keep real patients to themselves."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import discs

from cmri_lib.config.study import Study
from cmri_lib.reporting import figures

matplotlib.use("Agg")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path, "smoke", "phantom", 0, {})


def line(table: pd.DataFrame) -> plt.Figure:
    figure, axis = plt.subplots()
    axis.plot(table["x"], table["y"])
    return figure


def test_a_figure_is_drawn_from_its_own_csv(study: Study) -> None:
    table = pd.DataFrame({"x": [1, 2], "y": [0.123456789, 2]})
    drawn = []
    figures.publish(study, "05_line", table, lambda t: drawn.append(t) or line(t))
    pd.testing.assert_frame_equal(drawn[0], pd.read_csv(study.figures / "05_line.csv"))
    assert {f.name for f in study.figures.iterdir()} == {"05_line.csv", "05_line.png", "05_line.svg"}


def test_equal_figures_are_equal_files(study: Study) -> None:
    figures.use_style()
    table, files = pd.DataFrame({"x": [1, 2], "y": [1, 2]}), []
    for _ in range(2):
        figures.publish(study, "05_line", table, line)
        files.append([(study.figures / f"05_line.{end}").read_bytes() for end in ("png", "svg", "csv")])
    assert files[0] == files[1]


def pixels(file: Path) -> float:
    """Share of mid-grey pixels: only images of slices have many."""
    picture = plt.imread(file)[..., :3]
    return float(((picture > 0.1) & (picture < 0.9)).all(-1).mean())


def test_no_image_of_a_real_patient_is_written(study: Study) -> None:
    real, made = discs(1, 3), discs(1, 3).with_columns(source="U10")
    acdc = Study(study.root, "smoke", "acdc", 0, {})
    figures.publish_slices(study, "05_a", {"real": real})
    shown = figures.publish_slices(acdc, "05_a", {"real": real})
    assert pixels(study.figures / "05_a.png") > 5 * pixels(acdc.figures / "05_a.png")
    assert len(shown.axes) == 3, "the notebook itself still shows them"
    both = figures.publish_slices(acdc, "05_b", {"real": real, "U10": made})
    assert len(both.axes) == 6 and plt.imread(acdc.figures / "05_b.png").shape[0] < 250, "one row only"
    figures.publish_slices(acdc, "05_d", {"follows a patient's mask": made})
    figures.publish_slices(acdc, "05_e", {"a mask of its own": made.with_columns(patient=[f"synthetic-{i}" for i in range(3)])})
    coloured = [np.ptp(plt.imread(acdc.figures / f"05_{x}.png")[..., :3], axis=-1).max() for x in "de"]
    assert coloured[0] < 0.02 < coloured[1], "outlines of patients' labels stay in the notebook"
    figures.publish_images(acdc, "05_c", {"row": {"column": real.images[0, 0]}})
    assert pixels(acdc.figures / "05_c.png") < pixels(study.figures / "05_a.png") / 5
