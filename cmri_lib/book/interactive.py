"""Pages to try things on: real or synthetic, pictures with a slider, a scoreboard to sort. They work without a network.

A picture is a cell of a published figure, cut out by the browser: no file is added, and no slice is shown that the figures do
not show. Where a figure has not been made, its part of the page is left out. What moves is in ``static/book.js``.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from cmri_lib.book import facts, systems
from cmri_lib.book.facts import Results, interval
from cmri_lib.book.links import Links, anchor, bands_of, relative, runs_of, window
from cmri_lib.cohort.data_sets import is_virtual
from cmri_lib.config.study import Study
from cmri_lib.reporting import metrics, review
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE, HEARTS

READING, SLIDERS, SCOREBOARD = "try/reading", "try/sliders", "results/scoreboard"
#: Figures with slices of real patients that bear no outline, and the rows with them.
REAL = {"03/samples": "real", "02/reconstructions": "real", "06/examination_sets": "copies of training"}
#: Figures with samples that bear no outline.
SAMPLES = ("02/samples", "03/samples", "04/samples", "05/samples")
#: Slices of either kind in one test.
EACH = 10
#: The accuracy of the small network that tells samples from real slices.
NETWORK = "c2st_image"
#: Columns of the scoreboard.
BOARD = (ANATOMY, APPEARANCE, HEARTS, "dice_mean", NETWORK, "band_excess", "downstream_dice", "near_copies_pixel",
         "images_seen", "nfe", "seconds_per_image")


@dataclass(frozen=True)
class Slider:
    """A figure that is a grid of slices, of which one column is shown at a time.

    Attributes:
        title, text: what stands above it.
        caption: of a column, with the value of `column` of the figure's table, or its number.
    """

    figure: str
    title: str
    text: str
    caption: str
    column: str = ""


SHOWN = (
    Slider("04/path", "From noise to a heart", "One sample of U6 DDPM on its way, by three samplers with eight steps each. "
           "*State* is what the sampler holds, *prediction* the image that the network sees in it. When is it decided what "
           "heart this will be?", "step {} of {}"),
    Slider("08/severity", "A healthy heart falls ill", "A label VAE moves the mask of one healthy heart towards a disease; a "
           "generator draws the image under it. What changes that should not?", "severity {}", "severity"),
    Slider("07/vendors", "One heart on four scanners", "The same heart by each vendor, as it was scanned, and as conditional "
           "systems draw it. Which system has learnt the scanner, and which draws another patient?", "{}", "vendor"),
    Slider("14/samples", "The same heart, contracted", "Of the full heart (ED), four systems draw the contracted one (ES).",
           "heart {} of {}"),
)


@dataclass(frozen=True)
class Cell:
    """A slice within a figure: x, y, width and height in pixels of the file, whose size is `image`."""

    file: str
    image: tuple[int, int]
    box: tuple[int, int, int, int]

    @property
    def view(self) -> str:
        """The slice as a viewBox of SVG."""
        return " ".join(map(str, self.box))

    def data(self, page: str) -> list[object]:
        """As the script wants it: address, size of the image, viewBox."""
        return [relative(self.file, page), *self.image, self.view]


def cells_of(image: Image.Image, rows: int, columns: int) -> list[list[tuple[int, int, int, int]]]:
    """The slices of a figure that is a grid of them, row by row; [] if they cannot be told apart. Names stand at the left."""
    grey, found = np.asarray(image.convert("L")), []
    for top, bottom in bands_of(image, rows):
        inked = runs_of((grey[top:bottom] < 250).any(0))
        square = [(a, top, b - a, bottom - top) for a, b in inked if abs(b - a - (bottom - top)) <= 3]
        if len(square) < columns:
            return []
        found.append(square[-columns:])
    return found


def grid(study: Study, figure: str) -> tuple[pd.DataFrame, dict[str, list[Cell]]]:
    """The table behind a figure of slices, and row → its cells; no rows where the figure is not made or cannot be cut."""
    path = f"figures/{study.dataset}/{figure}.png"
    file = study.root / path
    if not file.is_file() or not file.with_suffix(".csv").is_file():
        return pd.DataFrame(), {}
    table = pd.read_csv(file.with_suffix(".csv"))
    if not {"row", "column"} <= set(table):
        return table, {}
    names = list(dict.fromkeys(table["row"].astype(str)))
    with Image.open(file) as image:
        cut, size = cells_of(image, len(names), table["column"].nunique()), image.size
    return table, {name: [Cell(path, size, box) for box in boxes] for name, boxes in zip(names, cut)}


def pages(study: Study, results: Results, links: Links) -> dict[str, str]:
    """Path of a page, without its ending → Markdown."""
    return {READING: reading(study, results, links), SLIDERS: sliders(study, links), SCOREBOARD: scoreboard(study, results)}


# Real or synthetic


def reading(study: Study, results: Results, links: Links) -> str:
    """Markdown of the reading test: slices of real patients and samples of one system in random order."""
    place = f"{READING}.html"
    text = ("Choose a system. You will see ten of its samples and ten slices of the cohort's patients, one by one, in random "
            "order: which are real? In the end your score stands beside that of a small network that was trained to tell them "
            "apart.")
    if not is_virtual(study.dataset):
        return "# Real or synthetic?\n\nImages of real patients are not shown: make the book of the phantom for this test.\n"
    accuracies = _accuracies(study, results)
    rows = {figure: grid(study, figure)[1] for figure in dict.fromkeys([*REAL, *SAMPLES])}
    real = [cell for figure, row in REAL.items() for cell in rows[figure].get(row, [])]
    drawn = {name: cells for figure in SAMPLES for name, cells in rows[figure].items()
             if name in accuracies and len(cells) >= EACH}
    if len(real) < EACH or not drawn:
        return f"# Real or synthetic?\n\n{text}\n\nNot yet made: notebooks 02 to 06 draw the figures that it is cut from.\n"
    data = {"each": EACH, "real": [cell.data(place) for cell in real],
            "systems": {name: {"cells": [cell.data(place) for cell in cells], "network": accuracies[name]}
                        for name, cells in drawn.items()}}
    links.files.update(cell.file for cells in (real, *drawn.values()) for cell in cells)
    ddpm = systems.link("U6", place, "U6")
    note = ("*Real* means here: a virtual patient in a simulated scanner, which is what the generators have learnt from. Of "
            f"images of a DDPM that has learnt from patients, radiologists called 60 % right (the review, of {ddpm}); half is "
            "guessing. The accuracy of the network is the mean of its shares of real slices and of samples that it calls "
            "right, on patients whom it has not seen.")
    return f"# Real or synthetic?\n\n{text}\n\n{_script('reading', data)}\n\n{note}\n"


def _accuracies(study: Study, results: Results) -> dict[str, str]:
    """System → accuracy of the network, with its interval."""
    mine = results.of(study)
    rows = mine[(mine["metric"] == NETWORK) & (mine["system"] != "real")].drop_duplicates("system")
    return {row.system: f"{metrics.number(NETWORK, row.value)} {interval(NETWORK, row.low, row.high)}".strip()
            for row in rows.itertuples()}


def _script(kind: str, data: object) -> str:
    """Data for the script, in the place where it shows what it makes of them."""
    written = json.dumps(data, ensure_ascii=False).replace("</", "<\\/")
    return (f'<div class="{kind}"><noscript>This needs JavaScript.</noscript>'
            f'<script type="application/json">{written}</script></div>')


# Sliders


def sliders(study: Study, links: Links) -> str:
    """Markdown of the figures with a slider."""
    place, parts = f"{SLIDERS}.html", []
    for one in SHOWN:
        table, rows = grid(study, one.figure)
        if rows:
            file = next(iter(rows.values()))[0].file
            links.files.add(file)
            whole = anchor(file, "the whole figure", place)
            parts.append(f"## {one.title}\n\n{one.text}\n\n{_viewer(one, table, rows, place)}\n\n{whole}\n")
    missing = "" if parts else "Not yet made: the notebooks draw the figures that these are cut from.\n"
    return "# Move a slider\n\n" + missing + "\n".join(parts)


def _viewer(one: Slider, table: pd.DataFrame, rows: dict[str, list[Cell]], place: str) -> str:
    """Every row of a figure as one picture, and a slider that chooses the column; in one line of HTML."""
    count = len(next(iter(rows.values())))
    captions = _captions(one, table, count)
    pictures = "".join(_picture(name, cells, place) for name, cells in rows.items())
    label = html.escape(one.title, quote=True)
    return (f'<div class="viewer" data-captions="{html.escape(json.dumps(captions, ensure_ascii=False), quote=True)}">'
            f'<label><input type="range" min="0" max="{count - 1}" value="0" aria-label="{label}"><output></output></label>'
            f'<div class="pictures">{pictures}</div></div>')


def _captions(one: Slider, table: pd.DataFrame, count: int) -> list[str]:
    if not one.column:
        return [one.caption.format(k + 1, count) for k in range(count)]
    values = table.drop_duplicates("column").sort_values("column")[one.column]
    return [one.caption.format(f"{value:g}" if isinstance(value, float) else value) for value in values]


def _picture(name: str, cells: Sequence[Cell], place: str) -> str:
    first, words = cells[0], " ".join(name.split())
    boxes = html.escape(json.dumps([cell.view for cell in cells]), quote=True)
    shown = window(relative(first.file, place), first.image, first.view, words, f' data-boxes="{boxes}"')
    return f"<figure>{shown}<figcaption>{html.escape(words)}</figcaption></figure>"


# The scoreboard


def scoreboard(study: Study, results: Results) -> str:
    """Markdown of a table that readers sort and filter: every system that has a page, and what real images score."""
    place, mine = f"{SCOREBOARD}.html", results.of(study)
    columns = [metric for metric in BOARD if metric in set(mine["metric"])]
    heartless, measured = review.without_hearts(mine), dict(list(mine.groupby("system")))
    head = "".join(f'<th scope="col"><button type="button">{html.escape(words)}</button></th>'
                   for words in ("system", "family", "condition", *map(metrics.short, columns)))
    body = [_real(mine, columns)]
    for identity in facts.identities():
        for one in facts.variants(identity):
            if one.id in measured:
                note = " (no hearts)" if one.id in heartless else ""
                body.append(_row(systems.link(identity, place, one.id) + note, [one.family, review.system(one.conditioning)],
                                 measured[one.id], columns))
    tables = anchor("results/tables.html", "All tables", place)
    text = (f"Cohort `{study.dataset}`, profile `{study.profile}`. Click on the head of a column to sort by it, once more to "
            "turn the order round; write into the field to keep the rows with these words. The first row is what real images "
            f"score. Point at a number for its 95 % interval. {tables} say what the columns mean.")
    field = '<input type="search" placeholder="flow, GAN, mask, SPADE …" aria-label="keep rows with these words">'
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'# Scoreboard\n\n{text}\n\n<div class="board">{field}<div class="table-wrapper">{table}</div></div>\n'


def _row(name: str, words: Iterable[str], rows: pd.DataFrame, columns: Sequence[str], kind: str = "") -> str:
    cells = [f"<td>{html.escape(word)}</td>" for word in words]
    found = rows.drop_duplicates("metric").set_index("metric")
    for metric in columns:
        if metric in found.index and pd.notna(found.loc[metric, "value"]):
            value, low, high = found.loc[metric, ["value", "low", "high"]].astype(float)
            shown, ends = metrics.number(metric, value), interval(metric, low, high)
            cells.append(f'<td data-value="{value:.6g}" title="{ends}">{shown}</td>')
        else:
            cells.append("<td>·</td>")
    return f'<tr{kind}><th scope="row">{name}</th>{"".join(cells)}</tr>'


def _real(mine: pd.DataFrame, columns: Sequence[str]) -> str:
    """What real images score, by the references of each metric."""
    rows = []
    for metric in columns:
        own = mine[mine["metric"] == metric]
        measured = own[own["system"] == "real"]
        if measured.empty:
            value = facts.real_value(own, metric)
            measured = pd.DataFrame([{"metric": metric, "value": value, "low": np.nan, "high": np.nan}])
        rows.append(measured.head(1))
    together = pd.concat([r[["metric", "value", "low", "high"]] for r in rows]) if rows else pd.DataFrame(
        columns=["metric", "value", "low", "high"])
    return _row("<em>real images</em>", ["·", "·"], together, columns, ' class="real"')
