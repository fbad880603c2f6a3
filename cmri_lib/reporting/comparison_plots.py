"""Figures of the comparison review: the taxonomy, who reports what, fronts of two metrics, the scoreboard, and what has been
measured."""

from __future__ import annotations

import re
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from cmri_lib.reporting import metrics, review
from cmri_lib.reporting.comparison import CONDITIONS
from cmri_lib.reporting.figures import (FAMILY_COLOURS, NORMAL, PAGE, REAL_COLOUR, SMALL, legend_below, notice, real_values,
                                        wrapped)
from cmri_lib.reporting.review import FAMILIES

#: Of what has not been measured.
PALE = "#9a9a9a"
#: Metrics that are drawn on a logarithmic axis.
LOGARITHMIC = ("seconds_per_image",)
LINE = 0.16  # inches of a line of the taxonomy


def taxonomy(table: pd.DataFrame) -> Figure:
    """Families across, conditions down; a system has the colour of its family where it is measured, else it is grey.

    Args:
        table: id, system, family, condition, measured.
    """
    wide = (PAGE - 1.3) / len(FAMILIES)
    lines = {key: [(wrapped(f"{row.id} {row.system}", wide), row.measured) for row in part.itertuples()]
             for key, part in table.groupby(["condition", "family"], sort=False)}
    tall = [0.12 + LINE * max((sum(text.count("\n") + 1 for text, _ in lines.get((condition, family), []))
                               for family in FAMILIES), default=1) for condition in CONDITIONS]
    tops = np.cumsum([0.3, *tall])
    figure, axis = plt.subplots(figsize=(PAGE, tops[-1] + 0.5), layout="constrained")
    axis.set(xlim=(-1.3, wide * len(FAMILIES)), ylim=(tops[-1], 0))
    axis.axis("off")
    for column, family in enumerate(FAMILIES):
        axis.text(wide * column + 0.05, 0.15, family, weight="bold", fontsize=NORMAL, va="center", color=FAMILY_COLOURS[family])
    for condition, top, below in zip(CONDITIONS, tops, tops[1:]):
        axis.axhline(top, color="#d0d0d0", lw=0.8)
        axis.text(-1.25, (top + below) / 2, wrapped(condition, 1.2), fontsize=NORMAL, va="center")
        for column, family in enumerate(FAMILIES):
            place = top + 0.06
            for text, measured in lines.get((condition, family), []):
                axis.text(wide * column + 0.05, place, text, fontsize=SMALL, va="top",
                          color=FAMILY_COLOURS[family] if measured else PALE)
                place += LINE * (text.count("\n") + 1)
    return figure


def completeness(table: pd.DataFrame) -> Figure:
    """Bars: the share of the reviewed studies, and of the systems of this study, with results on each axis;
    – where nobody counted.

    Args:
        table: axis, of, share.
    """
    axes, kinds = (list(dict.fromkeys(table[c])) for c in ("axis", "of"))
    axes = [axis for axis in metrics.AXES if axis in axes]
    figure, plot = plt.subplots(figsize=(0.62 * PAGE, 2.9), layout="constrained")
    colours = dict(zip(kinds, (PALE, FAMILY_COLOURS["flow"])))
    for place, kind in enumerate(kinds):
        part = table[table["of"] == kind].set_index("axis")["share"].reindex(axes)
        at = np.arange(len(axes)) + 0.38 * (place - (len(kinds) - 1) / 2)
        bars = plot.bar(at, part.fillna(0), 0.36, color=colours[kind], label=kind)
        plot.bar_label(bars, ["–" if np.isnan(share) else f"{share:.0%}" for share in part], fontsize=SMALL, padding=2)
    plot.set_xticks(range(len(axes)), axes, fontsize=NORMAL)
    plot.set(ylim=(0, 1.12), yticks=(0, 0.5, 1), yticklabels=("0 %", "50 %", "100 %"))
    plot.set_ylabel("share with results", fontsize=SMALL)
    legend_below(figure, {kind: Line2D([], [], color=colour, marker="s", ls="") for kind, colour in colours.items()})
    return figure


