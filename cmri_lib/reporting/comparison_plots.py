"""Figures of the comparison review: the taxonomy, who reports what, and fronts of two metrics."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cmri_lib.reporting import metrics, review
from cmri_lib.reporting.comparison import CONDITIONS
from cmri_lib.reporting.figures import FAMILY_COLOURS, NORMAL, PAGE, REAL_COLOUR, SMALL, legend_below, notice, wrapped
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
