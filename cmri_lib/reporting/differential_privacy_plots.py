"""Plots of private trainings: what privacy costs, what it hides from attackers, and what of the privacy loss they can prove."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cmri_lib.reporting import metrics
from cmri_lib.reporting.axes import edges_of, interval, point_above
from cmri_lib.reporting.comparison import on_front
from cmri_lib.reporting.figures import (FAMILY_COLOURS, NORMAL, PAGE, REAL_COLOUR, SMALL, STYLES, legend_below, notice,
                                        reference_handles, wrapped)
from cmri_lib.reporting.primary_tests import ANATOMY, HEARTS

#: Trainings that are a line across the figure, and those that are a point beside the private one.
PRIVATE, PUBLIC, ORDINARY = "private", "public patients only", "all patients, not private"
LINES = {PUBLIC: ":", ORDINARY: "-."}
POINTS = {"private, from nothing": "^", "private, last layers": "s"}
#: What a private training is wanted for, and the attacks on canaries, of which each family meets one.
WORTH = (ANATOMY, HEARTS, "downstream_dice")
CANARIES = ("attack_auc_loss_calibrated", "attack_auc_critic_calibrated")
#: Bounds of the privacy loss: name, marker, colour.
BOUNDS = {"epsilon_rdp": ("upper bound, RDP accountant", "_", "#d55e00"),
          "epsilon_prv": ("upper bound, PRV accountant", "v", "#de8f05"),
          "epsilon_lower": ("lower bound, canaries", "o", "#0173b2"),
          "epsilon_lower_most": ("lower bound if all guesses were right", "x", "0.4")}


def against_epsilon(table: pd.DataFrame) -> Figure:
    """A panel per metric: values with intervals against ε, a line for each system.

    Columns: generator, family, training (`PRIVATE`, a key of `LINES` or of `POINTS`), epsilon (∞ without
    noise; missing for a training that has none), metric, value, low, high, floor, better.
    """
    table = table[table["value"].notna()]
    if table.empty:
        return notice("no system was trained privately")
    chosen, places = list(dict.fromkeys(table["metric"])), _places(table["epsilon"].dropna())
    wide = min(3, len(chosen))
    high = -(-len(chosen) // wide)
    size = min(PAGE, 3.6 * wide), 2.9 * high + 0.8
    figure, axes = plt.subplots(high, wide, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(chosen):]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, chosen):
        _panel(axis, table[table["metric"] == name], name, places)
    systems = table.drop_duplicates("generator").set_index("generator")["family"]
    looks = {name: {"color": _colour(family), "marker": "o"} for name, family in systems.items()}
    looks |= {name: {"color": "0.3", "ls": dashes} for name, dashes in LINES.items()}
    looks |= {name: {"color": "0.3", "ls": "", "marker": marker} for name, marker in POINTS.items()}
    known = {*systems.index, *table["training"]}
    handles = {name: Line2D([], [], ms=4, **look) for name, look in looks.items() if name in known}
    legend_below(figure, {**handles, **reference_handles(table, ["real"])})
    return figure


def _panel(axis: plt.Axes, part: pd.DataFrame, name: str, places: dict[float, int]) -> None:
    # A floor that is merely the end of a metric's range would flatten the curves.
    real = [value for value, kind, _ in metrics.references(part, name) if kind == "real"]
    first, last = edges_of(*(part[c].to_numpy(float) for c in ("value", "low", "high")), real)
    axis.set_ylim(first, last)
    for turn, (_, rows) in enumerate(part.groupby("generator", sort=False)):
        colour, side = _colour(rows["family"].iloc[0]), 0.08 * turn
        line = rows[rows["training"] == PRIVATE].sort_values("epsilon")
        axis.errorbar([places[e] + side for e in line["epsilon"]], line["value"], interval(line), marker="o", ms=4, capsize=2,
                      lw=1.4, elinewidth=0.9, color=colour)
        for row in rows[rows["training"].isin(LINES)].itertuples():
            axis.axhline(row.value, ls=LINES[row.training], lw=1.2, color=colour)
        for k, row in enumerate(rows[rows["training"].isin(POINTS)].itertuples()):
            place = places[row.epsilon] - 0.14 * (k + 1)
            if first <= row.value <= last:
                axis.errorbar(place, row.value, interval(row), ls="", ms=5, capsize=2, marker=POINTS[row.training],
                              elinewidth=0.9, color=colour)
            else:
                point_above(axis, place, metrics.number(name, row.value), row.value > last, colour, POINTS[row.training])
    for value in real:
        axis.axhline(value, ls=STYLES["real"], lw=1, color=REAL_COLOUR)
    _epsilon_axis(axis, places)
    axis.set_title(wrapped(metrics.label(name), 3.2, NORMAL), fontsize=NORMAL)
    axis.set_ylabel(metrics.direction(name, part["better"].iloc[0]), fontsize=SMALL)


def trade_offs(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each private training at an ε and each metric of `WORTH` that it has: generator, family, epsilon, metric,
    value, low, high, better, auc (of the attack on canaries), auc_low, auc_high, front: whether no other is better in both. The
    public generator, which has met no private patient, is that of ε = 0, and an attack on them can but guess. Columns of
    `table` as in `against_epsilon`."""
    private, public = (table[table["training"] == training] for training in (PRIVATE, PUBLIC))
    auc = private[private["metric"].isin(CANARIES)].set_index(["generator", "epsilon"])[["value", "low", "high"]]
    auc.columns = ["auc", "auc_low", "auc_high"]
    found = private.join(auc, on=["generator", "epsilon"], how="inner")
    rows = pd.concat([public[public["generator"].isin(found["generator"])].assign(epsilon=0.0, auc=0.5), found])
    rows = rows[rows["metric"].isin(WORTH)].reset_index(drop=True)
    loss = rows["value"].where(rows["better"] == "lower", -rows["value"])
    both = pd.DataFrame({"loss": loss, "auc": rows["auc"]})
    front = [pd.Series(on_front(part.to_numpy(float)), part.index) for _, part in both.groupby(rows["metric"])]
    rows = rows.assign(front=pd.concat(front).astype(bool) if front else False)
    return rows[["generator", "family", "epsilon", "metric", "value", "low", "high", "better", "auc", "auc_low", "auc_high",
                 "front"]]


