"""Axes of the study's plots: limits that one value far away does not stretch, ticks that do not overlap, intervals, and marks
for what lies beyond an edge. Used by the modules of plots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from cmri_lib.reporting import metrics
from cmri_lib.reporting.figures import CHARACTER, SMALL

#: A value is far outside if it lies so many interquartile ranges beyond the quartiles, and the axis would
#: have to be so many times as long to show it.
FAR, LONGER = 3.0, 3.0


def interval(rows: tuple | pd.DataFrame) -> np.ndarray:
    """(2, N): what lies below and above each value of a row or a table; 0 where there is no interval."""
    value, low, high = (np.atleast_1d(part) for part in (rows.value, rows.low, rows.high))
    return np.nan_to_num(np.clip([value - low, high - value], 0, None))


def without_constants(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The rows of a plot without metrics that have one value throughout, where others are left; and a sentence that says it,
    in the place of their panels: a column of equal points shows nothing that a number does not."""
    same = {name: rows["value"].iloc[0] for name, rows in table.groupby("metric", sort=False)
            if len(rows) > 2 and (rows[["value", "low", "high"]] == rows["value"].iloc[0]).all(axis=None)}
    if len(same) == table["metric"].nunique():
        return table, ""
    said = [f"{metrics.title(name)}: {metrics.number(name, value)} throughout" for name, value in same.items()]
    return table[~table["metric"].isin(list(same))], "; ".join(said)


def point_beyond(axis: plt.Axes, place: float, text: str, right: bool, colour: str) -> None:
    """What lies beyond an edge of the panel: its number and an arrow that points there."""
    text, where, side = (f"{text} ▸", 0.99, "right") if right else (f"◂ {text}", 0.01, "left")
    axis.text(where, place, text, transform=axis.get_yaxis_transform(), ha=side, va="center", fontsize=SMALL,
              color=colour)


def point_above(axis: plt.Axes, place: float, text: str, above: bool, colour: str, marker: str) -> None:
    """The same where values go upwards: a marker at the upper or the lower edge, and the number beside it."""
    end, side, arrow = (0.97, "top", "↑") if above else (0.03, "bottom", "↓")
    inside = axis.get_xaxis_transform()
    axis.plot(place, end, marker=marker, ms=5, color=colour, transform=inside, clip_on=False)
    axis.text(place - 0.12, end, f"{arrow} {text}", transform=inside, ha="right", va=side, fontsize=SMALL, color=colour)


def edges_of(values: np.ndarray, low: np.ndarray, high: np.ndarray, always: Sequence[float] = (),
             maybe: Sequence[float] = ()) -> tuple[float, float]:
    """Limits of a linear axis: every interval of the values that do not lie far outside (`FAR`), what is
    `always` shown, and what `maybe` is, if it is not far from these."""
    starts, ends = np.fmin(values, low), np.fmax(values, high)
    q1, q3 = np.percentile(values, (25, 75))
    near = (values >= q1 - FAR * (q3 - q1)) & (values <= q3 + FAR * (q3 - q1))
    spans = [(min([*starts[part], *always]), max([*ends[part], *always])) for part in (near, near | True)]
    first, last = spans[0] if np.diff(spans[1]) > LONGER * np.diff(spans[0]) else spans[1]
    size = max(last - first, 1e-9 + 0.1 * abs(last))
    shown = [m for m in maybe if first - 1.5 * size < m < last + 1.5 * size]
    first, last = min([first, *shown]), max([last, *shown])
    room = 0.05 * (last - first or max(abs(last), 1.0))  # all may be one number
    return first - room, last + room


def orders_of_magnitude(axis: plt.Axes, which: str, values: np.ndarray, low: np.ndarray, high: np.ndarray,
                        inches: float, always: Sequence[float] = ()) -> None:
    """A logarithmic scale, or one that is linear around 0 where a value, the end of an interval or what is
    `always` shown lies there (an unbiased estimate of 0 falls below it now and then). Ticks are plain numbers
    that do not overlap on an axis of so many `inches`."""
    starts, ends = np.fmin(values, low), np.fmax(values, high)
    last = 1.25 * float(max([*ends, *always]))
    if min([*starts, *always]) > 0 and min([*values, *always]) >= min(values) / 3:
        axis.set(**{f"{which}scale": "log", f"{which}lim": (min([*starts, *always]) / 1.25, last)})
    else:
        half = np.nan_to_num((high - low) / 2)
        step = 10 ** np.floor(np.log10(max(np.quantile(np.abs(values), 0.25), np.median(half), 1e-6)))
        first = min([0.0, *starts, *always])
        first = 1.25 * first if first < -step else first - 0.3 * step
        getattr(axis, f"set_{which}scale")("symlog", linthresh=step, linscale=0.6)
        axis.set(**{f"{which}lim": (first, last)})
    set_ticks(axis, which, inches)


def set_ticks(axis: plt.Axes, which: str, inches: float, candidates: Iterable[float] = ()) -> None:
    """Ticks among `candidates`, else 0, powers of ten, their doubles and fives, as many as fit side by
    side.
    """
    line, transform = getattr(axis, f"{which}axis"), getattr(axis, f"{which}axis").get_transform().transform
    first, last = getattr(axis, f"get_{which}lim")()
    powers = 10.0 ** np.arange(-6, 8)
    threshold = getattr(line.get_transform(), "linthresh", 0.0)
    order = list(candidates) or [0.0, *powers[::-1], *-powers[::-1], *(2 * powers), *(5 * powers)]
    ends = transform(np.array([first, last]))
    kept: dict[float, tuple[float, float]] = {}
    for tick in order:
        if first <= tick <= last and (tick == 0 or abs(tick) >= threshold):
            place = inches * float((transform(np.array([tick]))[0] - ends[0]) / (ends[1] - ends[0]))
            size = 0.17 if which == "y" else 0.12 + CHARACTER * 1.1 * len(_plain(tick))
            if all(abs(place - other) > (size + taken) / 2 for other, taken in kept.values()):
                kept[tick] = place, size
    line.set_major_locator(FixedLocator(sorted(kept)))
    line.set_major_formatter(lambda value, _: _plain(value))
    line.set_minor_locator(NullLocator())
    line.set_minor_formatter(NullFormatter())


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"
