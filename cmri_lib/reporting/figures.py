"""Figures that keep their numbers: every ``figures/<dataset>/NN/name.png`` has its ``name.csv``.

`publish` writes the CSV first and draws from what it reads back, so a figure can always be redrawn from its
CSV alone. The notebook shows the PNG itself. Pictures of slices go through `publish_slices`, which never lets an
image of a real patient leave the notebook.

Names are those of notebook and figure: ``publish(study, "07/ablation", table, plots.ablation_design)``. Every
figure is at most a page wide. PNG files have a palette; with ``CMRI_SVG=1`` in the environment each gets an
SVG beside it.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from contourpy import contour_generator
from IPython import get_ipython
from IPython.display import Image as Picture
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path as Outline
from PIL import Image

from cmri_lib.cohort.cardiac_function import SCAN
from cmri_lib.cohort.data_sets import is_virtual
from cmri_lib.cohort.slices import COVARIATES, PHENOTYPES, Slices
from cmri_lib.config.study import Study
from cmri_lib.reporting import metrics

#: LV, Myo, RV, in the colours that every overlay uses.
LABEL_COLOURS = ("#d1495b", "#edae49", "#2e86ab")
REAL_COLOUR = "#444444"
#: Families, systems (`system_colour`) and methods have the same colours in every figure, methods none of a family.
FAMILY_COLOURS = {"real": REAL_COLOUR, "VAE": "#d55e00", "GAN": "#de8f05", "diffusion": "#029e73",
                  "latent diffusion": "#56b4e9", "masked": "#cc78bc", "flow": "#0173b2"}
METHOD_COLOURS = {"concat": "#332288", "spade": "#882255", "control": "#999933"}
#: Unconditional systems by family: the first has the family's colour, each further one a shade of it, so far towards black
#: (below 0) or white.
SHADED = {"VAE": ("U1 VAE",), "GAN": ("U2 DCGAN", "U3 WGAN-GP", "U4 progressive GAN", "U5 StyleGAN2-ADA"),
          "diffusion": ("U6 DDPM",), "latent diffusion": ("U7 LDM-KL", "U7 LDM-VQ", "U8 DiT"), "masked": ("U9 MaskGIT",),
          "flow": ("U10 OT-FM", "U10 FM", "U10 FM + mask")}
SHADES = (0.0, -0.45, 0.45, -0.7)
#: Width of a page in inches, and the sizes of type on it, in points.
PAGE, SMALL, NORMAL, LARGE = 11.0, 8.0, 9.0, 10.0
#: How references are drawn, by their kind, and the word for it.
STYLES = {"real": "--", "copies": ":", "nothing": "-."}
STYLE_WORDS = {"real": "dashed", "copies": "dotted", "nothing": "dash-dotted"}
#: Pixels per inch of a PNG, and the greys of a grid of slices: noise of few greys packs far better and looks
#: the same.
DPI, GREYS = 100, 32
#: Levels, of 255, by which a palette may shift a colour unseen.
UNSEEN = 10
#: Inches that a character of size `SMALL` takes on average.
CHARACTER = 0.065
#: A slice is shown at most so large, in inches.
TILE = 1.16
#: In the place of a figure of single people, and of how many at least a group's quartiles are told.
PEOPLE, FEWEST = "values of single patients: only in the executed notebook; the table beside has their quartiles", 5
#: In the file of a figure from which rows are left out.
LEFT_OUT = "rows of real patients: only in the executed notebook"


def shade(colour: str, place: int) -> str:
    """The colour, or one of its `SHADES`, in turn."""
    towards = SHADES[place % len(SHADES)]
    return to_hex((1 - abs(towards)) * np.array(to_rgb(colour)) + max(towards, 0.0))


def system_colour(name: str, family: str | None = None) -> str:
    """The colour of a system: its shade of the family's colour where it is one of `SHADED`; of others that of the `family`, or
    grey."""
    for kind, systems in SHADED.items():
        if name in systems:
            return shade(FAMILY_COLOURS[kind], systems.index(name))
    return FAMILY_COLOURS.get(family, REAL_COLOUR)


def use_style() -> None:
    """The study's look, for every notebook: type of 8 to 10 points on a page of 11 inches."""
    sns.set_theme(context="paper", style="whitegrid", palette="colorblind")
    # A fixed salt and no date make equal figures equal files.
    plt.rcParams.update({"svg.hashsalt": "cmri", "figure.dpi": 100, "savefig.dpi": DPI, "font.size": NORMAL,
                         "axes.titlesize": NORMAL, "axes.labelsize": NORMAL, "legend.title_fontsize": SMALL,
                         "figure.titlesize": LARGE, "figure.constrained_layout.use": True,
                         "xtick.labelsize": SMALL, "ytick.labelsize": SMALL, "legend.fontsize": SMALL})


