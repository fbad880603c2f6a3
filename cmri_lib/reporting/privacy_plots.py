"""Plots of the privacy audits: attacks × systems with their controls, curves at low false-positive rates,
recall of copies."""

from __future__ import annotations

from itertools import accumulate

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cmri_lib.reporting.axes import interval
from cmri_lib.reporting.figures import NORMAL, PAGE, SMALL, legend_below, notice, system_colour, wrapped
from cmri_lib.reporting.plots import MARKERS
from cmri_lib.reporting.privacy_metrics import ATTACKS


def attack_map(table: pd.DataFrame) -> Figure:
    """Systems and controls × attacks: AUC, 0.5 white; a dot where the interval lies above one half, a ring where it lies below.
    Columns: system, metric, value, low, high."""
    part = table[table["metric"].str.startswith("attack_auc_") & ~table["metric"].str.startswith("attack_auc_max_")]
    if part.empty:
        return notice("no attack was mounted")
    part = part.assign(attack=part["metric"].str.removeprefix("attack_auc_"))
    systems, found = list(dict.fromkeys(part["system"])), set(part["attack"])
    attacks = [a for a in ATTACKS if a in found]
    wide, low, high = (part.pivot_table(c, "system", "attack").reindex(systems, columns=attacks)
                       for c in ("value", "low", "high"))
    shown = wide.map(lambda v: "" if np.isnan(v) else f"{v:.2f}")
    text = shown + (low > 0.5).replace({True: " •", False: ""}) + (high < 0.5).replace({True: " ◦", False: ""})
    figure, axis = plt.subplots(figsize=(PAGE, 0.3 * len(systems) + 2.3), layout="constrained")
    axis.patch.set(facecolor="white", edgecolor="0.85", hatch="////")  # no value can be taken for it
    axis.grid(False)
    sns.heatmap(wide, annot=text, fmt="", cmap="vlag", vmin=0, vmax=1, center=0.5, ax=axis,
                annot_kws={"size": SMALL}, linewidths=0.5,
                cbar_kws={"location": "bottom", "aspect": 50, "shrink": 0.6, "pad": 0.02})
    scale = axis.collections[0].colorbar
    scale.set_label("AUC; 0.5: guessing; the interval over patients lies above it (•) or below (◦); "
                    "hatched: does not apply", fontsize=SMALL)
    scale.ax.tick_params(labelsize=SMALL)
    axis.xaxis.tick_top()
    labels = [wrapped(ATTACKS[a], 1.25) for a in attacks]
    axis.set_xticks(np.arange(len(attacks)) + 0.5, labels, fontsize=SMALL, rotation=90)
    axis.set_yticks(np.arange(len(systems)) + 0.5, [wrapped(s, 3.2) for s in systems], fontsize=SMALL,
                    rotation=0)
    axis.set(xlabel="", ylabel="")
    axis.tick_params(length=0)
    return figure


def low_rates(table: pd.DataFrame) -> Figure:
    """True- against false-positive rates, both logarithmic: a line begins where the first member is found. Columns: curve, fpr,
    tpr; curves in order."""
    figure, axis = plt.subplots(figsize=(6.2, 4.2), layout="constrained")
    least = max(1e-3, table.loc[table["fpr"] > 0, "fpr"].min() / 2)
    handles = {}
    for name, line in table.groupby("curve", sort=False):
        x, y = line["fpr"].clip(lower=least), line["tpr"].where(line["tpr"] > 0)
        handles[name], = axis.plot(x, y, drawstyle="steps-post", lw=1.5)
    handles["guessing"], = axis.plot([least, 1], [least, 1], ls=":", color="0.5", lw=1)
    if least < 0.01:
        handles["1 % false alarms"] = axis.axvline(0.01, ls="--", color="0.7", lw=1)
    axis.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(least, 1.05))
    axis.set_xlabel("false alarms: share of strangers taken for members", fontsize=NORMAL)
    axis.set_ylabel("share of members found", fontsize=NORMAL)
    axis.tick_params(labelsize=SMALL)
    legend_below(figure, handles)
    return figure


