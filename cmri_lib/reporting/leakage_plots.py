"""Plots of how much an audit's choices matter, and of what drives leakage."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cmri_lib.reporting import metrics
from cmri_lib.reporting.axes import interval
from cmri_lib.reporting.figures import (NORMAL, PAGE, REAL_COLOUR, SMALL, legend_below, notice, real_values, reference_handles,
                                        wrapped)
from cmri_lib.reporting.plots import MARKERS
from cmri_lib.reporting.privacy_metrics import ATTACKS

#: How a reconstruction is compared with its image, as settings of FCRE name it.
ERRORS = {"squared": "squared error", "SSIM": "1 − SSIM"}


def band_map(table: pd.DataFrame) -> Figure:
    """AUC of FCRE by time and band of frequencies: a row of panels per system, a panel for each half of the patients. A dot
    marks the setting that is best in this half, a ring the one that this half is scored with.

    Args:
        table: system, setting ("u = 0.1, band 0 to 0.125, squared"), half, value, picked, used.
    """
    if table.empty:
        return notice("no system has a denoiser that could be attacked")
    parts = table["setting"].str.extract(r"u = (?P<time>\S+), band (?P<band>.+), (?P<error>\w+)$")
    table = table.assign(**parts.astype({"time": float}))
    systems, halves, bands = (list(dict.fromkeys(table[c])) for c in ("system", "half", "band"))
    columns = pd.MultiIndex.from_product([[e for e in ERRORS if e in set(table["error"])], bands])
    times = table["time"].nunique()
    figure, axes = plt.subplots(len(systems), len(halves), figsize=(PAGE, len(systems) * (0.26 * times + 0.35) + 1.3),
                                squeeze=False, sharex=True, sharey=True, layout="constrained")
    for (system, half), part in table.groupby(["system", "half"], sort=False):
        axis = axes[systems.index(system), halves.index(half)]
        wide, picked, used = (part.pivot(index="time", columns=["error", "band"], values=c)[columns]
                              for c in ("value", "picked", "used"))
        text = wide.map("{:.2f}".format) + picked.replace({True: " ●", False: ""}) + used.replace({True: " ○", False: ""})
        sns.heatmap(wide, annot=text, fmt="", cmap="vlag", vmin=0, vmax=1, center=0.5, cbar=False, ax=axis, linewidths=0.5,
                    annot_kws={"size": SMALL})
        for border in range(len(bands), len(columns), len(bands)):
            axis.axvline(border, color="0.3", lw=1)
        axis.set_title(f"{system}: {half} of the patients", fontsize=SMALL)
        axis.set(xlabel="", ylabel="")
    names = " | ".join(ERRORS[error] for error in columns.unique(0))
    for axis in axes[-1]:
        axis.set_xticks(np.arange(len(columns)) + 0.5, [band.replace(" to ", "–") for _, band in columns], fontsize=SMALL,
                        rotation=0)
        axis.set_xlabel(f"band of frequencies (1: half a cycle per pixel)\n{names}", fontsize=SMALL)
    for axis in axes[:, 0]:
        axis.set_ylabel("time u", fontsize=SMALL)
        axis.tick_params(axis="y", labelsize=SMALL, rotation=0)
    rings = {"best in this half": "k", "used for this half, for it is best in the other": "none"}
    legend_below(figure, {text: Line2D([], [], marker="o", ls="", mec="k", mfc=fill, ms=5) for text, fill in rings.items()})
    return figure


def by_access(table: pd.DataFrame) -> Figure:
    """The best attack by what the attacker has: AUC, and in the second panel what weights add to samples alone.

    Args:
        table: system, access (two kinds, and their difference, named "first − second"), value, low, high.
    """
    if table.empty:
        return notice("no attack was mounted")
    systems, kinds = (list(dict.fromkeys(table[c])) for c in ("system", "access"))
    more = next((kind for kind in kinds if " − " in kind), None)
    figure, axes = plt.subplots(1, 2, figsize=(PAGE, 0.32 * len(systems) + 1.2), sharey=True, layout="constrained",
                                width_ratios=(3, 2))
    handles = {}
    for k, kind in enumerate(kinds):
        part, axis = table[table["access"] == kind], axes[int(kind == more)]
        places = [systems.index(system) + (0 if kind == more else 0.22 * k - 0.11) for system in part["system"]]
        handles[kind] = axis.errorbar(part["value"], places, xerr=interval(part), fmt=MARKERS[k], ms=5, capsize=2,
                                      color=f"C{k}")
    for axis, middle, label in zip(axes, (0.5, 0.0), ("AUC (0.5: guessing)", f"difference of AUCs: {more}")):
        axis.axvline(middle, ls=":", color="0.5", lw=1)
        axis.set_xlabel(label, fontsize=NORMAL)
        axis.tick_params(labelsize=SMALL)
    axes[0].set_yticks(range(len(systems)), [wrapped(system, 3.0) for system in systems], fontsize=SMALL)
    axes[0].set_ylim(len(systems) - 0.5, -0.5)
    legend_below(figure, handles)
    return figure


def by_choice(table: pd.DataFrame, label: str) -> Figure:
    """A panel for each metric, against a choice: a number, along which points are joined, or a name. Dashed: what real images
    score.

    Args:
        table: choice, metric, value, low, high, better, floor, ceiling.
        label: what is chosen, for the lower axis.
    """
    if table.empty:
        return notice("nothing was drawn in several ways")
    names, choices = (list(dict.fromkeys(table[c])) for c in ("metric", "choice"))
    numbers = pd.api.types.is_numeric_dtype(table["choice"])
    lines = 1 if len(names) <= 3 else 2
    columns = -(-len(names) // lines)
    figure, axes = plt.subplots(lines, columns, figsize=(PAGE, 2.5 * lines + 0.3), squeeze=False, layout="constrained")
    for axis, name in zip(axes.flat, names):
        part = table[table["metric"] == name]
        places = part["choice"] if numbers else part["choice"].map(choices.index)
        axis.errorbar(places, part["value"], interval(part), marker="o", ms=4, capsize=2, ls="-" if numbers else "")
        for real in real_values(part, name):
            axis.axhline(real, ls="--", lw=1, color=REAL_COLOUR)
        room = (PAGE / columns - 0.8) / len(choices)
        axis.set_xticks(choices if numbers else range(len(choices)),
                        [f"{choice:g}" if numbers else wrapped(choice, room) for choice in choices], fontsize=SMALL)
        axis.margins(x=0.1 if numbers else 0.4)
        axis.set_title(wrapped(metrics.label(name), PAGE / columns - 0.4), fontsize=SMALL)
        axis.set_ylabel(metrics.direction(name, part["better"].iloc[0]), fontsize=SMALL)
        axis.set_xlabel(label, fontsize=SMALL)
        axis.tick_params(labelsize=SMALL)
    for axis in axes.flat[len(names):]:
        axis.set_visible(False)
    legend_below(figure, reference_handles(table, ["real"]))
    return figure


def by_version(table: pd.DataFrame) -> Figure:
    """AUC on slices as they were learnt from and on changed versions of them: a panel for each attack.

    Args:
        table: system, attack, version, value, low, high.
    """
    if table.empty:
        return notice("no attack on changed slices was mounted")
    systems, attacks, versions = (list(dict.fromkeys(table[c])) for c in ("system", "attack", "version"))
    figure, axes = plt.subplots(1, len(attacks), figsize=(PAGE, 0.4 * len(versions) + 1.2), squeeze=False, sharey=True,
                                layout="constrained")
    handles = {}
    for (system, attack), part in table.groupby(["system", "attack"], sort=False):
        k, axis = systems.index(system), axes[0, attacks.index(attack)]
        places = [versions.index(version) + 0.16 * (k - (len(systems) - 1) / 2) for version in part["version"]]
        handles[system] = axis.errorbar(part["value"], places, xerr=interval(part), fmt=MARKERS[k % len(MARKERS)], ms=5,
                                        capsize=2, color=f"C{k}")
    for axis, attack in zip(axes[0], attacks):
        axis.axvline(0.5, ls=":", color="0.5", lw=1)
        axis.set_title(ATTACKS[attack], fontsize=NORMAL)
        axis.set_xlabel("AUC (0.5: guessing)", fontsize=NORMAL)
        axis.tick_params(labelsize=SMALL)
    axes[0, 0].set_yticks(range(len(versions)), versions, fontsize=SMALL)
    axes[0, 0].set_ylim(len(versions) - 0.5, -0.5)
    legend_below(figure, handles)
    return figure