def publish(study: Study, name: str, table: pd.DataFrame, draw: Callable[[pd.DataFrame], Figure], *,
            title: str | None = None, people: bool = False) -> Figure:
    """Write `table` to ``figures/<dataset>/<name>.csv``, read it back, draw it and write ``<name>.png``.

    Of real people the files hold aggregates alone: a table of single `people` (any with a column "patient" or "scan" is one)
    is kept as the quartiles of its groups, and drawn in the notebook only.

    Args:
        name: "NN/name", the notebook's number and the figure's name.
        title: what is shown, above the figure.
    """
    if not is_virtual(study.dataset) and (people or set(SCAN) & set(table)):
        _write(_keep(study, name, quartiles(table)), _titled(notice(PEOPLE), title), shown=False)
        return _titled(draw(table), title)
    file = _keep(study, name, table)
    return _write(file, _titled(draw(pd.read_csv(file)), title))


def publish_slices(study: Study, name: str, rows: Mapping[str, Slices], *, outline: bool = True,
                   titles: Sequence[str] = (), title: str | None = None, derived: bool = False) -> Figure:
    """A grid with one labelled row per `Slices`; its CSV lists every tile. `titles` stand above the columns.

    Rows of real patients are shown in the returned figure and left out of
    the files, and so are the outlines of their masks where a sample follows one. Where samples are `derived` from a patient
    (translated from the image, chosen for their likeness), they may show that patient, and all rows are left out; so is every
    row drawn under masks of training patients, from whom the generator has learnt.
    """
    anyone = is_virtual(study.dataset)
    public = {label: s if anyone else _without_outlines_of_patients(s) for label, s in rows.items()
              if anyone or not derived and (s.table["dataset"].map(is_virtual) | _nobody(s.table)).all()}
    # Of a row of masks alone nothing is left without its outlines.
    public = {label: s for label, s in public.items() if s.images.any() or s.masks.any()}
    tiles = [s.table.assign(row=label, column=range(len(s)), mean=s.images.mean((1, 2, 3)),
                            std=s.images.std((1, 2, 3))) for label, s in rows.items()]
    every = pd.concat(tiles)
    file = _keep(study, name, every[every["row"].isin(public)])
    published = slice_grid(public, outline=outline, titles=titles) if public else notice()
    some = title and public and len(public) < len(rows)
    figure = _titled(published, f"{title}\n({LEFT_OUT})" if some else title)
    _write(file, figure, slices=True, shown=anyone)
    return figure if anyone else _titled(slice_grid(rows, outline=outline, titles=titles), title)


def publish_images(study: Study, name: str, rows: Mapping[str, Mapping[str, np.ndarray]], *,
                   title: str | None = None) -> Figure:
    """A grid of images (H, W) of real patients, row → column → image, each shown on its own intensity range.

    Its CSV lists row, column and intensity statistics. Only those of phantoms are written to files.
    """
    tiles = pd.DataFrame([{"row": row, "column": column, "min": x.min(), "mean": x.mean(), "max": x.max()}
                          for row, images in rows.items() for column, x in images.items()])
    file, columns = _keep(study, name, tiles), list(dict.fromkeys(tiles["column"]))
    figure, axes = _tiles(list(rows), len(columns), 1.7)
    for line, images in zip(axes, rows.values(), strict=True):
        for axis, column in zip(line, columns, strict=True):
            axis.imshow(images[column], cmap="gray", interpolation="nearest")
    for axis, column in zip(axes[0], columns, strict=True):
        axis.set_title(column, fontsize=SMALL)
    _titled(figure, title)
    if is_virtual(study.dataset):
        return _write(file, figure, slices=True)
    _write(file, _titled(notice(), title), shown=False)
    return figure


