"""Plots of how a training went, and of how many steps its samples need; notebooks of several families share them."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cmri_lib.reporting.figures import REAL_COLOUR

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
