"""Figures that keep their numbers: every ``figures/<dataset>/NN_name.png`` has its .svg and its .csv.

`publish` writes the CSV first and draws from what it reads back, so a figure can always be redrawn from its CSV alone.
Pictures of slices go through `publish_slices`, which never lets an image of a real patient leave the notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study

#: LV, Myo, RV, in the colours that every overlay uses.
LABEL_COLOURS = ("#d1495b", "#edae49", "#2e86ab")
REAL_COLOUR = "#555555"


def use_style() -> None:
    """The study's look, for every notebook."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", font_scale=0.9)
    # A fixed salt and no date make equal figures equal files.
    plt.rcParams.update({"svg.hashsalt": "cmri", "figure.dpi": 100, "savefig.dpi": 130, "figure.constrained_layout.use": True})


def publish(study: Study, name: str, table: pd.DataFrame, draw: Callable[[pd.DataFrame], Figure]) -> Figure:
    """Write `table` to ``<name>.csv``, read it back, draw it and write ``<name>.png`` and ``.svg``."""
    study.figures.mkdir(parents=True, exist_ok=True)
    table.to_csv(study.figures / f"{name}.csv", index=False, float_format="%.6g")
    return _write(study.figures / name, draw(pd.read_csv(study.figures / f"{name}.csv")))


def publish_slices(study: Study, name: str, rows: Mapping[str, Slices], *, outline: bool = True,
                   titles: Sequence[str] = ()) -> Figure:
    """A grid with one labelled row per `Slices`; its CSV lists every tile.

    Rows of real patients of a cohort other than the phantom are shown in the returned figure and left out of the files,
    and so are the outlines of their masks where a sample follows one.
    """
    study.figures.mkdir(parents=True, exist_ok=True)
    anyone = study.dataset == "phantom"
    public = {label: s if anyone else _without_outlines_of_patients(s) for label, s in rows.items()
              if anyone or (s.table["source"] != "real").all()}
    tiles = [s.table.assign(row=label, column=range(len(s)), mean=s.images.mean((1, 2, 3)), std=s.images.std((1, 2, 3)))
             for label, s in rows.items()]
    pd.concat(tiles).to_csv(study.figures / f"{name}.csv", index=False, float_format="%.6g")
    published = slice_grid(public, outline=outline, titles=titles) if public else _notice()
    _write(study.figures / name, published)
    if anyone:
        return published
    plt.close(published)
    return slice_grid(rows, outline=outline, titles=titles)


def _without_outlines_of_patients(slices: Slices) -> Slices:
    """The same slices, with an empty mask wherever it is not a synthetic patient's own."""
    own = np.char.startswith(slices.patients.astype(str), "synthetic")
    return Slices(slices.images, np.where(own[:, None, None], slices.masks, 0).astype(np.uint8), slices.table)


def _notice(text: str = "images of real patients: only in the executed notebook") -> Figure:
    """What a figure says that may not, or cannot, show anything."""
    figure, axis = plt.subplots(figsize=(5, 0.8))
    axis.text(0.5, 0.5, text, ha="center", va="center")
    axis.axis("off")
    return figure


def _write(stem: Path, figure: Figure) -> Figure:
    figure.savefig(stem.with_suffix(".png"), metadata={"Software": None})
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    return figure


def slice_grid(rows: Mapping[str, Slices], *, outline: bool = True, titles: Sequence[str] = ()) -> Figure:
    """One row of images per entry, the label map outlined where there is one."""
    columns = max(len(s) for s in rows.values())
    figure, axes = plt.subplots(len(rows), columns, figsize=(1.35 * columns + 0.8, 1.42 * len(rows) + 0.2), squeeze=False)
    for line, (label, slices) in zip(axes, rows.items(), strict=True):
        for axis in line:
            axis.set(xticks=[], yticks=[])
            sns.despine(ax=axis, left=True, bottom=True)
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
        for axis, image, mask in zip(line, slices.images, slices.masks):
            show(axis, image[0], mask if outline else None)
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize="small")
    return figure