def fronts(table: pd.DataFrame) -> Figure:
    """A panel for each pair of metrics: a dot per system, ringed, numbered and with its intervals where no other system is
    better in both; the names of these below the panel.

    Args:
        table: that of `comparison.fronts`.
    """
    if table.empty:
        return notice("no system has two of these metrics")
    pairs = list(dict.fromkeys(zip(table["x_metric"], table["y_metric"])))
    columns = min(2, len(pairs))
    rows = -(-len(pairs) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(PAGE * columns / 2, 3.8 * rows), squeeze=False, layout="constrained")
    for axis, (x, y) in zip(axes.flat, pairs):
        part = table[(table["x_metric"] == x) & (table["y_metric"] == y)]
        axis.scatter(part["x"], part["y"], s=26, c=[FAMILY_COLOURS.get(f, REAL_COLOUR) for f in part["family"]], zorder=3)
        best = part[part["front"].astype(bool)].sort_values("x")
        for row in best.itertuples():
            style = {"color": FAMILY_COLOURS.get(row.family, REAL_COLOUR), "lw": 0.8, "zorder": 2}
            axis.plot([row.x_low, row.x_high], [row.y, row.y], **style)
            axis.plot([row.x, row.x], [row.y_low, row.y_high], **style)
        axis.plot(best["x"], best["y"], color=PALE, lw=0.8, ls=":", zorder=1)
        axis.scatter(best["x"], best["y"], s=90, facecolors="none", edgecolors=REAL_COLOUR, lw=1, zorder=4)
        if y in LOGARITHMIC:
            axis.set_yscale("log")
        for place, row in enumerate(best.itertuples(), 1):
            axis.annotate(f"{place}", (row.x, row.y), (5, 5), textcoords="offset points", fontsize=NORMAL, weight="bold")
        axis.margins(0.12)
        named = ", ".join(f"{place}\N{NO-BREAK SPACE}{review.system(name)}" for place, name in enumerate(best["system"], 1))
        axis.set_xlabel(f"{metrics.label(x)}\n{wrapped(named, PAGE / 2 - 0.6)}", fontsize=SMALL)
        axis.set_title(metrics.label(y), fontsize=NORMAL)
        axis.tick_params(labelsize=SMALL)
    for axis in list(axes.flat)[len(pairs):]:
        axis.axis("off")
    known = [family for family in FAMILY_COLOURS if family in set(table["family"])]
    legend_below(figure, {f: Line2D([], [], color=FAMILY_COLOURS[f], marker="o", ls="", ms=5) for f in known}
                 | {"no other is better in both": Line2D([], [], color=REAL_COLOUR, marker="o", mfc="none", ls="", ms=8)})
    return figure


#: A cell of the scoreboard: the interval reaches what real images score, or does not; nothing to compare with.
REACHES, MISSES, PLAIN, MISSING = "#b7e4c7", "#fff3bf", "#f2f2f2", "#e4e4e4"
#: Inches: a row of the scoreboard, its head, the columns of families and of systems.
ROW, HEAD, FAMILY, SYSTEM = 0.3, 0.85, 0.75, 2.5


def scoreboard(table: pd.DataFrame) -> Figure:
    """Systems × headline metrics, in panels of at most ten columns under the headings of `metrics.AXES`.

    A cell shows the value with its 95 % interval; its colour says whether the interval reaches what real images score. A
    system without hearts (`review.without_hearts`) is grey: it reaches nothing. So are valid hearts that cannot be judged;
    a note says so. Systems stand in groups, the unconditional first, then by family, then by the first metric.
    """
    table = table[table["value"].notna()].drop_duplicates(["system", "metric"])
    groups = metrics.panels(metrics.headline(table["metric"]))
    if not groups:
        return notice("no headline metric has been measured")
    systems = review.in_order(table, table[table["metric"] == groups[0][0]].set_index("system")["value"])
    parts = [systems[systems["system"].isin(table.loc[table["metric"].isin(g), "system"])] for g in groups]
    heights = [HEAD + ROW * (len(part) + part["kind"].nunique() + 1.6) for part in parts]
    note = review.hearts_note(table)
    size = PAGE, sum(heights) + (0.55 if note else 0.35)
    figure, axes = plt.subplots(len(groups), 1, figsize=size, squeeze=False, layout="constrained", height_ratios=heights)
    for axis, group, part, height in zip(axes[:, 0], groups, parts, heights, strict=True):
        axis.set(xlim=(0, PAGE), ylim=(height, 0))
        axis.axis("off")
        _board(axis, table, group, part)
    words = {"95 % interval reaches what real images score": REACHES, "does not reach it": MISSES,
             "real images, no hearts, or nothing to compare with": PLAIN, "not measured, or does not apply": "white"}
    legend_below(figure, {text: Patch(fc=colour, ec="#bbbbbb") for text, colour in words.items()}, note)
    return figure


