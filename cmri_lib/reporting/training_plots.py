"""Plots of how a training went, and of how many steps its samples need; notebooks of several families share them."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cmri_lib.reporting import metrics
from cmri_lib.reporting.axes import interval
from cmri_lib.reporting.claims import MOVING, SETTLED
from cmri_lib.reporting.figures import NORMAL, PAGE, REAL_COLOUR, SMALL, legend_below, notice

TOY_LABELS = {"distance": "median distance to the nearest centre", "rarest": "share of samples at the rarest mode"}


def losses(table: pd.DataFrame, *, ylabel: str, one_scale: bool = False) -> Figure:
    """Training and validation loss against images seen, one panel per system.

    Args:
        table: columns system, images, loss_model, validation_loss; the last is missing where nothing was validated.
        ylabel: what the loss is.
        one_scale: the losses of all systems have one unit, and all panels one axis, which begins at 0.
    """
    parts = list(table.groupby("system", sort=False))
    figure, axes = plt.subplots(1, len(parts), figsize=(11, 2.8), sharey=one_scale, squeeze=False)
    tops = []
    for axis, (name, part) in zip(axes[0], parts):
        validated = part.dropna(subset="validation_loss")
        axis.plot(part["images"], part["loss_model"], lw=1, alpha=0.6, label="training")
        axis.plot(validated["images"], validated["validation_loss"], "o-", ms=4, label="validation")
        tops.append(1.05 * max(part["loss_model"].quantile(0.95), validated["validation_loss"].median()))
        axis.set(title=name, xlabel="training images seen", ylim=(0, max(tops)) if one_scale else (None, tops[-1]))
        axis.tick_params(axis="x", rotation=30)
    axes[0, 0].set_ylabel(ylabel)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def toy_samples(table: pd.DataFrame, *, by: str, truth: Mapping[str, float], xlabel: str) -> Figure:
    """The two measures of `TOY_LABELS` against the number of steps; dashed: what true points score, `truth`.

    Args:
        table: columns steps, distance, rarest and `by`, which tells the lines apart.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    ticks = sorted(set(table["steps"]))
    for axis, (column, label) in zip(axes, TOY_LABELS.items()):
        sns.lineplot(table, x="steps", y=column, hue=by, marker="o", ax=axis)
        axis.axhline(truth[column], ls="--", color=REAL_COLOUR, lw=1)
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks, ticks)
        axis.minorticks_off()
        axis.set(xlabel=xlabel, ylabel=label, ylim=(0, None))
    return figure


def last_doublings(table: pd.DataFrame) -> Figure:
    """What the second half of each training changed, a panel per metric; filled: it is still moving.

    Args:
        table: of `LearningCurves.last_doubling`: system, metric, value, low, high, share, finished.
    """
    if table.empty:
        return notice("no training was kept at half of its way")
    systems, names = (list(dict.fromkeys(table[column])) for column in ("system", "metric"))
    figure, axes = plt.subplots(1, len(names), figsize=(PAGE, 0.28 * len(systems) + 1.2), sharey=True, squeeze=False,
                                layout="constrained")
    others, handles = "not seen to move" + ", or settled" * (SETTLED in set(table["finished"])), {}
    for axis, name in zip(axes[0], names):
        axis.axvline(0, ls=":", color="0.5", lw=1)
        for moving, part in table[table["metric"] == name].groupby(table["finished"] == MOVING):
            places = [systems.index(system) for system in part["system"]]
            kind = MOVING if moving else others
            handles[kind] = axis.errorbar(part["value"], places, xerr=interval(part), fmt="o", ms=5, capsize=2,
                                          color="C0" if moving else "0.5", mfc="C0" if moving else "white")
        near_zero = table["share"].abs() > 1  # a share of next to nothing says nothing
        for row in table[(table["metric"] == name) & ~near_zero].itertuples():
            axis.annotate(f"{row.share:+.0%}", (row.high, systems.index(row.system)), (4, 0), textcoords="offset points",
                          va="center", fontsize=SMALL, color="0.3")
        axis.margins(x=0.2)
        axis.set_xlabel(f"change of: {metrics.label(name)}", fontsize=NORMAL)
        axis.tick_params(labelsize=SMALL)
    axes[0, 0].set_yticks(range(len(systems)), systems, fontsize=SMALL)
    axes[0, 0].set_ylim(len(systems) - 0.5, -0.5)
    legend_below(figure, handles)
    return figure