def _keep(study: Study, name: str, table: pd.DataFrame) -> Path:
    """Write the numbers of a figure; the path of its CSV. Of real patients it has neither names nor what only they have: they
    are numbered in the order in which they come."""
    file = study.figures / f"{name}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    table = table.drop(columns="df", errors="ignore")  # of an interval, for p-values: no figure shows it
    if not is_virtual(study.dataset):
        table = table.drop(columns=["centre", "drawn_from", *COVARIATES, *PHENOTYPES], errors="ignore")
        table = table.assign(**{column: pd.factorize(table[column])[0] for column in SCAN if column in table})
    table.to_csv(file, index=False, float_format="%.6g")
    return file


def quartiles(table: pd.DataFrame) -> pd.DataFrame:
    """Of a table with a row per person, or per scan: `rows`, `quantile` and the quartiles of all numbers, by group of what is
    no number. Groups of fewer than `FEWEST` rows are left out."""
    table = table.drop(columns=list(SCAN), errors="ignore")
    numbers = list(table.select_dtypes("number"))
    groups = [column for column in table if column not in numbers]
    parts = table.groupby(groups, sort=False) if groups else [((), table)]
    rows = [{**dict(zip(groups, keys)), "rows": len(part), "quantile": q, **part[numbers].quantile(q)}
            for keys, part in parts if len(part) >= FEWEST for q in (0.25, 0.5, 0.75)]
    return pd.DataFrame(rows, columns=[*groups, "rows", "quantile", *numbers])


def _nobody(table: pd.DataFrame) -> pd.Series:
    """Which slices of a real cohort were made, and not under the mask of somebody whom their generator has learnt from."""
    return (table["source"] != "real") & (table["split"] != "train")


def _without_outlines_of_patients(slices: Slices) -> Slices:
    """The same slices, with an empty mask wherever it is not a synthetic patient's own."""
    own = np.char.startswith(slices.patients.astype(str), "synthetic")
    return Slices(slices.images, np.where(own[:, None, None], slices.masks, 0).astype(np.uint8), slices.table)


def notice(text: str = "images of real patients: only in the executed notebook") -> Figure:
    """What a figure says that may not, or cannot, show anything."""
    lines = wrapped(text, 4.8, NORMAL)
    figure, axis = plt.subplots(figsize=(5, 0.8 + 0.17 * lines.count("\n")), layout="constrained")
    axis.text(0.5, 0.5, lines, ha="center", va="center", fontsize=NORMAL)
    axis.axis("off")
    return figure


def _titled(figure: Figure, title: str | None) -> Figure:
    """The figure at most a page wide, with a title if there is one."""
    width, height = figure.get_size_inches()
    lines = wrapped(title or "", min(width, PAGE), LARGE)
    figure.set_size_inches(min(width, PAGE), height + (0.27 + 0.17 * lines.count("\n") if title else 0.0))
    if title:
        figure.suptitle(lines, fontsize=LARGE)
    return figure