def recall(table: pd.DataFrame) -> Figure:
    """Share of planted copies that were found: disguise × space. Columns: disguise, space, recall."""
    names = {"pixel": "pixels", "copy": "copy detector", "either": "either of them"}
    wide = table.pivot(index="disguise", columns="space", values="recall")
    wide = wide.loc[list(dict.fromkeys(table["disguise"])), list(names)]
    figure, axis = plt.subplots(figsize=(5.6, 0.28 * len(wide) + 1.0), layout="constrained")
    sns.heatmap(wide, annot=True, fmt=".0%", cmap="Greens", vmin=0, vmax=1, cbar=False, ax=axis,
                annot_kws={"size": SMALL},
                linewidths=0.5)
    axis.xaxis.tick_top()
    axis.set_xticks(np.arange(len(names)) + 0.5, list(names.values()), fontsize=SMALL)
    axis.set_yticks(np.arange(len(wide)) + 0.5, list(wide.index), fontsize=SMALL, rotation=0)
    axis.set(xlabel="", ylabel="")
    axis.tick_params(length=0)
    return figure


def along_training(table: pd.DataFrame) -> Figure:
    """AUC against images seen, one line per system. Columns: system, images, value, low, high."""
    if table.empty:
        return notice("no system was attacked on the way")
    figure, axis = plt.subplots(figsize=(6.2, 3.6), layout="constrained")
    handles, middle = {}, (table["system"].nunique() - 1) / 2
    for k, (name, line) in enumerate(table.groupby("system", sort=False)):
        apart = 1.015 ** (k - middle)  # so that intervals do not hide each other
        handles[name] = axis.errorbar(line["images"] * apart, line["value"], interval(line), capsize=2, lw=1.4, elinewidth=0.8,
                                      marker=MARKERS[k % len(MARKERS)], ms=4, color=system_colour(name))
    axis.axhline(0.5, ls=":", color="0.5", lw=1)
    axis.set_xscale("log")
    # Of points nearer to each other than half as far again one is named: two would be written over each other.
    points = sorted(set(accumulate(sorted(set(table["images"])), lambda last, x: x if x >= 1.5 * last else last)))
    axis.set_xticks(points, [f"{x:,.0f}" for x in points])
    axis.minorticks_off()
    axis.set_xlabel("training images seen", fontsize=NORMAL)
    axis.set_ylabel("AUC (0.5: guessing)", fontsize=NORMAL)
    axis.tick_params(labelsize=SMALL)
    legend_below(figure, handles)
    return figure


def rare_exposure(table: pd.DataFrame) -> Figure:
    """How far the same patients stand out, by how common their disease is: a panel per attack with a grey line per pair of
    trainings and their mean; then what differs, with the interval of the mean. Columns: attack, pair ("all": the mean), disease
    (two that are compared, and their difference), value, low, high."""
    if table.empty:
        return notice("too few patients of each disease")
    attacks, (*places, change) = (list(dict.fromkeys(table[c])) for c in ("attack", "disease"))
    figure, axes = plt.subplots(1, len(attacks) + 1, figsize=(PAGE, 3.2), layout="constrained")
    handles = {}
    for axis, attack in zip(axes, attacks):
        part = table[table["attack"] == attack].set_index("disease")
        for pair, line in part.groupby("pair"):
            look = {"color": "C0", "lw": 2} if pair == "all" else {"color": "0.7", "lw": 1}
            handles["mean" if pair == "all" else "a pair of trainings"], = axis.plot(line.loc[places, "value"].to_numpy(),
                                                                                    marker="o", ms=4, **look)
        axis.axhline(0, ls=":", color="0.5", lw=1)
        axis.set_title(ATTACKS[attack], fontsize=NORMAL)
        _places(axis, places, "their disease is")
    last, differs = axes[-1], table[table["disease"] == change]
    pairs, mean = differs[differs["pair"] != "all"], differs[differs["pair"] == "all"].set_index("attack").loc[attacks]
    last.plot([attacks.index(a) + 0.15 for a in pairs["attack"]], pairs["value"], "o", ms=4, color="0.7")
    handles["mean, 95 % interval"] = last.errorbar(range(len(attacks)), mean["value"], interval(mean), fmt="o", ms=5, capsize=3)
    handles["guessing, or no difference"] = last.axhline(0, ls=":", color="0.5", lw=1)
    last.set_title(change, fontsize=NORMAL)
    _places(last, [ATTACKS[a] for a in attacks], "")
    axes[0].set_ylabel("members above strangers\n(standard deviations of strangers)", fontsize=NORMAL)
    legend_below(figure, handles)
    return figure


def _places(axis: plt.Axes, names: list[str], label: str) -> None:
    axis.set_xticks(range(len(names)), [wrapped(name, 1.0) for name in names], fontsize=SMALL)
    axis.set_xlim(-0.5, len(names) - 0.5)
    axis.set_xlabel(label, fontsize=NORMAL)
    axis.tick_params(labelsize=SMALL)
