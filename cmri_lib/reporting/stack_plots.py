"""Plots of whole stacks."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from cmri_lib.reporting.figures import LABEL_COLOURS, NORMAL, PAGE, wrapped

#: Of each set so many stacks are drawn as thin lines; more would be a band.
LINES = 20


def area_profiles(table: pd.DataFrame) -> Figure:
    """Areas from apex to base: a row per structure, a panel per set; thin, single stacks, thick, the median of all.

    Args:
        table: columns set, stack, height, structure, cm2.
    """
    sets, structures = (list(dict.fromkeys(table[column])) for column in ("set", "structure"))
    size = min(PAGE, 1.2 + 2.4 * len(sets)), 0.6 + 1.9 * len(structures)
    figure, axes = plt.subplots(len(structures), len(sets), figsize=size, squeeze=False, sharex=True, sharey="row")
    inches = figure.get_size_inches()[0] / len(sets) - 0.3
    for line, structure, colour in zip(axes, structures, LABEL_COLOURS):
        for axis, name in zip(line, sets):
            part = table[(table["set"] == name) & (table["structure"] == structure)]
            # Stacks of short scans end where theirs do, so planes are counted and not their heights.
            part = part.assign(plane=part.groupby("stack").cumcount())
            for _, stack in list(part.groupby("stack"))[:LINES]:
                axis.plot(stack["height"], stack["cm2"], color=colour, lw=0.6, alpha=0.45)
            middle = part.groupby("plane")[["height", "cm2"]].median()
            axis.plot(middle["height"], middle["cm2"], color="black", lw=1.8)
        line[0].set(ylabel=f"{structure} (cm²)", ylim=(0, None))
    for axis, name in zip(axes[0], sets):
        axis.set_title(wrapped(name, inches, NORMAL), fontsize=NORMAL)
    for axis in axes[-1]:
        axis.set(xlabel="apex → base", xticks=[0, 0.5, 1])
    return figure