def _write(csv: Path, figure: Figure, *, slices: bool = False, shown: bool = True) -> Figure:
    """Draw the figure of a CSV into the PNG beside it. A notebook shows this file: one picture, drawn once, for both."""
    file = csv.with_suffix(".png")
    figure.dpi = DPI
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # `savefig` would draw twice: first for the layout alone
    packed(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"), slices=slices).save(file, optimize=True)
    if os.environ.get("CMRI_SVG", "0") not in ("", "0"):
        figure.savefig(csv.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)  # else the notebook would draw it again
    if shown and get_ipython() is not None:
        display(Picture(filename=file))
    return figure


def packed(picture: Image.Image, *, slices: bool = False) -> Image.Image:
    """A picture with a palette: its own of 64 colours, of 256 where so few would show, or, for grids of
    `slices`, `GREYS` and shades of `LABEL_COLOURS`.

    A palette chosen for a grid would lose the thin outlines or tint the greys. Neither is dithered: flat
    colours would turn into noise, which packs badly.
    """
    if not slices:
        few = picture.quantize(64, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        shift = np.abs(np.asarray(few.convert("RGB"), int) - np.asarray(picture, int)).max()
        return few if shift <= UNSEEN else picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    shades = [np.repeat(np.linspace(0, 1, GREYS)[:, None], 3, axis=1)]
    for colour in LABEL_COLOURS:
        pure = np.array(to_rgb(colour))
        shades += [[pure], [0.6 * pure + 0.4 * grey for grey in (0.0, 0.5, 1.0)]]
    colours = np.rint(255 * np.concatenate(shades)).astype(int)
    fixed = Image.new("P", (1, 1))
    fixed.putpalette(np.resize(colours, (256, 3)).ravel().tolist())
    return picture.quantize(palette=fixed, dither=Image.Dither.NONE)


def slice_grid(rows: Mapping[str, Slices], *, outline: bool = True, titles: Sequence[str] = ()) -> Figure:
    """One row of images per entry, the label map outlined where there is one."""
    figure, axes = _tiles(list(rows), max(len(s) for s in rows.values()), TILE)
    for line, slices in zip(axes, rows.values(), strict=True):
        for axis, image, mask in zip(line, slices.images, slices.masks):
            show(axis, image[0], mask if outline else None)
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=SMALL)
    return figure


def _tiles(labels: Sequence[str], columns: int, largest: float) -> tuple[Figure, np.ndarray]:
    """Axes (rows, columns) for square pictures on a page's width, with a wrapped label beside each row."""
    lines = ["\n".join(wrapped(part, 1.35) for part in label.split("\n")) for label in labels]
    margin = 0.15 + CHARACTER * max((len(part) for line in lines for part in line.split("\n")), default=0)
    side = min(largest, (PAGE - margin) / columns)
    size = margin + side * columns, side * len(labels) + 0.25
    with plt.rc_context({"axes.grid": False}):
        figure, axes = plt.subplots(len(labels), columns, figsize=size, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    for line, label in zip(axes, lines, strict=True):
        for axis in line:
            axis.set(xticks=[], yticks=[])
            sns.despine(ax=axis, left=True, bottom=True)
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=SMALL)
    return figure, axes


def show(axis: plt.Axes, image: np.ndarray, mask: np.ndarray | None = None) -> None:
    """One image (H, W) in [−1, 1], with the outlines of its label map."""
    axis.imshow(image, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    # The wall is outlined together with its cavity, so that the line between the two stays red.
    parts = () if mask is None else ((mask == 1) | (mask == 2), mask == 1, mask == 3)
    for part, colour in zip(parts, (LABEL_COLOURS[1], LABEL_COLOURS[0], LABEL_COLOURS[2])):
        # `Axes.contour` draws the same, and takes five times as long: it makes a colour map, and more, possible.
        lines = zip(*contour_generator(z=part, name="mpl2014", line_type="SeparateCode").lines(0.5), strict=True)
        axis.add_collection(PathCollection([Outline(*line) for line in lines], edgecolors=colour, facecolors="none",
                                           linewidths=0.8, zorder=2), autolim=False)
    axis.set(xticks=[], yticks=[])


def wrapped(text: str, inches: float, size: float = SMALL) -> str:
    """`text` in lines that fit into `inches` at `size` points, by the average width of a character."""
    return textwrap.fill(text, max(6, int(inches / (CHARACTER * size / SMALL))), break_long_words=False)


def legend_below(figure: Figure, handles: Mapping[str, object], note: str = "") -> None:
    """A legend below the panels, label → handle, in as many columns as fit; a `note` stands above it."""
    if handles:
        width = 0.55 + CHARACTER * max(map(len, handles))
        columns = max(1, min(len(handles), int((figure.get_size_inches()[0] - 0.2) / width)))
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=columns, fontsize=SMALL,
                      frameon=False, title=note or None, title_fontsize=SMALL)


def real_values(rows: pd.DataFrame, name: str) -> list[float]:
    """What real images score, if it is known."""
    return [value for value, kind, _ in metrics.references(rows, name) if kind == "real"]


def reference_handles(table: pd.DataFrame, kinds: Sequence[str] = tuple(STYLES)) -> dict[str, Line2D]:
    """Legend of the lines of a figure: every meaning that one of its metrics gives to a style."""
    meanings: dict[str, list[str]] = {}
    for name, rows in table.groupby("metric", sort=False):
        for _, kind, meaning in metrics.references(rows, name):
            meanings.setdefault(kind, []).append(meaning)
    lines = {kind: Line2D([], [], color=REAL_COLOUR, ls=STYLES[kind], lw=1) for kind in kinds}
    return {" / ".join(dict.fromkeys(meanings[kind])): lines[kind] for kind in kinds if kind in meanings}