def show(axis: plt.Axes, image: np.ndarray, mask: np.ndarray | None = None) -> None:
    """One image (H, W) in [−1, 1], with the outlines of its label map."""
    axis.imshow(image, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    # The wall is outlined together with its cavity, so that the line between the two stays red.
    parts = () if mask is None else ((mask == 1) | (mask == 2), mask == 1, mask == 3)
    for part, colour in zip(parts, (LABEL_COLOURS[1], LABEL_COLOURS[0], LABEL_COLOURS[2])):
        if part.any():
            axis.contour(part, levels=[0.5], colors=[colour], linewidths=0.8)
    axis.set(xticks=[], yticks=[])


def score_plot(table: pd.DataFrame, *, y: str = "system", metric: str | None = None) -> Figure:
    """Values with 95 % intervals, one panel per metric; dashed line: floor (real against real); dotted: ceiling.

    Systems stand one below the other, coloured by family where the table names it. An empty table gives a notice.
    """
    if table.empty:
        return _notice("nothing in this cohort to measure it on")
    metrics = [metric] if metric else list(table["metric"].unique())
    systems = list(table[y].unique())
    wide = min(4, len(metrics))
    high = -(-len(metrics) // wide)
    figure, axes = plt.subplots(high, wide, figsize=(2.9 * wide + 1.5, (0.24 * len(systems) + 1.1) * high), squeeze=False,
                                sharey=True)
    kinds = list(table["family"].unique()) if "family" in table else systems
    colour = dict(zip(kinds, sns.color_palette(n_colors=len(kinds))))
    for axis in axes.flat[len(metrics):]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, metrics):
        rows = table[table["metric"] == name]
        for _, row in rows.iterrows():
            error = [[max(0.0, row["value"] - row["low"])], [max(0.0, row["high"] - row["value"])]]
            axis.errorbar(row["value"], systems.index(row[y]), xerr=error, fmt="o", ms=4, capsize=2,
                          color=colour[row["family"] if "family" in table else row[y]])
        for column, style in (("floor", "--"), ("ceiling", ":")):
            if rows[column].notna().any():
                axis.axvline(rows[column].mean(), ls=style, color=REAL_COLOUR, lw=1, label=column)
        if rows["value"].max() > 20 * max(1e-3, rows["value"].abs().median()):
            axis.set_xscale("symlog", linthresh=max(1e-2, float(rows["value"].abs().median())))
        axis.set(title=f"{name} ({rows['better'].iloc[0]} is better)", ylim=(len(systems) - 0.4, -0.6))
        axis.set_yticks(range(len(systems)), systems, fontsize="small")
        axis.title.set_fontsize("small")
    axes.flat[0].legend(fontsize="x-small")
    return figure


def heat_map(table: pd.DataFrame) -> Figure:
    """Metrics × corruptions: response in standard deviations between groups of real patients; a dot where the value
    lies beyond what real groups show. Colours saturate at 10."""
    response = table.pivot(index="metric", columns="corruption", values="response")
    order = list(dict.fromkeys(table["metric"])), list(dict.fromkeys(table["corruption"]))
    response = response.loc[order[0], order[1]]
    beyond = table.pivot(index="metric", columns="corruption", values="beyond").loc[order[0], order[1]]
    marks = response.map(lambda v: f"{v:.1f}" if abs(v) < 99.5 else f"{v:.0f}") + beyond.map(lambda b: " •" if b else "")
    figure, axis = plt.subplots(figsize=(0.9 * len(order[1]) + 3, 0.32 * len(order[0]) + 1.4))
    sns.heatmap(response.clip(-10, 10), annot=marks, fmt="", cmap="vlag", center=0, vmin=-10, vmax=10, ax=axis,
                annot_kws={"size": 7}, cbar_kws={"label": "response / spread between real groups"})
    axis.set(xlabel="", ylabel="")
    axis.tick_params(axis="x", rotation=35)
    return figure


def publish_images(study: Study, name: str, rows: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """A grid of images (H, W) of real patients, row → column → image, each shown on its own intensity range.

    Its CSV lists row, column and intensity statistics. Only the phantom's are written to files.
    """
    tiles = pd.DataFrame([{"row": row, "column": column, "min": image.min(), "mean": image.mean(), "max": image.max()}
                          for row, images in rows.items() for column, image in images.items()])
    columns = list(dict.fromkeys(tiles["column"]))
    figure, axes = plt.subplots(len(rows), len(columns), figsize=(1.8 * len(columns) + 0.8, 1.85 * len(rows) + 0.2),
                                squeeze=False)
    for line, (row, images) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(row, rotation=0, ha="right", va="center")
        for axis, column in zip(line, columns, strict=True):
            axis.set(xticks=[], yticks=[])
            axis.imshow(images[column], cmap="gray", interpolation="nearest")
    for axis, column in zip(axes[0], columns, strict=True):
        axis.set_title(column)
    study.figures.mkdir(parents=True, exist_ok=True)
    tiles.to_csv(study.figures / f"{name}.csv", index=False, float_format="%.6g")
    if study.dataset == "phantom":
        return _write(study.figures / name, figure)
    plt.close(_write(study.figures / name, _notice()))
    return figure


def scoreboard(table: pd.DataFrame) -> Figure:
    """Systems × metrics: the value with its interval; green where the interval reaches what real patients score."""
    metrics, systems = list(dict.fromkeys(table["metric"])), list(dict.fromkeys(table["system"]))
    figure, axis = plt.subplots(figsize=(1.5 * len(metrics) + 2.2, 0.55 * len(systems) + 1.6))
    axis.set(xlim=(0, len(metrics)), ylim=(len(systems), 0), yticks=np.arange(len(systems)) + 0.5, yticklabels=systems)
    axis.set_xticks(np.arange(len(metrics)) + 0.5, metrics, rotation=25, ha="left", fontsize="small")
    axis.xaxis.tick_top()
    axis.grid(False)
    for row in table[table["value"].notna()].itertuples():
        x, y = metrics.index(row.metric), systems.index(row.system)
        axis.add_patch(plt.Rectangle((x, y), 1, 1, color=_place(row), lw=0))
        interval = f"\n[{row.low:.3g}, {row.high:.3g}]" if np.isfinite(row.low) else ""
        axis.text(x + 0.5, y + 0.5, f"{row.value:.3g}{interval}", ha="center", va="center", fontsize="x-small")
    return figure


def _place(row: tuple) -> str:
    """Colour of a cell of the scoreboard."""
    real = row.ceiling if row.axis == "anatomy" else row.floor  # adherence is read against the segmenter's own Dice
    if row.system == "real" or not np.isfinite(real):
        return "#f2f2f2"
    return "#b7e4c7" if (row.low <= real if row.better == "lower" else row.high >= real) else "#fff3bf"


def coverage(table: pd.DataFrame) -> Figure:
    """One square per system and per claim of the review, filled where this study has measured it."""
    figure, axes = plt.subplots(2, 1, figsize=(11, 2.4))
    for axis, (kind, part) in zip(axes, table.groupby("kind", sort=False)):
        for x, row in enumerate(part.itertuples()):
            axis.add_patch(plt.Rectangle((x, 0), 0.9, 0.9, color="#2a9d8f" if row.done else "#dddddd", lw=0))
            axis.text(x + 0.45, 0.45, row.id, ha="center", va="center", fontsize="x-small")
        axis.set(xlim=(0, 30), ylim=(0, 0.9), xticks=[], yticks=[], title=f"{kind}s: {int(part['done'].sum())} of {len(part)}")
        sns.despine(ax=axis, left=True, bottom=True)
    return figure