def worth_against_attack(table: pd.DataFrame) -> Figure:
    """A panel for each metric of `trade_offs`: the attack's AUC against it, a line for each system, whose marks grow from ε = 0
    to ∞, filled where no other training is better in both; faint: intervals."""
    table = table[table["value"].notna() & table["auc"].notna()]
    if table.empty:
        return notice("no system was trained privately")
    chosen, sizes = list(dict.fromkeys(table["metric"])), {e: 3 + 1.6 * k for e, k in _places(table["epsilon"]).items()}
    figure, axes = plt.subplots(1, len(chosen), figsize=(min(PAGE, 3.7 * len(chosen)), 3.8), squeeze=False, sharey=True,
                                layout="constrained")
    for axis, name in zip(axes.flat, chosen):
        for _, rows in table[table["metric"] == name].groupby("generator", sort=False):
            rows, colour = rows.sort_values("epsilon"), _colour(rows["family"].iloc[0])
            axis.plot(rows["value"], rows["auc"], lw=0.8, color=colour)
            ends = rows["auc"] - rows["auc_low"], rows["auc_high"] - rows["auc"]
            axis.errorbar(rows["value"], rows["auc"], ends, interval(rows), ls="", elinewidth=0.8, color=colour, alpha=0.25)
            for row in rows.itertuples():
                axis.plot(row.value, row.auc, "o", ms=sizes[row.epsilon], color=colour, mfc=colour if row.front else "white")
        axis.axhline(0.5, ls=STYLES["real"], lw=1, color=REAL_COLOUR)
        axis.margins(0.12)
        better = metrics.direction(name, table.loc[table["metric"] == name, "better"].iloc[0])
        axis.set_xlabel(f"{wrapped(metrics.label(name), 3.2)}\n{better}", fontsize=SMALL)
        axis.tick_params(labelsize=SMALL)
    axes[0, 0].set_ylabel("AUC of the attack on canaries\nlower is better", fontsize=SMALL)
    systems = table.drop_duplicates("generator").set_index("generator")["family"]
    looks = {name: {"color": _colour(family), "mfc": "white"} for name, family in systems.items()}
    looks["no other is better in both"] = {"color": REAL_COLOUR, "ls": ""}
    handles = {name: Line2D([], [], marker="o", ms=6, **look) for name, look in looks.items()}
    handles["guessing"] = Line2D([], [], color=REAL_COLOUR, ls=STYLES["real"], lw=1)
    for epsilon, size in sizes.items():
        text = {0.0: "ε = 0: public weights", math.inf: "ε = ∞: no noise"}.get(epsilon, f"ε = {epsilon:g}")
        handles[text] = Line2D([], [], color=REAL_COLOUR, marker="o", mfc="white", ls="", ms=size)
    legend_below(figure, handles)
    return figure


