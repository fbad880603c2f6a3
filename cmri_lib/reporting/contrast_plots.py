"""Plots of notebook 16: recovery after inversion, T1 found again, and the cavity over the heartbeat."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cmri_lib.reporting.figures import FAMILY_COLOURS, LABEL_COLOURS, REAL_COLOUR, SMALL, legend_below

#: Regions with their colour and full name.
REGIONS = {"Myo": (LABEL_COLOURS[1], "myocardium"), "LV": (LABEL_COLOURS[0], "blood in the LV")}
MADE = FAMILY_COLOURS["VAE"]


def recovery_curves(table: pd.DataFrame) -> Figure:
    """Magnitude against inversion time, one panel per region, in units of the blood's steady state.

    Args:
        table: region, what (names of curves; the first is the truth), inversion_time (ms), value.
    """
    regions = list(dict.fromkeys(table["region"]))
    figure, axes = plt.subplots(1, len(regions), figsize=(9, 3.1), squeeze=False, sharey=True)
    names = list(dict.fromkeys(table["what"]))
    looks = dict(zip(names, ({"color": REAL_COLOUR, "ls": "-", "marker": ""}, {"color": MADE, "ls": "", "marker": "o"},
                             {"color": FAMILY_COLOURS["flow"], "ls": "", "marker": "x"})))
    handles = {}
    for axis, region in zip(axes[0], regions):
        for name, part in table[table["region"] == region].groupby("what", sort=False):
            handles[name], = axis.plot(part["inversion_time"], part["value"], ms=5, lw=1.2, **looks[name])
        axis.set(title=REGIONS[region][1], xlabel="inversion time (ms)", xscale="log")
    axes[0, 0].set(ylabel="signal / steady state of blood", ylim=(0, 1.05 * table["value"].max()))  # shared, so set last
    legend_below(figure, handles)
    return figure


def t1_agreement(table: pd.DataFrame) -> Figure:
    """T1 fitted against the true T1, one panel per way, a dot for each patient and region; the diagonal is agreement.

    Args:
        table: way, region, patient, true, fitted (ms).
    """
    ways = list(dict.fromkeys(table["way"]))
    figure, axes = plt.subplots(1, len(ways), figsize=(3.6 * len(ways), 3.6), squeeze=False, sharey=True)
    ends = table["true"].min() - 100, table["true"].max() + 100
    handles = {}
    for axis, (way, part) in zip(axes[0], table.groupby("way", sort=False)):
        for region, dots in part.groupby("region", sort=False):
            colour, name = REGIONS[region]
            handles[name] = axis.scatter(dots["true"], np.clip(dots["fitted"], *ends), s=14, color=colour)
        axis.plot(ends, ends, ls="--", lw=1, color=REAL_COLOUR)
        axis.set(title=way, xlabel="true T1 (ms)", xlim=ends, ylim=ends)
    axes[0, 0].set_ylabel("T1 fitted to images (ms)")
    legend_below(figure, handles, note="beyond the frame: drawn at its edge")
    return figure


def cavity_curves(table: pd.DataFrame) -> Figure:
    """Mean area of the LV cavity over the heartbeat, with intervals over patients.

    Args:
        table: what, time (0 and 1 are end-diastole), value, low, high (cm²).
    """
    figure, axis = plt.subplots(figsize=(7, 3.4))
    colours = [REAL_COLOUR, MADE, FAMILY_COLOURS["flow"]]
    for colour, (name, part) in zip(colours, table.groupby("what", sort=False)):
        axis.plot(part["time"], part["value"], "o-", ms=3.5, lw=1.2, color=colour, label=name)
        low, high = (part[end].fillna(part["value"]) for end in ("low", "high"))
        axis.fill_between(part["time"], low, high, color=colour, alpha=0.15)
    axis.set(xlabel="time since end-diastole (heartbeats)", ylabel="area of the LV cavity (cm²)", ylim=(0, None))
    axis.legend(fontsize=SMALL)
    return figure
