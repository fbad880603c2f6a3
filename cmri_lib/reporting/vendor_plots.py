"""How notebook 10 shows segmenters on the scanners of several vendors: training sets × vendors."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from cmri_lib.reporting.figures import CHARACTER, NORMAL, PAGE, REAL_COLOUR, SMALL, legend_below, notice, wrapped

#: Inches of a row, and the widest that a column is.
ROW, COLUMN = 0.42, 1.25
#: Colours on which text and frames can be read.
LIGHT = ListedColormap(plt.get_cmap("YlGnBu")(np.linspace(0, 0.55, 256)))


def vendor_map(table: pd.DataFrame) -> Figure:
    """Dice with its interval for every training set (down) and every vendor of the test patients (across); a frame
    where the segmenter has learnt from real slices of this vendor.

    Args:
        table: arm, vendor, learnt (bool), value, low, high, n (patients).
    """
    if table.empty:
        return notice("no vendor has enough test patients")
    arms, vendors = (list(dict.fromkeys(table[c])) for c in ("arm", "vendor"))
    values = table.pivot(index="arm", columns="vendor", values="value").loc[arms, vendors].to_numpy(float)
    margin = min(3.6, 0.4 + CHARACTER * max(map(len, arms)))
    width = min(PAGE, margin + COLUMN * len(vendors) + 0.9)
    figure, axis = plt.subplots(figsize=(width, ROW * len(arms) + 1.2), layout="constrained")
    shown = axis.imshow(values, cmap=LIGHT, vmin=np.nanmin(values), vmax=np.nanmax(values), aspect="auto")
    for row in table.itertuples():
        x, y = vendors.index(row.vendor), arms.index(row.arm)
        interval = "" if np.isnan(row.low) else f"\n[{row.low:.2f}, {row.high:.2f}]"
        axis.text(x, y, f"{row.value:.3f}{interval}", ha="center", va="center", fontsize=SMALL)
        if row.learnt:
            axis.add_patch(Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, fill=False, lw=1.6, ec=REAL_COLOUR))
    counts = table.drop_duplicates("vendor").set_index("vendor")["n"]
    axis.set_xticks(range(len(vendors)), [f"{wrapped(v, COLUMN)}\nn = {counts[v]}" for v in vendors], fontsize=SMALL)
    axis.set_yticks(range(len(arms)), [wrapped(arm, margin) for arm in arms], fontsize=SMALL)
    axis.xaxis.tick_top()
    axis.set_xlabel("vendor of the test patients", fontsize=NORMAL)
    axis.tick_params(length=0)
    axis.grid(False)
    bar = figure.colorbar(shown, ax=axis, shrink=0.8, pad=0.02)
    bar.set_label("Dice, mean of the structures", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    framed = Patch(fill=False, ec=REAL_COLOUR, lw=1.6)
    legend_below(figure, {"has learnt from real slices of this vendor": framed} if table["learnt"].any() else {})
    return figure