def _board(axis: plt.Axes, table: pd.DataFrame, group: Sequence[str], systems: pd.DataFrame) -> None:
    """One panel of the scoreboard, on axes in inches."""
    wide, heartless = (PAGE - FAMILY - SYSTEM) / max(len(group), 7), review.without_hearts(table)
    left = {name: FAMILY + SYSTEM + wide * place for place, name in enumerate(group)}
    middle, style = {"ha": "center", "fontsize": SMALL}, {"va": "center", "fontsize": SMALL, "linespacing": 1}
    cells = {(row.system, row.metric): row for row in table.itertuples()}
    axes = [metrics.describe(name).axis for name in group]
    for heading in dict.fromkeys(axes):
        start, size = left[group[axes.index(heading)]], wide * axes.count(heading)
        axis.add_patch(plt.Rectangle((start + 0.02, 0.02), size - 0.04, 0.24, color="#555555"))
        axis.text(start + size / 2, 0.14, heading, color="white", va="center", weight="bold", **middle)
    axis.text(FAMILY, HEAD + ROW / 2, review.system("real"), **style)
    for name in group:
        rows = table[table["metric"] == name]
        head = wrapped(f"{metrics.short(name)} {metrics.arrow(name, rows['better'].iloc[0])}", wide)
        axis.text(left[name] + wide / 2, HEAD - 0.05, head, va="bottom", **middle)
        for text in ([_cell_text(name, cells["real", name])] if ("real", name) in cells else
                     [metrics.number(name, value) for value in real_values(rows, name)]):
            _cell(axis, left[name], HEAD, wide, PLAIN, text)
    top, kind, family = HEAD + ROW, None, None
    for row in systems.itertuples():
        if row.kind != kind:
            kind, family = row.kind, None
            axis.text(0.03, top + ROW - 0.06, kind, va="bottom", fontsize=NORMAL, weight="bold")
            top += ROW
        if row.family != family:
            family = row.family
            axis.plot([0, left[group[-1]] + wide], [top, top], color="#888888", lw=0.8)
            axis.text(0.03, top + ROW / 2, wrapped(family, FAMILY), **style)
        remarks = ([] if row.free else [review.system(row.conditioning)]) + ["no hearts"] * (row.system in heartless)
        axis.text(FAMILY, top + ROW / 2, "\n".join(filter(None, (review.system(row.system), ", ".join(remarks)))), **style)
        for name in group:
            if found := cells.get((row.system, name)):
                _cell(axis, left[name], top, wide, PLAIN if row.system in heartless else _cell_colour(name, found),
                      _cell_text(name, found))
        top += ROW


def _cell(axis: plt.Axes, left: float, top: float, wide: float, colour: str, text: str) -> None:
    axis.add_patch(plt.Rectangle((left, top), wide, ROW, facecolor=colour, edgecolor="white", lw=0.8))
    axis.text(left + wide / 2, top + ROW / 2, text, ha="center", va="center", fontsize=SMALL, linespacing=1.0)


def _cell_colour(name: str, row: tuple) -> str:
    return {None: PLAIN, True: REACHES, False: MISSES}[review.reaches(row, name)]


def _cell_text(name: str, row: tuple) -> str:
    """The value, and its interval below, without zeros before a point, or they would not fit; none of times, a few repeats."""
    low, value, high = (metrics.number(name, number) for number in (row.low, row.value, row.high))
    return re.sub(r"\b0\.", ".", f"{value}\n[{low}, {high}]" if low and metrics.describe(name).axis != "cost" else value)


def coverage(table: pd.DataFrame) -> Figure:
    """Every system and every claim of the review by name, coloured where this study has measured it."""
    boxes = []
    for kind, part in table.groupby("kind", sort=False):
        wide = 4 if part["text"].str.len().max() < 45 else 2
        lines = [wrapped(f"{row.id}  {row.text}", 1.1 * PAGE / wide - 0.1) for row in part.itertuples()]
        rows = -(-len(part) // wide)
        high = [0.24 + 0.13 * max(text.count("\n") for text in lines[row::rows]) for row in range(rows)]
        boxes.append((kind, part, wide, lines, np.cumsum([0.3, *high])))
    heights = [tops[-1] for *_, tops in boxes]
    size = PAGE, sum(heights) + 0.4
    figure, axes = plt.subplots(len(boxes), 1, figsize=size, squeeze=False, layout="constrained", height_ratios=heights)
    for axis, (kind, part, wide, lines, tops) in zip(axes[:, 0], boxes, strict=True):
        axis.set(xlim=(0, wide), ylim=(tops[-1], 0))
        axis.axis("off")
        head = f"{kind.capitalize()}s of the review: {part['done'].sum()} of {len(part)} measured"
        axis.text(0, 0.13, head, va="center", fontsize=NORMAL, weight="bold")
        for place, (text, done) in enumerate(zip(lines, part["done"])):
            x, row = divmod(place, len(tops) - 1)
            top, below = tops[row:row + 2]
            colour, middle = REACHES if done else MISSING, (top + below) / 2 - 0.01
            axis.add_patch(plt.Rectangle((x, top), 0.99, below - top - 0.02, fc=colour, lw=0))
            axis.text(x + 0.005 * wide, middle, text, va="center", fontsize=SMALL, linespacing=1.0)
    legend_below(figure, {"measured": Patch(color=REACHES), "not yet": Patch(color=MISSING)})
    return figure
