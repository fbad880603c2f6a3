"""The study's own plots: each takes the tidy table that `figures.publish` has kept; at most a page wide.

A dashed line is what real images score, against other real patients or read by the same instrument; a dotted one what
training images would score if handed out as samples, a dash-dotted one what chance, or somebody else's mask, would.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cmri_lib.reporting import metrics, review
from cmri_lib.reporting.axes import (edges_of, interval, orders_of_magnitude, point_beyond, set_ticks,
                                      without_constants)
from cmri_lib.reporting.figures import (CHARACTER, FAMILY_COLOURS, METHOD_COLOURS, NORMAL, PAGE, REAL_COLOUR, SMALL,
                                        STYLE_WORDS, STYLES, legend_below, notice, real_values, reference_handles, shade,
                                        system_colour, wrapped)

MARKERS, LINES = ("o", "s", "^", "D", "v", "P", "X", "*"), ("-", "--", "-.", ":")
#: What `x` of a curve is.
CURVES = {"images": "training images seen", "patients": "training patients",
          "NFE": "network evaluations per image"}
SPREAD = ("value", "low", "high")
#: Where `measures.fidelity.corruptions` cuts responses off.
CUT = 99.0
#: A curve whose largest value is so many times the median would flatten the rest of its panel.
FLATTENS = 8.0


def score_plot(table: pd.DataFrame, *, y: str = "system", metric: str | None = None) -> Figure:
    """Values with 95 % intervals, one panel per metric, systems one below the other, coloured by family.

    Metrics that few systems have stand in rows of their own, with these systems alone. A value far outside is an arrow at the
    edge with its number; what is the same for all stands below. An empty table gives a notice.
    """
    table, same = without_constants(table[table["value"].notna() & (metric is None or table["metric"] == metric)])
    if table.empty:
        return notice("nothing in this cohort to measure it on")
    blocks, colours = metrics.blocks(table, y), _colours(table)
    names = {name: review.system(str(name)) for name in dict.fromkeys(table[y])}
    margin, most = 0.3 + CHARACTER * max(map(len, names.values())), max(len(block) for _, block in blocks)
    wide = max(1, min(4, most, int((PAGE - margin) / 1.8)))
    wide = -(-most // -(-most // wide))  # rows of equal length
    panel = min(3.2, (PAGE - margin) / wide)
    rows = [(systems, block[k:k + wide]) for systems, block in blocks for k in range(0, len(block), wide)]
    heights = [0.21 * len(systems) + 0.25 for systems, _ in rows]
    size = margin + panel * wide, sum(heights) + 0.85 * len(rows) + 0.5
    figure, axes = _grid(len(rows), wide, size, height_ratios=heights)
    figure.get_layout_engine().set(w_pad=0.03, hspace=0.02)
    for line, (systems, chosen) in zip(axes, rows, strict=True):
        for axis in line[len(chosen):]:
            axis.set_visible(False)
        beyond = [_scores(axis, table[table["metric"] == name], name, y, systems, colours, panel)
                  for axis, name in zip(line, chosen)]
        for axis in line[:len(chosen)]:
            labels = [names[s] for s in systems] if axis is line[0] else []
            axis.set_yticks(range(len(systems)), labels, fontsize=SMALL)
            axis.set_ylim(len(systems) - 0.4 + 0.9 * max(beyond), -0.6)
    families = {name: _dot(colour) for name, colour in colours.items() if name and name != "real"}
    legend_below(figure, {**(families if 1 < len(families) < len(names) else {}), **reference_handles(table)}, same)
    return figure


def _grid(rows: int, columns: int, size: tuple[float, float], **more: object) -> tuple[Figure, np.ndarray]:
    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **more)


def _dot(colour: str) -> Line2D:
    return Line2D([], [], color=colour, marker="o", ls="", ms=4)


def _colours(table: pd.DataFrame) -> dict[str, str]:
    """Family → colour; one colour for all where the table has no families."""
    if "family" not in table:
        return {"": FAMILY_COLOURS["flow"]}
    families = list(dict.fromkeys(table["family"]))
    spare = sns.color_palette("husl", len(families)).as_hex()
    return {family: FAMILY_COLOURS.get(family, other) for family, other in zip(families, spare)}


def _scores(axis: plt.Axes, rows: pd.DataFrame, name: str, y: str, systems: Sequence[str],
            colours: dict[str, str], inches: float) -> int:
    """One panel of `score_plot`; how many references lie beyond its edges and are written below the last
    system.
    """
    described, references, beyond = metrics.describe(name), metrics.references(rows, name), 0
    values, low, high = (rows[c].to_numpy(float) for c in SPREAD)
    if described.wide and np.ptp(np.log10(np.maximum(np.abs(values), 1e-12))) > 1:
        orders_of_magnitude(axis, "x", values, low, high, inches - 0.2, real_values(rows, name))
    else:
        others = [value for value, kind, _ in references if kind != "real"]
        axis.set_xlim(*edges_of(values, low, high, real_values(rows, name), others))
        most = max(2, int((inches - 0.3) / 0.45))
        axis.xaxis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
    first, last = axis.get_xlim()
    shown, family = rows["value"].between(first, last), rows.get("family", pd.Series("", rows.index))
    places = rows[y].map(systems.index)
    for kind, some in rows[shown].groupby(family[shown], sort=False):
        axis.errorbar(some["value"], places[some.index], xerr=interval(some), fmt="o", ms=4, capsize=2, color=colours[kind])
    for place, value, kind in zip(places[~shown], rows.loc[~shown, "value"], family[~shown]):
        point_beyond(axis, place, metrics.number(name, value), value > last, colours[kind])
    for value, kind, _ in references:
        if first <= value <= last:
            axis.axvline(value, ls=STYLES[kind], color=REAL_COLOUR, lw=1, zorder=1)
        else:
            text = f"{STYLE_WORDS[kind]}: {value:.3g}"
            point_beyond(axis, len(systems) - 0.3 + 0.9 * beyond, text, value > last, REAL_COLOUR)
            beyond += 1
    axis.set_title(wrapped(metrics.title(name), inches - 0.15, NORMAL), fontsize=NORMAL)
    axis.set_xlabel(", ".join(filter(None, (described.unit, _direction(rows, name)))), fontsize=SMALL)
    axis.tick_params(labelsize=SMALL)
    axis.grid(axis="y", alpha=0.4)
    return beyond


def _direction(rows: pd.DataFrame, name: str) -> str:
    return metrics.direction(name, rows["better"].iloc[0]) if "better" in rows else ""


def learning_curves(table: pd.DataFrame) -> Figure:
    """One panel per curve and metric, two beside each other; one line per system and sampler."""
    table = table[table["value"].notna()]
    if table.empty:
        return notice("no curve has been measured")
    panels = list(table.groupby(["curve", "metric"], sort=False).groups)
    samplers = [f", {s}" if isinstance(s, str) else "" for s in table["sampler"]]
    table = table.assign(line=table["system"] + samplers)
    wide, high, looks = min(2, len(panels)), -(-len(panels) // 2), _looks(table)
    figure, axes = _grid(high, wide, (5.4 * wide, 3.5 * high + 0.6))
    axes[-1, -1].set_visible(len(panels) == axes.size)
    for axis, (curve, name) in zip(axes.flat, panels):
        _curves(axis, table[(table["curve"] == curve) & (table["metric"] == name)], name, looks)
        axis.set_xlabel(CURVES.get(curve, curve), fontsize=NORMAL)
    handles = {text: Line2D([], [], ms=4, lw=1.4, **look) for text, look in looks.items()}
    legend_below(figure, {**handles, **reference_handles(table, ["real"])})
    return figure


def _curves(axis: plt.Axes, part: pd.DataFrame, name: str, looks: dict[str, dict[str, object]]) -> None:
    """One panel of `learning_curves`."""
    lines, real = list(part.groupby("line", sort=False)), real_values(part, name)
    for place, (text, line) in enumerate(lines):
        line = line.sort_values("x")
        shift = 1 + 0.015 * (place - (len(lines) - 1) / 2)  # so that intervals do not hide each other
        _, caps, bars = axis.errorbar(line["x"] * shift, line["value"], interval(line), ms=4, lw=1.4, elinewidth=0.9,
                                      capsize=2, **looks[text])
        for faint in (*caps, *bars):
            faint.set_alpha(0.45)
    for value in real:
        axis.axhline(value, ls=STYLES["real"], color=REAL_COLOUR, lw=1)
    edge, few = 1.1 + 0.015 * len(lines), sorted(set(part["x"]))
    axis.set(xscale="log", xlim=(part["x"].min() / edge, part["x"].max() * edge))
    set_ticks(axis, "x", 4.4, few if len(few) <= 8 else ())
    values, low, high = (part[c].to_numpy(float) for c in SPREAD)
    if metrics.describe(name).wide or values.max() > FLATTENS * np.median(np.abs(values)):
        orders_of_magnitude(axis, "y", values, low, high, 2.4, real)
    axis.set_ylabel(_direction(part, name), fontsize=SMALL)
    axis.set_title(wrapped(metrics.label(name), 4.6, NORMAL), fontsize=NORMAL)
    axis.tick_params(labelsize=SMALL)


def _looks(table: pd.DataFrame) -> dict[str, dict[str, object]]:
    """Line → colour, marker and dashes. A system has its own colour in every figure (`system_colour`), shades of it for the
    samplers of a figure that has no other system; marker and dashes tell samplers apart, else systems of one family."""
    lines = table.drop_duplicates("line")
    alone = lines["system"].nunique() == 1
    turns = lines.groupby("system" if lines["system"].duplicated().any() else "family", sort=False).cumcount()
    found = {}
    for row, turn in zip(lines.itertuples(), turns):
        own = system_colour(row.system, row.family)
        found[row.line] = {"color": shade(own, turn) if alone else own, "marker": MARKERS[turn % len(MARKERS)],
                           "ls": LINES[turn % len(LINES)]}
    return found


def ablation_design(table: pd.DataFrame) -> Figure:
    """The factorial design: metrics down, families across, content of the mask along each axis, colours for
    methods.
    """
    chosen, families = list(dict.fromkeys(table["metric"])), list(dict.fromkeys(table["family"]))
    contents = {content: place for place, content in enumerate(dict.fromkeys(table["content"]))}
    methods = [method for method in METHOD_COLOURS if method in set(table["method"])]
    size = PAGE, 2.2 * len(chosen) + 0.9
    figure, axes = _grid(len(chosen), len(families), size, sharex=True, sharey="row")
    for (name, family), part in table.groupby(["metric", "family"], sort=False):
        axis = axes[chosen.index(name), families.index(family)]
        for row in part.itertuples():
            place = methods.index(row.method) if row.method in methods else (len(methods) - 1) / 2
            side = 0.18 * (place - (len(methods) - 1) / 2)
            axis.errorbar(contents[row.content] + side, row.value, interval(row), fmt="o", ms=4, capsize=2,
                          color=METHOD_COLOURS.get(row.method, "black"))
        for value in real_values(part, name):
            axis.axhline(value, ls=STYLES["real"], color=REAL_COLOUR, lw=1)
        for value, kind, meaning in metrics.references(part, name):
            if kind == "nothing":  # far below: a line there would flatten what is to be compared
                axis.text(0.02, 0.04, f"{meaning}: {metrics.number(name, value)}", transform=axis.transAxes,
                          fontsize=SMALL, color=REAL_COLOUR)
        axis.set_xticks(list(contents.values()), [wrapped(review.CONTENTS.get(c, c), 0.86) for c in contents])
        axis.set_xlim(-0.5, len(contents) - 0.5)
        axis.tick_params(labelsize=SMALL)
    for axis, family in zip(axes[0], families):
        axis.set_title(family, fontsize=NORMAL)
    for line, name in zip(axes, chosen):
        rows = table[table["metric"] == name]
        if metrics.describe(name).wide:
            spread = (rows[c].to_numpy(float) for c in SPREAD)
            orders_of_magnitude(line[0], "y", *spread, 1.7, real_values(rows, name))
        line[0].set_ylabel(f"{wrapped(metrics.label(name), 2.0)}\n{_direction(rows, name)}", fontsize=SMALL)
    dots = {review.METHODS[m]: _dot(METHOD_COLOURS[m]) for m in methods}
    dots = {review.METHODS["none"]: _dot("black"), **dots}
    legend_below(figure, {**dots, **reference_handles(table, ["real"])})
    return figure


def heat_map(table: pd.DataFrame) -> Figure:
    """Metrics × corruptions: response in standard deviations between groups of real patients; a dot where the
    value lies beyond what real groups show. Colours saturate at 10, numbers are cut off at `CUT`."""
    rows, columns = list(dict.fromkeys(table["metric"])), list(dict.fromkeys(table["corruption"]))
    response, beyond = (table.pivot(index="metric", columns="corruption", values=c).loc[rows, columns]
                        for c in ("response", "beyond"))
    shown = response.map(lambda v: f"{v:.1f}" if abs(v) < CUT else f"{'>' if v > 0 else '<−'}{CUT:.0f}")
    shown = shown.replace("-0.0", "0.0")
    figure, axis = plt.subplots(figsize=(PAGE, 0.27 * len(rows) + 1.5), layout="constrained")
    sns.heatmap(response.clip(-10, 10), annot=shown + beyond.map(lambda b: " •" if b else ""), fmt="",
                cmap="vlag", center=0, vmin=-10, vmax=10, ax=axis, annot_kws={"size": SMALL},
                cbar_kws={"location": "bottom", "aspect": 50, "shrink": 0.6, "pad": 0.02})
    scale = axis.collections[0].colorbar
    scale.set_label("change for the worse / spread between groups of real patients; "
                    "•: beyond what these groups show", fontsize=SMALL)
    scale.ax.tick_params(labelsize=SMALL)
    axis.xaxis.tick_top()
    axis.set_xticks(np.arange(len(columns)) + 0.5, [wrapped(c, 0.6) for c in columns], fontsize=SMALL)
    axis.set_yticks(np.arange(len(rows)) + 0.5, [metrics.title(m) for m in rows], fontsize=SMALL, rotation=0)
    axis.set(xlabel="", ylabel="")
    axis.tick_params(length=0)
    return figure