def over_tosses(table: pd.DataFrame) -> Figure:
    """AUC of the attack on canaries in trainings that differ in their coins: a dot for each, a diamond for their mean with its
    interval, which is over canaries alone where the coins were tossed once.

    Columns: generator, epsilon, toss (from 1; missing for the mean), value, low, high.
    """
    table = table[table["value"].notna()]
    if table.empty:
        return notice("no system was trained privately")
    lines = list(table.groupby(["generator", "epsilon"], sort=False))
    figure, axis = plt.subplots(figsize=(6.5, 0.55 * len(lines) + 1.5), layout="constrained")
    for place, ((system, epsilon), rows) in enumerate(lines):
        for row in rows[rows["toss"].notna()].itertuples():
            axis.plot(row.value, place - 0.16, "o", ms=4, color="0.55")
        for row in rows[rows["toss"].isna()].itertuples():
            axis.errorbar(row.value, place + 0.14, xerr=interval(row), fmt="D", ms=5, capsize=3, color=REAL_COLOUR)
    axis.axvline(0.5, ls=STYLES["real"], lw=1, color=REAL_COLOUR)
    tossed = [rows["toss"].nunique() for _, rows in lines]
    names = [f"{system}, " + ("no noise" if math.isinf(epsilon) else f"ε = {epsilon:g}") + ", 1 toss" * (count == 1)
             for ((system, epsilon), _), count in zip(lines, tossed)]
    axis.set_yticks(range(len(lines)), names, fontsize=SMALL)
    axis.set(xlim=(0, 1), ylim=(len(lines) - 0.5, -0.5))
    axis.set_xlabel("AUC: canaries learnt from against canaries left out", fontsize=NORMAL)
    axis.tick_params(labelsize=SMALL)
    legend_below(figure, {"one toss of the coins": Line2D([], [], color="0.55", marker="o", ls="", ms=4),
                          "mean of the tosses, 95 % interval": Line2D([], [], color=REAL_COLOUR, marker="D", ls="", ms=5),
                          "guessing": Line2D([], [], color=REAL_COLOUR, ls=STYLES["real"], lw=1)})
    return figure


def bounds(table: pd.DataFrame) -> Figure:
    """Upper and lower bounds of the privacy loss against the ε that was asked for. Columns: generator,
    epsilon, metric (of `BOUNDS`), value."""
    table = table[table["metric"].isin(BOUNDS) & table["value"].notna()]
    if table.empty:
        return notice("no system was trained privately")
    systems, places = list(dict.fromkeys(table["generator"])), _places(table["epsilon"])
    size = max(6.5, min(PAGE, 4.6 * len(systems))), 3.6
    figure, axes = plt.subplots(1, len(systems), figsize=size, squeeze=False, sharey=True, layout="constrained")
    for axis, system in zip(axes.flat, systems):
        for name, rows in table[table["generator"] == system].groupby("metric"):
            rows, (_, marker, colour) = rows.sort_values("epsilon"), BOUNDS[name]
            axis.plot([places[e] for e in rows["epsilon"]], rows["value"], marker=marker, color=colour, lw=1,
                      ms=7, mew=1.6, ls=":" if name == "epsilon_lower_most" else "-")
        axis.set_yscale("symlog", linthresh=1.0)
        ticks = [t for t in (0, 0.5, 1, 3, 10, 30, 100) if t <= 1.3 * table["value"].max() or t <= 1]
        axis.set_yticks(ticks, [f"{t:g}" for t in ticks])
        axis.minorticks_off()
        axis.set_ylim(bottom=-0.08)
        _epsilon_axis(axis, places)
        axis.set_title(system, fontsize=NORMAL)
    axes[0, 0].set_ylabel("privacy loss ε (95 % confidence below)", fontsize=SMALL)
    legend_below(figure, {text: Line2D([], [], color=colour, marker=marker, ls="", ms=7, mew=1.6)
                          for text, marker, colour in BOUNDS.values()})
    return figure


def _epsilon_axis(axis: plt.Axes, places: dict[float, int]) -> None:
    names = ["∞, no noise" if math.isinf(epsilon) else f"{epsilon:g}" for epsilon in places]
    axis.set_xticks(list(places.values()), names, fontsize=SMALL)
    axis.set_xlim(-0.5, len(places) - 0.5)
    axis.set_xlabel("ε asked for", fontsize=NORMAL)
    axis.tick_params(labelsize=SMALL)


def _places(values: Sequence[float]) -> dict[float, int]:
    """ε → its place on an axis of equal steps, with room for ∞."""
    return {epsilon: place for place, epsilon in enumerate(sorted(set(values)))}


def _colour(family: str) -> str:
    return FAMILY_COLOURS.get(family, REAL_COLOUR)
