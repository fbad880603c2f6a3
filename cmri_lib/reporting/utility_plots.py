"""Figures of the utility study: the forest of all arms, what foretells utility, curves over patients, Bland-Altman plots,
groups of slices.

Differences are to a segmenter that has learnt from the same patients' real slices alone, unless another is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cmri_lib.reporting import metrics
from cmri_lib.reporting.axes import edges_of, interval, point_beyond, set_ticks, without_constants
from cmri_lib.reporting.figures import (CHARACTER, FAMILY_COLOURS, NORMAL, PAGE, REAL_COLOUR, SHADED, SMALL, legend_below,
                                        notice, system_colour, wrapped)
from cmri_lib.reporting.plots import MARKERS

#: Inches of a row of the forest.
ROW = 0.21
#: Panels of `by_group` that stand side by side; more stand in two lines.
MOST_KINDS = 4


def forest(table: pd.DataFrame, reference: str = "real alone") -> Figure:
    """Differences with their intervals, a panel per metric, arms one below the other under the heading of what is varied.

    Args:
        table: group, arm, family, metric, value, low, high, better.
        reference: what all are compared with.
    """
    table, same = without_constants(table[table["value"].notna()])
    if table.empty:
        return notice("no arm has been measured")
    names, lines = list(dict.fromkeys(table["metric"])), []
    for group, part in table.groupby("group", sort=False):
        lines += [(group, None), *((group, arm) for arm in dict.fromkeys(part["arm"]))]
    margin = 0.3 + CHARACTER * max(len(arm or f"{group}") for group, arm in lines)
    width = min(3.4, (PAGE - margin) / len(names))
    size = margin + width * len(names), ROW * len(lines) + 1.3
    figure, axes = plt.subplots(1, len(names), figsize=size, squeeze=False, sharey=True, layout="constrained")
    for axis, name in zip(axes[0], names):
        _forest_panel(axis, table[table["metric"] == name], name, lines, reference, width - 0.3)
    axes[0, 0].set_yticks(range(len(lines)), [f"{arm or group}" for group, arm in lines], fontsize=SMALL)
    for label, (_, arm) in zip(axes[0, 0].get_yticklabels(), lines):
        label.set_weight("normal" if arm else "bold")
    axes[0, 0].set_ylim(len(lines) - 0.4, -0.6)
    families = list(dict.fromkeys(table["family"]))
    dots = {f: Line2D([], [], color=FAMILY_COLOURS.get(f, REAL_COLOUR), marker="o", ls="", ms=4) for f in families}
    legend_below(figure, dots if len(dots) > 1 else {}, same)
    return figure


def _forest_panel(axis: plt.Axes, rows: pd.DataFrame, name: str, lines: Sequence[tuple[str, str | None]],
                  reference: str, width: float) -> None:
    values, low, high = (rows[c].to_numpy(float) for c in ("value", "low", "high"))
    axis.set_xlim(*edges_of(values, low, high, [0.0]))
    first, last = axis.get_xlim()
    for row in rows.itertuples():
        place, colour = lines.index((row.group, row.arm)), FAMILY_COLOURS.get(row.family, REAL_COLOUR)
        if first <= row.value <= last:
            axis.errorbar(row.value, place, xerr=interval(row), fmt="o", ms=4, capsize=2, color=colour)
        else:
            point_beyond(axis, place, metrics.number(name, row.value), row.value > last, colour)
    axis.axvline(0, color=REAL_COLOUR, lw=1, ls="--", zorder=1)
    axis.set_xlabel(f"difference to {reference}\n{rows['better'].iloc[0]} is better", fontsize=SMALL)
    axis.set_title(wrapped(metrics.short(name), width), fontsize=NORMAL)
    axis.xaxis.set_major_locator(MaxNLocator(max(2, int(width / 0.6)), steps=[1, 2, 5, 10]))
    axis.tick_params(labelsize=SMALL)


def foretold(table: pd.DataFrame) -> Figure:
    """Utility of systems against measures that train no segmenter, a panel each: colours are families, marks what labels the
    samples. Above each panel stands the rank correlation within each kind of labels, with its interval.

    Args:
        table: system, family, labels, metric, better, value (of the measure), dice (of the segmenter that was taught),
            and correlation, low, high, n within these labels.
    """
    if table.empty:
        return notice("too few systems have both a utility and another score")
    names, sources = (list(dict.fromkeys(table[c])) for c in ("metric", "labels"))
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(PAGE, 2.9 * lines + 0.6), squeeze=False, sharey=True,
                                layout="constrained")
    for axis in axes.flat[len(names):]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, names):
        part = table[table["metric"] == name]
        for (family, source), some in part.groupby(["family", "labels"], sort=False):
            axis.scatter(some["value"], some["dice"], s=22, color=FAMILY_COLOURS.get(family, REAL_COLOUR),
                         marker=MARKERS[sources.index(source) % len(MARKERS)], alpha=0.85)
        heads = [f"{row.labels.split()[0]}: ρ = {row.correlation:.2f} [{row.low:.2f}, {row.high:.2f}], n = {row.n}"
                 for row in part.drop_duplicates("labels").itertuples()]
        axis.set_title("\n".join(heads), fontsize=SMALL)
        axis.set_xlabel(wrapped(f"{metrics.title(name)} {metrics.arrow(name, part['better'].iloc[0])}", PAGE / columns - 0.5),
                        fontsize=SMALL)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.tick_params(labelsize=SMALL)
    for axis in axes[:, 0]:
        axis.set_ylabel("Dice on real test patients", fontsize=SMALL)
    dot = partial(Line2D, [], [], ls="", ms=4)
    families = {name: dot(color=FAMILY_COLOURS.get(name, REAL_COLOUR), marker="o") for name in dict.fromkeys(table["family"])}
    marks = {source: dot(color=REAL_COLOUR, marker=MARKERS[k % len(MARKERS)]) for k, source in enumerate(sources)}
    legend_below(figure, families | marks)
    return figure


def over_patients(table: pd.DataFrame) -> Figure:
    """Metrics against the number of real patients, on a logarithmic axis; one line per kind of training set.

    Args:
        table: kind, patients, metric, value, low, high, better.
    """
    table, same = without_constants(table)
    if table.empty:
        return notice("no arm has been measured")
    names, kinds = list(dict.fromkeys(table["metric"])), list(dict.fromkeys(table["kind"]))
    colours = [REAL_COLOUR, *sns.color_palette("colorblind", max(1, len(kinds) - 1)).as_hex()]
    figure, axes = plt.subplots(1, len(names), figsize=(min(PAGE, 4.4 * len(names)), 3.6), squeeze=False,
                                layout="constrained")
    for axis, name in zip(axes[0], names):
        part = table[table["metric"] == name]
        for place, kind in enumerate(kinds):
            line = part[part["kind"] == kind].sort_values("patients")
            axis.errorbar(line["patients"] * 1.02 ** (place - (len(kinds) - 1) / 2), line["value"], interval(line), ms=4,
                          lw=1.4, capsize=2, elinewidth=0.9, color=colours[place], marker=MARKERS[place % len(MARKERS)])
        axis.set(xscale="log", xlim=(part["patients"].min() / 1.15, part["patients"].max() * 1.15))
        set_ticks(axis, "x", 3.8, sorted(set(part["patients"])))
        axis.set_xlabel("real training patients", fontsize=NORMAL)
        axis.set_ylabel(f"{part['better'].iloc[0]} is better", fontsize=SMALL)
        axis.set_title(metrics.short(name), fontsize=NORMAL)
        axis.tick_params(labelsize=SMALL)
    legend_below(figure, {kind: Line2D([], [], color=colour, marker=MARKERS[k % len(MARKERS)], ms=4)
                          for k, (kind, colour) in enumerate(zip(kinds, colours))}, same)
    return figure


def agreement_plot(table: pd.DataFrame) -> Figure:
    """Bland-Altman: error against the mean of truth and prediction; arms across, indices of function down.

    Args:
        table: arm, index (in words, with unit), mean, error, bias, lower, upper: one row per scan.
    """
    if table.empty:
        return notice("no index of heart function can be measured on this cohort")
    arms, indices = (list(dict.fromkeys(table[c])) for c in ("arm", "index"))
    size = min(PAGE, 0.6 + 2.6 * len(arms)), 1.9 * len(indices) + 0.5
    figure, axes = plt.subplots(len(indices), len(arms), figsize=size, squeeze=False, sharex="row", sharey="row",
                                layout="constrained")
    for (index, arm), part in table.groupby(["index", "arm"], sort=False):
        axis = axes[indices.index(index), arms.index(arm)]
        axis.scatter(part["mean"], part["error"], s=9, color=FAMILY_COLOURS["flow"], alpha=0.7)
        axis.axhline(0, color=REAL_COLOUR, lw=0.8)
        for name, style in (("bias", "-"), ("lower", "--"), ("upper", "--")):
            axis.axhline(part[name].iloc[0], color=FAMILY_COLOURS["VAE"], lw=1, ls=style)
        bias, lower, upper = (part[c].iloc[0] for c in ("bias", "lower", "upper"))
        axis.set_title(f"bias {bias:+.1f}, limits {lower:+.1f} to {upper:+.1f}\nn = {len(part)} scans", fontsize=SMALL)
        axis.tick_params(labelsize=SMALL)
    for axis, index in zip(axes[:, 0], indices):
        axis.set_ylabel(f"{wrapped(index, 1.6)}\npredicted − true", fontsize=SMALL)
    for axis, arm in zip(axes[-1], arms):
        axis.set_xlabel("mean of true and predicted", fontsize=SMALL)
    for axis, arm in zip(axes[0], arms):
        axis.set_title(f"{wrapped(arm, 2.4)}\n{axis.get_title()}", fontsize=SMALL)
    lines = {"bias": "-", "limits of agreement": "--"}
    legend_below(figure, {text: Line2D([], [], color=FAMILY_COLOURS["VAE"], ls=style, lw=1) for text, style in lines.items()})
    return figure


def read_against_truth(table: pd.DataFrame) -> Figure:
    """What networks read against the truth, a panel per arm; the line is where both agree, the number the mean absolute error.

    Args:
        table: arm, true, predicted (% points of EF): one row per scan.
    """
    if table.empty:
        return notice("no ejection fraction can be measured on this cohort")
    arms = list(dict.fromkeys(table["arm"]))
    width = min(PAGE, 2.4 * len(arms) + 0.4)
    figure, axes = plt.subplots(1, len(arms), figsize=(width, width / len(arms) + 1.4), squeeze=False, sharex=True,
                                sharey=True, layout="constrained")
    ends = [table[["true", "predicted"]].min().min() - 3, table[["true", "predicted"]].max().max() + 3]
    for axis, arm in zip(axes[0], arms):
        part = table[table["arm"] == arm]
        axis.plot(ends, ends, color=REAL_COLOUR, lw=0.8)
        axis.scatter(part["true"], part["predicted"], s=9, color=FAMILY_COLOURS["flow"], alpha=0.7)
        error = (part["predicted"] - part["true"]).abs().mean()
        axis.set_title(f"{wrapped(arm, width / len(arms) - 0.4)}\nmean absolute error: {error:.1f} % points", fontsize=SMALL)
        axis.set(xlim=ends, ylim=ends, aspect="equal")
        axis.set_xlabel("true EF (%)", fontsize=SMALL)
        axis.tick_params(labelsize=SMALL)
    axes[0, 0].set_ylabel("EF as read (%)", fontsize=SMALL)
    return figure


def by_group(table: pd.DataFrame, measured: str = "Dice, mean of the structures", guessing: float | None = None) -> Figure:
    """A score by group of patients or slices (disease, level, phase …): a panel per kind of group, one mark per arm.

    Args:
        table: kind, group, n, arm, value, low, high.
        measured: what the score is.
        guessing: the score of whoever guesses, a dotted line; where there is one, no arm is that of real slices.
    """
    if table.empty:
        return notice("no group has enough patients")
    kinds, arms = (list(dict.fromkeys(table[c])) for c in ("kind", "arm"))
    lines = np.array_split(kinds, 1 if len(kinds) <= MOST_KINDS else 2)
    figure = plt.figure(figsize=(PAGE, 0.6 + 2.8 * len(lines)), layout="constrained")
    colours = sns.color_palette("colorblind", len(arms)).as_hex()
    if guessing is None:
        colours = [REAL_COLOUR, *colours[:-1]]
    systems = [str(arm).split(": ")[0] for arm in arms]  # of an audit: "system: attack"
    if set(systems) <= {name for shaded in SHADED.values() for name in shaded}:
        colours = list(map(system_colour, systems))
    first = None  # all lines have one axis
    for part, line in zip(figure.subfigures(len(lines), 1, squeeze=False)[:, 0], lines):
        shares = [table.loc[table["kind"] == kind, "group"].nunique() + 0.6 for kind in line]
        axes = part.subplots(1, len(line), squeeze=False, sharey=True, width_ratios=shares)[0]
        if first is not None:
            axes[0].sharey(first)
        first = axes[0]
        axes[0].set_ylabel(measured, fontsize=SMALL)
        for axis, kind in zip(axes, line):
            if guessing is not None:
                axis.axhline(guessing, ls=":", color="0.5", lw=1)
            _groups(axis, table[table["kind"] == kind], kind, arms, colours, 0.9 * PAGE / sum(shares))
    legend_below(figure, {arm: Line2D([], [], color=c, marker=MARKERS[k % len(MARKERS)], ls="", ms=4)
                          for k, (arm, c) in enumerate(zip(arms, colours))})
    return figure


def _groups(axis: plt.Axes, part: pd.DataFrame, kind: str, arms: Sequence[str], colours: Sequence[str], room: float) -> None:
    """One panel of `by_group`; a group has `room` inches."""
    groups = list(dict.fromkeys(part["group"]))
    for row in part.itertuples():
        place = arms.index(row.arm)
        axis.errorbar(groups.index(row.group) + 0.14 * (place - (len(arms) - 1) / 2), row.value, interval(row), ms=4,
                      capsize=2, fmt=MARKERS[place % len(MARKERS)], color=colours[place])
    counts = part.drop_duplicates("group").set_index("group")["n"]
    axis.set_xticks(range(len(groups)), [f"{wrapped(str(g), room)}\nn = {counts[g]}" for g in groups], fontsize=SMALL)
    axis.set_xlim(-0.6, len(groups) - 0.4)
    axis.set_title(kind, fontsize=NORMAL)
    axis.tick_params(labelsize=SMALL)
