"""Pages to try things on: slices are cut where they lie, and in a browser sliders move, tables sort, answers are counted."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import browser
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cmri_lib.book import facts, interactive, site
from cmri_lib.book.links import Links
from cmri_lib.config.study import Study, open_study
from cmri_lib.reporting.results import CLAIM_COLUMNS, SCORE_COLUMNS

ROOT = Path(__file__).parents[2]
SIDE, GAP, LEFT, TOP = 40, 4, 90, 30


def draw_grid(file: Path, rows: list[str], columns: int, **more: list[object]) -> np.ndarray:
    """A figure of slices, each of one grey, with names at the left and a title, and its table. Returns the greys."""
    greys = np.random.default_rng(len(rows)).integers(0, 240, (len(rows), columns))
    page = np.full((TOP + len(rows) * (SIDE + GAP), LEFT + columns * (SIDE + GAP)), 255, np.uint8)
    page[4:14, 40:120] = 0
    for k in range(len(rows)):
        top = TOP + k * (SIDE + GAP)
        page[top + 10:top + 20, 2:70] = 0  # a name, wider than a slice
        for j in range(columns):
            left = LEFT + j * (SIDE + GAP)
            page[top:top + SIDE, left:left + SIDE] = greys[k, j]
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(page).save(file)
    table = pd.DataFrame([(row, j) for row in rows for j in range(columns)], columns=["row", "column"])
    for name, values in more.items():
        table[name] = [values[j] for j in table["column"]]
    table.to_csv(file.with_suffix(".csv"), index=False)
    return greys


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Figures of ten real slices and ten samples of one system, and of four severities."""
    root = tmp_path_factory.mktemp("project")
    draw_grid(root / "figures/phantom/03/samples.png", ["real", "U2 DCGAN"], 10)
    draw_grid(root / "figures/phantom/08/severity.png", ["mask", "image"], 4, severity=[0.0, 0.5, 1.0, 1.5])
    return replace(open_study("smoke", "phantom", ROOT), root=root)


def results() -> facts.Results:
    rows = [dict(zip(SCORE_COLUMNS, ("phantom", "smoke", system, "GAN", "none", "fidelity", metric, value, value - 0.1,
                                     value + 0.1, 10, 1, "lower", 0.5, 1.0)))
            for system, metric, value in (("U2 DCGAN", "c2st_image", 0.8), ("U2 DCGAN", "mmd_anatomy", 0.02),
                                          ("U3 WGAN-GP", "mmd_anatomy", 0.01), ("U3 WGAN-GP", "c2st_image", 0.9),
                                          ("U1 VAE", "c2st_image", 0.95), ("GAN none", "mmd_anatomy", 0.5))]
    return facts.Results(pd.DataFrame(rows), pd.DataFrame(columns=[*CLAIM_COLUMNS, "after Holm"]), {})


def test_a_cell_is_cut_where_its_slice_lies(tmp_path: Path) -> None:
    greys = draw_grid(tmp_path / "grid.png", ["a", "b", "c"], 5)
    with Image.open(tmp_path / "grid.png") as image:
        cells = interactive.cells_of(image, 3, 5)
        assert interactive.cells_of(image, 4, 5) == [] == interactive.cells_of(image, 3, 6)
        for k, row in enumerate(cells):
            for j, (x, y, width, height) in enumerate(row):
                cut = np.asarray(image)[y:y + height, x:x + width]
                assert (width, height) == (SIDE, SIDE) and (cut == greys[k, j]).all()


def test_the_reading_test_has_ten_of_each_and_the_accuracy_of_the_network(study: Study) -> None:
    links = Links(study.root)
    page = interactive.reading(study, results(), links)
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page)[1])
    assert list(data["systems"]) == ["U2 DCGAN"] and data["systems"]["U2 DCGAN"]["network"].startswith("0.80 [0.70, 0.90]")
    assert len(data["real"]) == len(data["systems"]["U2 DCGAN"]["cells"]) == data["each"] == 10
    assert links.files == {"figures/phantom/03/samples.png"}
    boxes = {cell[3] for cell in (*data["real"], *data["systems"]["U2 DCGAN"]["cells"])}
    assert len(boxes) == 20, "one slice is shown as two"


