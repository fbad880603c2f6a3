"""The figure that asks whether cheap measures foretell utility."""

from __future__ import annotations

import pandas as pd
from matplotlib.colors import to_hex

from cmri_lib.reporting import utility_plots
from cmri_lib.reporting.figures import FAMILY_COLOURS


def row(system: str, metric: str, value: float, dice: float, family: str = "GAN", labels: str = "masks") -> dict[str, object]:
    better = "lower" if metric == "mmd_anatomy" else "higher"
    return {"system": system, "family": family, "labels": labels, "metric": metric, "better": better, "value": value,
            "dice": dice, "correlation": -0.5, "low": -0.9, "high": 0.1, "n": 2}


def test_every_measure_has_a_panel_with_its_correlation() -> None:
    table = pd.DataFrame([row("U2", "mmd_anatomy", 0.1, 0.7), row("U10", "mmd_anatomy", 0.2, 0.8, "flow", "pseudo"),
                          row("U2", "heart_valid", 0.5, 0.7), row("U10", "heart_valid", 0.6, 0.8, "flow", "pseudo")])
    figure = utility_plots.foretold(table)
    panels = [axis for axis in figure.axes if axis.get_visible()]
    each = "ρ = -0.50 [-0.90, 0.10], n = 2"
    assert [axis.get_title() for axis in panels] == [f"masks: {each}\npseudo: {each}"] * 2
    assert panels[0].get_xlabel().endswith("↓") and panels[1].get_xlabel().endswith("↑")
    points = {tuple(map(float, some.get_offsets()[0])): some for some in panels[0].collections}
    assert set(points) == {(0.1, 0.7), (0.2, 0.8)}
    assert to_hex(points[0.2, 0.8].get_facecolor()[0]) == FAMILY_COLOURS["flow"]
    shapes = {len(some.get_paths()[0].vertices) for some in points.values()}
    assert len(shapes) == 2, "marks say where labels come from"
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert named == {"GAN", "flow", "masks", "pseudo"}


def test_too_few_systems_are_said() -> None:
    figure = utility_plots.foretold(pd.DataFrame())
    assert "too few systems have both" in figure.axes[0].texts[0].get_text()
