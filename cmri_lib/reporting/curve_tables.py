"""Learning curves as tables to read, which notebooks of several families share: values with their intervals,
below the floor, what real images score in the place of samples.
"""

from __future__ import annotations

import pandas as pd

from cmri_lib.reporting import metrics
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE

FLOOR = "floor"


def side_by_side(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """One row per value of the column `by`, below the row "floor"; a column per metric, "value [low, high]".

    Args:
        rows: of curves (`experiments.learning_curves`), one per metric and value of `by`.
    """
    chosen = list(dict.fromkeys(rows["metric"]))
    cells = rows.assign(cell=[metrics.with_interval(row) for row in rows.itertuples()])
    table = cells.pivot(index=by, columns="metric", values="cell")
    floor = {name: metrics.number(name, rows.loc[rows["metric"] == name, "floor"].mean()) for name in chosen}
    table = pd.concat([pd.DataFrame(floor, index=[FLOOR]), table.loc[list(dict.fromkeys(rows[by])), chosen]])
    return table.fillna("").rename(columns=metrics.short)


def at_the_end(curves: pd.DataFrame) -> pd.DataFrame:
    """What every system scores at the end of its training, `side_by_side`."""
    return side_by_side(_last(curves[curves["curve"] == "images"], "system"), "system")


def fewest_evaluations(curves: pd.DataFrame) -> pd.DataFrame:
    """Both headline distances of every system and sampler with the most network evaluations, `side_by_side`;
    how many these are, and the fewest with which neither distance is above its interval at the most."""
    points = curves[(curves["curve"] == "NFE") & curves["metric"].isin([ANATOMY, APPEARANCE])]
    points = points.assign(line=points["system"] + ", " + points["sampler"])
    last = _last(points, "line")
    limits = points[["line", "metric"]].merge(last[["line", "metric", "high"]], how="left")["high"]
    enough = (points["value"] <= limits.to_numpy()).groupby([points["line"], points["x"]]).all()
    fewest = enough[enough].reset_index("x").groupby("line")["x"].min()
    table, most = side_by_side(last, "line"), last.groupby("line")["x"].max()
    return table.assign(**{name: [metrics.number("nfe", count) for count in counts.reindex(table.index)]
                           for name, counts in (("most NFE", most), ("fewest NFE", fewest))})


def _last(points: pd.DataFrame, line: str) -> pd.DataFrame:
    """The point with the largest x of every line and metric."""
    points = points.reset_index(drop=True)
    return points.loc[points.groupby([line, "metric"], sort=False)["x"].idxmax()]