def test_nobody_real_is_shown(study: Study) -> None:
    acdc = replace(open_study("smoke", "acdc", ROOT), root=study.root)
    draw_grid(study.root / "figures/acdc/03/samples.png", ["real", "U2 DCGAN"], 10)
    page = interactive.reading(acdc, results(), Links(study.root))
    assert "Images of real patients are not shown" in page and "figures/acdc" not in page


def test_without_figures_the_pages_say_so(study: Study, tmp_path: Path) -> None:
    empty = replace(study, root=tmp_path)
    made = interactive.pages(empty, results(), Links(tmp_path))
    assert "Not yet made" in made[interactive.READING] and "Not yet made" in made[interactive.SLIDERS]


def test_captions_are_those_of_the_columns(study: Study) -> None:
    page = interactive.sliders(study, Links(study.root))
    assert "severity 0&quot;, &quot;severity 0.5" in page and page.count("<svg") == 2 and 'max="3"' in page


def test_the_scoreboard_has_the_systems_of_the_review_and_no_cell_of_the_ablation(study: Study) -> None:
    page = interactive.scoreboard(study, results())
    assert re.findall(r'systems/U\d+.html">([^<]*)<', page) == ["U1 VAE", "U2 DCGAN", "U3 WGAN-GP"] and "GAN none" not in page
    assert 'data-value="0.02"' in page and "<td>·</td>" in page and page.index("real images") < page.index("U1 VAE")


def moved(kind: str, value: object) -> str:
    """JavaScript that puts a value into the field of an element, as a reader does."""
    field = f"document.querySelector('.{kind} input')"
    return f"{field}.value = {json.dumps(value)}; {field}.dispatchEvent(new Event('input')); 1"


@pytest.mark.skipif(browser.CHROMIUM is None, reason="Chromium is not installed")
def test_in_a_browser_it_works(study: Study, tmp_path: Path) -> None:
    pages, html = tmp_path / "pages", tmp_path / "html"
    links = Links(study.root)
    for name, text in {**interactive.pages(study, results(), links), "index": "# Book\n"}.items():
        (pages / f"{name}.md").parent.mkdir(parents=True, exist_ok=True)
        (pages / f"{name}.md").write_text("---\norphan: true\n---\n\n" + text)
    site.build(pages, html, "Small")
    for file in links.files:
        (html / file).parent.mkdir(parents=True, exist_ok=True)
        (html / file).write_bytes((study.root / file).read_bytes())
    with browser.opened() as window:
        window.open((html / "try/reading.html").as_uri())
        assert window.value("document.querySelectorAll('.reading option').length") == 1
        window.value("document.querySelector('.reading button').click(); 1")
        for _ in range(20):  # all of them real: half of it is right
            window.value("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'r'})); 1")
        assert "10 of 20 right (0.50); the network: 0.80" in window.value("document.querySelector('.score').textContent")
        assert window.value("document.querySelectorAll('.reading figure').length") == 10

        window.open((html / "try/sliders.html").as_uri())
        box = "document.querySelector('.viewer svg').getAttribute('viewBox')"
        first = window.value(box)
        window.value(moved("viewer", 2))
        assert window.value(box) != first and window.value("document.querySelector('output').textContent") == "severity 1"

        window.open((html / "results/scoreboard.html").as_uri())
        names = "[...document.querySelectorAll('.board tbody tr')].filter(r => !r.hidden).map(r => r.children[0].textContent)"
        column = "[...document.querySelectorAll('.board th button')].find(b => b.textContent.startsWith('anatomy'))"
        window.value(f"{column}.click(); 1")
        assert window.value(names) == ["real images", "U3 WGAN-GP", "U2 DCGAN", "U1 VAE"]  # what is not measured comes last
        window.value(f"{column}.click(); 1")
        assert window.value(names) == ["real images", "U2 DCGAN", "U3 WGAN-GP", "U1 VAE"]
        window.value(moved("board", "wgan"))
        assert window.value(names) == ["real images", "U3 WGAN-GP"]
        assert not window.complaints
