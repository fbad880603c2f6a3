"""The study's plots can be read: names, sizes of type, ticks and legends, on the committed results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from cmri_lib.reporting import comparison_plots, figures, metrics, plots, results, review

matplotlib.use("Agg")
ROOT = Path(__file__).parents[2]
DATASETS = ("phantom", "acdc")


@pytest.fixture(autouse=True)
def _style(closed_figures: None) -> None:
    figures.use_style()


def scores(dataset: str, name: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / f"results/{dataset}/{name}.csv")


def curves(dataset: str) -> pd.DataFrame:
    return pd.concat([pd.read_csv(f) for f in sorted((ROOT / f"results/{dataset}").glob("*_curves.csv"))])


def board(dataset: str) -> pd.DataFrame:
    table = results.union(ROOT)
    listed = review.listed(table["system"]) | (table["system"] == "real")
    return table[listed & (table["dataset"] == dataset)]


def design(dataset: str) -> pd.DataFrame:
    """The cells of the ablation: their ids are family, content and method."""
    table = scores(dataset, "07_conditioning").query("metric in ['kid_study', 'heart_valid', 'dice_mean']")
    parts = table["system"].str.extract(rf"^(?:GAN|diffusion|flow) ({'|'.join(review.CONTENTS)}) ?(concat|spade|control)?$")
    return table.assign(content=parts[0], method=parts[1].fillna("none"))[parts[0].notna()]


def corruptions() -> pd.DataFrame:
    names = [name for name in metrics.HEADLINE if metrics.describe(name).axis == "fidelity"]
    rows = [{"metric": m, "corruption": c, "response": r - 3.0, "beyond": r > 5} for m in names
            for r, c in enumerate(("blur", "few patients", "masks shuffled"))]
    return pd.DataFrame(rows)


def done() -> pd.DataFrame:
    return pd.DataFrame([{"kind": kind, "id": i, "text": text, "done": i.endswith("1")} for kind, texts in
                         (("system", review.SYSTEMS), ("claim", review.CLAIMS)) for i, text in texts.items()])


PLOTS: dict[str, Callable[[], Figure]] = {
    "corruptions": lambda: plots.heat_map(corruptions()), "coverage": lambda: comparison_plots.coverage(done()),
    **{f"{d} {kind}": lambda d=d, kind=kind: plots.learning_curves(curves(d).query("curve == @kind"))
       for d in DATASETS for kind in plots.CURVES},
    **{f"{d} {axis}": lambda d=d, axis=axis: plots.score_plot(scores(d, "06_fidelity").query("axis == @axis"))
       for d in DATASETS for axis in ("fidelity", "anatomy", "privacy")},
    **{f"{d} board": lambda d=d: comparison_plots.scoreboard(board(d)) for d in DATASETS},
    **{f"{d} ablation": lambda d=d: plots.ablation_design(design(d)) for d in DATASETS},
    "truth": lambda: plots.score_plot(scores("phantom", "07_conditioning").query(
        "metric in ['ssim_true', 'psnr_true', 'style_match', 'seconds_per_image']")),
    "masks": lambda: plots.score_plot(scores("acdc", "08_masks")),
    "segmenter": lambda: plots.score_plot(scores("acdc", "01_cohort").drop(columns="ceiling")),
}


def ticks(axis: plt.Axes) -> list[list[Text]]:
    """The labels that are drawn along x and along y."""
    drawn = []
    for line in (axis.xaxis, axis.yaxis):
        low, high = sorted(line.get_view_interval())
        seen = [tick for tick in line.get_major_ticks() if low <= tick.get_loc() <= high]
        drawn.append([label for tick in seen for label in (tick.label1, tick.label2) if label.get_visible()])
    return drawn


def boxes(texts: Iterable[Text], figure: Figure) -> np.ndarray:
    """(N, 2, 2) left below and right above of the texts that say something, in pixels."""
    renderer = figure.canvas.get_renderer()
    found = [text.get_window_extent(renderer).get_points() for text in texts if text.get_text().strip()]
    return np.array(found).reshape(-1, 2, 2)


def overlaps(found: np.ndarray) -> int:
    """How many pairs of boxes share more than a line of pixels."""
    low = np.maximum(found[:, None, 0], found[None, :, 0])
    high = np.minimum(found[:, None, 1], found[None, :, 1])
    return int(np.triu((high - low > 1).all(-1), 1).sum())


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_can_be_read_on_a_page(name: str) -> None:
    figure = PLOTS[name]()
    figure.draw_without_rendering()
    shown, texts = [axis for axis in figure.axes if axis.get_visible()], []
    for axis in shown:
        along = ticks(axis) if axis.axison else [[], []]
        for labels in along:
            assert not overlaps(boxes(labels, figure)), f"{axis.get_title()}: {[t.get_text() for t in labels]}"
        assert not overlaps(boxes(axis.texts, figure)), f"{axis.get_title()}: numbers on top of each other"
        texts += [*along[0], *along[1], *axis.texts]
        texts += [axis.title, axis.xaxis.label, axis.yaxis.label] if axis.axison else []
    heads = [text for axis in shown if axis.axison for text in (axis.title, axis.xaxis.label)]
    assert not overlaps(boxes(heads, figure)), "titles of neighbours"
    for legend in figure.legends:
        texts += legend.get_texts()
        around = legend.get_window_extent()
        assert not any(around.overlaps(axis.get_tightbbox()) for axis in shown), "the legend covers a panel"
    width, found = 100 * figure.get_size_inches()[0], boxes(texts, figure)
    assert width <= 1100 and len(found) > 10
    assert found[:, 0, 0].min() >= -1 and found[:, 1, 0].max() <= width + 1, "text leaves the page"
    assert min(text.get_fontsize() for text in texts) >= 8
    assert not [text.get_text() for text in texts if "_" in text.get_text()], "column names instead of titles"


def test_ticks_of_many_points_are_round_numbers() -> None:
    table = curves("phantom").query("curve == 'images'")
    assert table["x"].nunique() > 8
    figure = plots.learning_curves(table)
    figure.draw_without_rendering()
    marks = [float(label.get_text().replace(",", "")) for label in ticks(figure.axes[0])[0]]
    assert len(marks) >= 3 and {f"{mark:.0e}"[0] for mark in marks} <= {"1", "2", "5"}


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_system_stands_once_in_a_panel_of_the_scoreboard(dataset: str) -> None:
    table = board(dataset)
    figure = comparison_plots.scoreboard(table)
    groups = metrics.panels(metrics.headline(table["metric"]))
    assert len(figure.axes) == len(groups) and max(map(len, groups)) <= 10
    for axis, group in zip(figure.axes, groups):
        names = [t.get_text().split("\n")[0] for t in axis.texts]
        expected = set(table.loc[table["metric"].isin(group) & table["value"].notna(), "system"]) | {"real"}
        assert all(names.count(review.system(system)) == 1 for system in expected)
        places = [names.index(name) for name in ("Unconditional systems", "U1 VAE", "Conditional systems")]
        assert places == sorted(places), "the unconditional stand first"
    assert "Fréchet" in " ".join(t.get_text() for t in figure.axes[0].texts)


def test_cells_of_the_scoreboard_say_what_reaches_real_images() -> None:
    row = {"family": "flow", "conditioning": "none", "low": 0.1, "high": 0.3, "value": 0.2, "floor": 0.15,
           "ceiling": 0.25}
    table = pd.DataFrame([
        row | {"system": "U1", "metric": "kid_study", "better": "lower"},
        row | {"system": "U2", "metric": "kid_study", "better": "lower", "floor": 0.05},
        row | {"system": "U1", "metric": "dice_mean", "better": "higher", "ceiling": 0.35},
        row | {"system": "U2", "metric": "dice_mean", "better": "higher"},
        row | {"system": "U1", "metric": "nfe", "better": "lower", "floor": np.nan, "ceiling": np.nan}])
    cells = {(r.system, r.metric): comparison_plots._cell_colour(r.metric, r) for r in table.itertuples()}
    reaches, misses, plain = comparison_plots.REACHES, comparison_plots.MISSES, comparison_plots.PLAIN
    assert list(cells.values()) == [reaches, misses, misses, reaches, plain]


def test_nothing_is_green_for_a_system_without_hearts() -> None:
    row = {"family": "flow", "conditioning": "none", "low": 0.1, "high": 0.3, "value": 0.2, "floor": 0.15,
           "ceiling": 0.25, "better": "lower", "metric": "kid_study"}
    hearts = row | {"metric": "heart_valid", "better": "higher", "low": 0.3, "high": 0.9, "floor": 0.85}
    table = pd.DataFrame([row | {"system": s} for s in ("U1", "U2")]
                         + [hearts | {"system": "U1", "value": 0.4}, hearts | {"system": "U2", "value": 0.5}])
    assert review.without_hearts(table) == {"U1"} and not review.without_hearts(table[table["metric"] != "heart_valid"])
    shown = comparison_plots.scoreboard(table).axes[0]
    colours = [matplotlib.colors.to_hex(p.get_facecolor()) for p in shown.patches]
    assert colours.count(comparison_plots.REACHES) == 2, "both cells of U2 reach real images, none of U1 does"
    assert [t.get_text() for t in shown.texts if "no hearts" in t.get_text()] == ["U1\nno hearts"]


@pytest.mark.parametrize(("real", "green"), [(0.0, False), (0.45, False), (0.55, True)])
def test_valid_hearts_are_not_judged_where_real_images_have_too_few(real: float, green: bool) -> None:
    hearts = {"metric": "heart_valid", "family": "flow", "conditioning": "none", "better": "higher", "ceiling": real,
              "floor": real}
    table = pd.DataFrame([hearts | {"system": "U1", "value": 0.0, "low": 0.0, "high": 0.0},
                          hearts | {"system": "U2", "value": real, "low": real, "high": real}])
    figure = comparison_plots.scoreboard(table)
    colours = [matplotlib.colors.to_hex(p.get_facecolor()) for p in figure.axes[0].patches]
    assert colours.count(comparison_plots.REACHES) == green and comparison_plots.MISSES not in colours
    note = figure.legends[0].get_title().get_text()
    assert (note == "") == green and (green or f"only {100 * real:.0f} % of real slices" in note)
    assert review.without_hearts(table) == ({"U1"} if green else set())


def test_a_missing_value_leaves_its_place_empty() -> None:
    axis = plots.score_plot(table_of([0.1, np.nan, 0.3])).axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["S0", "S2"] and not axis.texts


def table_of(values: list[float], metric: str = "recall_study", **columns: object) -> pd.DataFrame:
    rows = pd.DataFrame({"system": [f"S{i}" for i in range(len(values))], "metric": metric, "value": values,
                         "better": "higher", "floor": np.nan, "ceiling": np.nan})
    return rows.assign(low=rows["value"] - 0.01, high=rows["value"] + 0.01, **columns)


def test_a_value_far_outside_does_not_squash_the_rest() -> None:
    axis = plots.score_plot(table_of([0.1, 0.12, 0.14, 0.16, 0.2, 9.0])).axes[0]
    assert axis.get_xlim()[1] < 0.5 and [t.get_text() for t in axis.texts] == ["9.00 ▸"]
    whole = plots.score_plot(table_of([0.1, 0.12, 0.14, 0.16, 0.2, 0.41])).axes[0]
    assert whole.get_xlim()[1] > 0.41 and not whole.texts, "not so far that the axis were much longer"


def test_a_reference_far_outside_is_written_and_rows_stay_level() -> None:
    ratios = table_of([0.9, 0.91], "nearest_ratio_study", floor=0.9, ceiling=0.0)
    first, second = plots.score_plot(pd.concat([table_of([0.9, 0.91]), ratios])).axes
    assert [t.get_text() for t in second.texts] == ["◂ dotted: 0"] and not first.texts
    assert first.get_ylim() == second.get_ylim(), "a system stands at one height in all panels of a row"


def test_values_of_several_orders_are_shown_side_by_side() -> None:
    axis = plots.score_plot(table_of([0.02, 1.0, 300.0], "kid_study", floor=-0.001)).axes[0]
    assert axis.get_xscale() == "symlog"
    places = axis.transData.transform([[v, 0] for v in (0.02, 1.0, 300.0)])
    left = axis.transAxes.inverted().transform(places)[:, 0]
    assert (np.diff(left) > 0.15).all() and left[0] > 0, "an estimate of a distance may lie below 0"
    assert [t for t in axis.get_xticks() if t == 0], "what lies around 0 is marked"


def test_an_empty_table_gives_a_notice() -> None:
    empty = pd.DataFrame(columns=["system", "metric", "value", "low", "high", "floor", "ceiling", "better"])
    for draw in (plots.score_plot, plots.learning_curves, comparison_plots.scoreboard):
        assert draw(empty).axes[0].texts[0].get_text()


def test_the_ablation_names_methods_and_contents() -> None:
    figure = plots.ablation_design(design("phantom"))
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend[:4] == ["no mask", "concatenation", "SPADE", "ControlNet"] and len(legend) == 5
    ticks = [t.get_text().replace("\n", " ") for t in figure.axes[-1].get_xticklabels()]
    assert ticks == ["no mask", "LV cavity", "LV + Myo + RV", "every tissue"]
    kid = figure.axes[0]
    assert any(line.get_linestyle() == "--" for line in kid.get_lines()), "what real images score"


def test_the_legend_says_what_the_lines_are() -> None:
    table = pd.concat([table_of([0.1, 0.5], "kid_study", floor=0.0, ceiling=0.3),
                       table_of([0.6, 0.8], "dice_mean", floor=0.4, ceiling=0.9)])
    texts = [t.get_text() for t in plots.score_plot(table).legends[0].get_texts()]
    assert texts == ["real against real / real images", "training images handed out",
                     "another patient's mask"]


def test_tables_of_systems_list_the_review_s_and_one_s_own() -> None:
    names = ["U10 FM, 18 patients", "C12 ablated-mask diffusion", "X1 my system", "real", "flow labels concat",
             "25 %: real + 1 × U10 FM", "Phantom A: real", "C0 GAN", "short FM, z-score"]
    assert list(review.listed(pd.Series(names))) == [True] * 3 + [False] * 6
