"""Figures keep their numbers, and keep real patients to themselves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import discs
from matplotlib.figure import Figure
from PIL import Image

from cmri_lib.cohort.data_sets import is_virtual
from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.config.study import Study
from cmri_lib.reporting import figures
from cmri_lib.systems.register import SYSTEMS

matplotlib.use("Agg")


def study_of(root: Path, dataset: str = "phantom") -> Study:
    return Study(root, SimpleNamespace(dataset=dataset))  # all that a figure asks of the parameters


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return study_of(tmp_path)


def line(table: pd.DataFrame) -> plt.Figure:
    figure, axis = plt.subplots()
    axis.plot(table["x"], table["y"])
    return figure


TABLE = pd.DataFrame({"x": [1, 2], "y": [0.123456789, 2]})


def test_a_figure_is_drawn_from_its_own_csv(study: Study) -> None:
    drawn = []
    figures.publish(study, "05/line", TABLE, lambda t: drawn.append(t) or line(t))
    pd.testing.assert_frame_equal(drawn[0], pd.read_csv(study.figures / "05/line.csv"))
    assert drawn[0]["y"][0] == 0.123457, "what is drawn are the numbers of the file"


@pytest.mark.parametrize(("asked", "files"), [
    (None, {"line.csv", "line.png"}), ("0", {"line.csv", "line.png"}),
    ("1", {"line.csv", "line.png", "line.svg"})])
def test_an_svg_is_written_on_request_only(study: Study, monkeypatch: pytest.MonkeyPatch, asked: str | None,
                                           files: set[str]) -> None:
    monkeypatch.delenv("CMRI_SVG", raising=False)
    if asked is not None:
        monkeypatch.setenv("CMRI_SVG", asked)
    figures.publish(study, "05/line", TABLE, line)
    assert {f.name for f in (study.figures / "05").iterdir()} == files


def test_a_notebook_shows_the_file_itself(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    plt.close("all")
    monkeypatch.setattr(figures, "get_ipython", object)
    monkeypatch.setattr(figures, "display", lambda picture: shown.append(picture.data))
    figures.publish(study, "05/line", TABLE, line)
    figures.publish_slices(study, "05/grid", {"real": discs(1, 3)})
    assert shown == [(study.figures / f"05/{name}.png").read_bytes() for name in ("line", "grid")]
    assert not plt.get_fignums(), "an open figure would be drawn again below its cell"


def test_what_a_file_must_not_hold_is_drawn_for_the_notebook_alone(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, acdc, real = [], study_of(study.root, "acdc"), discs(1, 3)
    plt.close("all")
    monkeypatch.setattr(figures, "get_ipython", object)
    monkeypatch.setattr(figures, "display", shown.append)
    drawn = [figures.publish_slices(acdc, "05/grid", {"real": real}),
             figures.publish_images(acdc, "05/images", {"row": {"column": real.images[0, 0]}})]
    assert plt.get_fignums() == [figure.number for figure in drawn] and all(figure.axes[0].images for figure in drawn)
    assert not shown


def test_equal_figures_are_equal_files(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMRI_SVG", "1")
    figures.use_style()
    files = []
    for _ in range(2):
        figures.publish(study, "05/line", TABLE, line, title="a title")
        figures.publish_slices(study, "05/grid", {"real": discs(1, 3)})
        files.append({f.name: f.read_bytes() for f in (study.figures / "05").iterdir()})
    assert len(files[0]) == 6 and files[0] == files[1]


def test_a_title_stands_above_the_figure(study: Study) -> None:
    bare, titled = (figures.publish(study, "05/line", TABLE, line, title=t) for t in (None, "what is shown"))
    assert bare.get_suptitle() == "" and titled.get_suptitle() == "what is shown"
    assert titled.get_size_inches()[1] > bare.get_size_inches()[1], "it does not take the panels' room"


def test_no_figure_is_wider_than_a_page(study: Study) -> None:
    figures.publish(study, "05/wide", TABLE, lambda t: plt.subplots(figsize=(20, 3))[0])
    figures.publish_slices(study, "05/grid", {"a rather long label of a row": discs(1, 24)})
    for name in ("wide", "grid"):
        assert plt.imread(study.figures / f"05/{name}.png").shape[1] <= figures.PAGE * figures.DPI


def test_the_palette_of_a_grid_keeps_greys_grey_and_outlines_coloured() -> None:
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    outlines = np.rint(255 * np.array([[figures.to_rgb(c) for c in figures.LABEL_COLOURS]])).astype(np.uint8)
    picture = np.concatenate([greys, outlines], axis=1)
    seen = np.asarray(figures.packed(Image.fromarray(picture), slices=True).convert("RGB"), int)
    assert (np.ptp(seen[:, :256], axis=-1) == 0).all() and np.abs(seen - picture)[:, :256].max() <= 9
    assert np.abs(seen - picture)[:, 256:].max() <= 1


def pixels(file: Path) -> float:
    """Share of mid-grey pixels: only images of slices have many."""
    picture = plt.imread(file)[..., :3]
    return float(((picture > 0.1) & (picture < 0.9)).all(-1).mean())


def test_no_image_of_a_real_patient_is_written(study: Study) -> None:
    real, made = discs(1, 3), discs(1, 3, split="test").with_columns(source="U10")
    acdc = study_of(study.root, "acdc")
    figures.publish_slices(study, "05/a", {"real": real})
    shown = figures.publish_slices(acdc, "05/a", {"real": real})
    assert pixels(study.figures / "05/a.png") > 5 * pixels(acdc.figures / "05/a.png")
    assert len(shown.axes) == 3, "the notebook itself still shows them"
    both = figures.publish_slices(acdc, "05/b", {"real": real, "U10": made})
    assert len(both.axes) == 6 and plt.imread(acdc.figures / "05/b.png").shape[0] < 200, "one row only"
    figures.publish_slices(acdc, "05/f", {"real": real, "U10": made}, title="Real slices, then samples")
    figures.publish_slices(acdc, "05/g", {"U10": made}, title="Real slices, then samples")
    said, whole = (plt.imread(acdc.figures / f"05/{x}.png").shape[0] for x in "fg")
    assert said > whole, "the file says in a second line what it leaves out"
    figures.publish_slices(acdc, "05/d", {"follows a patient's mask": made})
    own = made.with_columns(patient=[f"synthetic-{i}" for i in range(3)])
    figures.publish_slices(acdc, "05/e", {"a mask of its own": own})
    coloured = [np.ptp(plt.imread(acdc.figures / f"05/{x}.png")[..., :3], axis=-1).max() for x in "de"]
    assert coloured[0] < 0.02 < coloured[1], "outlines of patients' labels stay in the notebook"
    simulated = made.with_columns(source="real", dataset="phantom")
    figures.publish_slices(acdc, "05/h", {"real": real, "simulated": simulated})
    assert plt.imread(acdc.figures / "05/h.png").shape[0] < 200 and pixels(acdc.figures / "05/h.png") > 0.1, "that is nobody"
    tiles = {name: pd.read_csv(acdc.figures / f"05/{name}.csv") for name in "abh"}
    assert tiles["a"].empty and list(tiles["b"]["row"]) == ["U10"] * 3 and set(tiles["h"]["row"]) == {"simulated"}
    assert set(tiles["b"]["patient"]) == {0} and not {"age", "bmi", "centre"} & set(tiles["b"])
    figures.publish_slices(acdc, "05/i", {"both": concatenate([real, simulated])})
    assert pixels(acdc.figures / "05/i.png") < pixels(study.figures / "05/a.png") / 5
    figures.publish_slices(acdc, "05/j", {"masks alone": Slices(0 * made.images, made.masks, made.table), "images": made})
    assert set(pd.read_csv(acdc.figures / "05/j.csv")["row"]) == {"images"}, "masks without outlines are no row"
    figures.publish_images(acdc, "05/c", {"row": {"column": real.images[0, 0]}})
    assert pixels(acdc.figures / "05/c.png") < pixels(study.figures / "05/a.png") / 5


def test_committed_figures_are_a_png_with_its_numbers() -> None:
    files = [f for f in (Path(__file__).parents[2] / "figures").rglob("*") if f.is_file()]
    assert {f.suffix for f in files} == {".png", ".csv"}
    kinds = [{f.with_suffix("") for f in files if f.suffix == end} for end in (".png", ".csv")]
    assert kinds[0] == kinds[1] and len(kinds[0]) > 50
    assert {f.parent.parent.parent.name for f in files} == {"figures"}, "figures/<dataset>/NN/name"
    assert max(f.stat().st_size for f in files) < 500_000


@pytest.mark.parametrize("text", [figures.PEOPLE, figures.LEFT_OUT, "short"])
def test_a_notice_fits_into_its_picture(text: str) -> None:
    figure = figures.notice(text)
    figure.canvas.draw()
    [shown] = figure.axes[0].texts
    box, page = shown.get_window_extent(), figure.bbox
    assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1


def test_samples_under_masks_of_training_patients_stay_in_the_notebook(study: Study) -> None:
    made = discs(1, 3, split="test").with_columns(source="C16", drawn_from="patient007")
    acdc, learnt = study_of(study.root, "acdc"), made.with_columns(split="train")
    figures.publish_slices(acdc, "05/a", {"of a test patient": made, "of one learnt from": learnt})
    tiles = pd.read_csv(acdc.figures / "05/a.csv")
    assert set(tiles["row"]) == {"of a test patient"} and "drawn_from" not in tiles
    figures.publish_slices(study, "05/a", {"of one learnt from": learnt})
    assert len(pd.read_csv(study.figures / "05/a.csv")) == 3, "virtual patients have nothing to hide"


@pytest.mark.parametrize("people", [True, False])
def test_of_single_real_patients_the_files_hold_quartiles_alone(study: Study, people: bool) -> None:
    acdc, generator = study_of(study.root, "acdc"), np.random.default_rng(0)
    table = pd.DataFrame({"disease": ["DCM"] * 9 + ["HCM"] * 4, "LV EF (%)": generator.normal(50, 10, 13)})
    if not people:
        table.insert(0, "patient", [f"patient{i:03}" for i in range(13)])
    drawn: list[pd.DataFrame] = []

    def draw(numbers: pd.DataFrame) -> Figure:
        drawn.append(numbers)
        return plt.figure()

    figures.publish(acdc, "01/people", table, draw, people=people)
    kept = pd.read_csv(acdc.figures / "01/people.csv")
    assert list(kept.columns) == ["disease", "rows", "quantile", "LV EF (%)"] and len(drawn[0]) == 13, "the notebook sees them"
    assert set(kept["disease"]) == {"DCM"}, "four are too few to be told"
    assert np.allclose(kept["LV EF (%)"], np.quantile(table["LV EF (%)"][:9], [0.25, 0.5, 0.75]), atol=1e-3)
    figures.publish(study, "01/people", table, draw, people=people)
    assert len(pd.read_csv(study.figures / "01/people.csv")) == 13


def test_published_figures_show_nobody_real() -> None:
    """Every picture that a figure of a real cohort lists was made by a generator that is known, or shows a phantom."""
    root = Path(__file__).parents[2]
    for folder in filter(lambda one: one.is_dir() and not is_virtual(one.name), (root / "figures").iterdir()):
        tables = [pd.read_csv(file) for file in (root / "results" / folder.name).glob("*.csv")]
        scored = {name for table in tables if "system" in table for name in table["system"].dropna()} - {"real"} | set(SYSTEMS)
        for file in sorted(folder.rglob("*.csv")):
            tiles = pd.read_csv(file)
            if {"source", "dataset"} <= set(tiles):
                people = tiles[~tiles["dataset"].map(is_virtual).astype(bool)]
                shown = set(people["source"])
                assert shown <= scored, f"{file}: {sorted(shown - scored)}"
                assert "train" not in set(people["split"]), f"{file}: samples under masks of training patients"
            assert "drawn_from" not in tiles and ({"patient", "scan"}.isdisjoint(tiles) or "source" in tiles), f"{file}: people"
