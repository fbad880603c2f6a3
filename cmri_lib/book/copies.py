"""Executed notebooks in the light form in which the book keeps them: without their images, which are files of their own.

Papermill leaves its copies in ``executed/``: the last run of each notebook, of whatever cohort and profile. A copy is
shown if the figures that it drew are the published ones (`alike`): a copy of another run, or one with images of real
patients, which published figures never hold, is recognised by what it shows. The light form names the published file in
the place of each image, with its digest, so that it is recognised again where ``executed/`` is empty, as in a clone.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
from nbformat import NotebookNode
from PIL import Image

from cmri_lib.reporting.figures import packed

#: The name under which a cell publishes a figure; an f-string has braces.
PUBLISHES = re.compile(r'publish(?:_\w+)?\(\s*study,\s*f?"([^"]+)"')
#: Pixels of the side of a thumbnail, the mean difference of grey values (of 255) from which on two of them show different
#: figures, and the largest ratio of their sides. A legend that a page cuts off moves the picture by a few per cent.
SIDE, DIFFERENT, STRETCHED = 32, 8.0, 1.05
#: Pixels lighter than this are margin.
MARGIN = 250


@dataclass(frozen=True)
class Copy:
    """What a run of one notebook left: `notebook` in the light form, and what it shows and nobody has published.

    Attributes:
        images: path in the book → PNG.
    """

    notebook: NotebookNode
    images: dict[str, bytes]


def published_names(code: str, root: Path, dataset: str) -> list[list[str]]:
    """For each call in a cell's source that publishes a figure the files, relative to `root`, that it may have written."""
    place = root / "figures" / dataset
    found = []
    for name in PUBLISHES.findall(code):
        files = sorted(place.glob(re.sub(r"\{[^}]*\}", "*", name) + ".png"))
        found.append([file.relative_to(root).as_posix() for file in files])
    return found


def of_run(executed: NotebookNode, name: str, root: Path, dataset: str) -> Copy | None:
    """The light form of an executed notebook; None unless every figure that it publishes is the published one.

    Args:
        executed: Papermill's copy. name: of the notebook, without its ending.
    """
    if not executed.metadata.get("papermill", {}).get("end_time") or executed.metadata["papermill"].get("exception"):
        return None  # broken off, under way, or failed
    cells, images, drawn = [], {}, 0
    for number, cell in enumerate(c for c in executed.cells if "injected-parameters" not in c.metadata.get("tags", [])):
        shown = [picture_of(output) for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
        places = place_pictures(shown, published_names(cell.source, root, dataset), root)
        if places is None:
            return None
        drawn += sum(place is not None for place in places)
        outputs = []
        for output in cell.get("outputs", []):
            if "image/png" not in output.get("data", {}):
                outputs += [light] if (light := without_noise(output)) else []
                continue
            picture, place = shown.pop(0), places.pop(0)
            if place is None:
                place = f"notebooks/{name}/cell-{number}{f'-{len(shown)}' if shown else ''}.png"
                images[place] = _png(packed(picture))
                outputs.append(reference(place, images[place]))
            else:
                outputs.append(reference(place, (root / place).read_bytes()))
        cells.append(_light(cell, outputs))
    kernel = {name: value for name, value in executed.metadata.items() if name == "kernelspec"}
    made = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    return Copy(made, images) if drawn else None


def of_book(file: Path, book: Path, root: Path) -> Copy | None:
    """The light form that an earlier book holds; None if there is none, or a figure has changed since."""
    if not file.is_file():
        return None
    notebook, images = nbformat.read(file, nbformat.NO_CONVERT), {}
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if place := output.get("metadata", {}).get("picture"):
            own = not place.startswith("figures/")
            source = book / place if own else root / place
            if not source.is_file() or digest(source.read_bytes()) != output.metadata["digest"]:
                return None
            images |= {place: source.read_bytes()} if own else {}
    return Copy(notebook, images)


def place_pictures(shown: list[Image.Image], published: list[list[str]], root: Path) -> list[str | None] | None:
    """The published file of each picture that a cell shows, None for one that is not published.

    Returns:
        None if a figure was published whose file shows something else, or is not there: the copy is of another run. A
        call without a file in a cell without a picture was left out in both runs.
    """
    if any(not files for files in published):
        return None if shown else []
    single = [files[0] for files in published if len(files) == 1]
    if len(single) == len(published) == len(shown):
        pairs = zip(shown, single)
        return single if all(alike(picture, root / file) for picture, file in pairs) else None
    candidates = [file for files in published for file in files]
    places = [next((file for file in candidates if alike(picture, root / file)), None) for picture in shown]
    return places if len(set(places) - {None}) >= len(published) or not shown else None


def alike(picture: Image.Image, file: Path) -> bool:
    """Whether a picture, as a notebook shows it, and a PNG file are one figure: the same shape, and the same thumbnail."""
    (first, size), (second, other) = _thumbnail(picture), _thumbnail(Image.open(file))
    stretched = max(max(a / b, b / a) for a, b in zip(size, other))
    return bool(stretched <= STRETCHED and np.abs(first - second).mean() < DIFFERENT)


def reference(place: str, content: bytes) -> NotebookNode:
    """An output that shows the file `place` of the book, seen from the folder of the notebooks."""
    source = f"../{place}" if place.startswith("figures/") else place.removeprefix("notebooks/")
    return nbformat.v4.new_output("display_data", {"text/html": f'<img src="{source}">'},
                                  metadata={"picture": place, "digest": digest(content)})


def without_noise(output: NotebookNode) -> NotebookNode | None:
    """An output without what is for the run alone: None for what went to the error stream (progress, warnings); the table
    where there is one, else the text."""
    if output.output_type == "stream":
        return nbformat.v4.new_output("stream", name="stdout", text=output.text) if output.name == "stdout" else None
    if output.output_type == "error":
        return None  # of a cell that may fail; one that may not has ended the run
    kept = next((kind for kind in ("text/html", "text/plain") if kind in output.data), None)
    return nbformat.v4.new_output("display_data", {kept: output.data[kept]}) if kept else None


def digest(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def picture_of(output: NotebookNode) -> Image.Image:
    """The image of an output, RGB."""
    return Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))).convert("RGB")


def _light(cell: NotebookNode, outputs: list[NotebookNode]) -> NotebookNode:
    kept = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
    if cell.cell_type != "code":
        return nbformat.v4.new_markdown_cell(cell.source, id=cell.id, metadata=kept)
    return nbformat.v4.new_code_cell(cell.source, id=cell.id, metadata=kept, outputs=outputs)


def _thumbnail(picture: Image.Image) -> tuple[np.ndarray, tuple[int, int]]:
    """Grey values (SIDE, SIDE) of a picture without its margin, and its size in pixels."""
    grey = picture.convert("L")
    inked = np.asarray(grey) < MARGIN
    down, across = (np.flatnonzero(inked.any(axis)) for axis in (1, 0))
    if not len(down):
        return np.full((SIDE, SIDE), 255.0), picture.size
    inside = grey.crop((across[0], down[0], across[-1] + 1, down[-1] + 1))
    return np.asarray(inside.resize((SIDE, SIDE), Image.Resampling.BOX), float), inside.size


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
