"""Shapes: do the hearts in the samples have the sizes and proportions that real hearts have?

The frozen segmenter reads the heart from real and from synthetic images alike, so its own faults are on both sides.
Needs no condition, so it serves unconditional systems, where adherence to a mask has no meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import wasserstein_distance

from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.slices import Slices
from cmri_lib.measures.anatomy.adherence import Segment, dice, proportions
from cmri_lib.measures.statistics.comparison import DISTANCE, SHARE, Embedding, Measure, Metric, Statistic

#: What is compared, as named in the rows; the ratios are of areas.
SHAPES = ("lv_cm2", "myo_cm2", "rv_cm2", "lv_myo", "rv_lv", "wall_mm")
#: A ratio to an area below this (mm²) says more about single pixels than about the heart: left out.
SMALLEST = 50.0


def shapes(masks: np.ndarray, slices: Slices) -> np.ndarray:
    """`SHAPES` of label maps (N, H, W), with the spacing of `slices`: (N, 6), NaN where a structure is absent."""
    table = proportions(masks, slices.table)
    area = {name: table[f"{name}_mm2"].to_numpy() for name in LABELS}
    columns = [np.where(area[name] > 0, area[name], np.nan) / 100 for name in ("LV", "Myo", "RV")]
    columns += [np.where(area[below] >= SMALLEST, table[ratio], np.nan)
                for ratio, below in (("lv_myo", "Myo"), ("rv_lv", "LV"))]
    return np.stack([*columns, table["wall_mm"].to_numpy()], axis=1)


def shape_statistics(real: Embedding, synthetic: Embedding) -> Sequence[Statistic]:
    """One Wasserstein distance per column, and the share of samples without an LV cavity, as functions of counts."""
    def missing(u: np.ndarray, v: np.ndarray) -> float:
        return float(np.average(np.isnan(synthetic.values[:, 0]), weights=v))

    return (*(_transport(x, y) for x, y in zip(real.values.T, synthetic.values.T)), missing)


def _transport(x: np.ndarray, y: np.ndarray) -> Statistic:
    """1-Wasserstein distance of the values that are known, over the standard deviation of the real ones."""
    known, seen = np.isfinite(x), np.isfinite(y)
    x, y = x[known], y[seen]
    spread = x.std() if len(x) else np.nan

    def distance(u: np.ndarray, v: np.ndarray) -> float:
        u, v = u[known], v[seen]
        if not u.sum() or not v.sum() or not spread > 0:
            return float("nan")
        return float(wasserstein_distance(x, y, u, v) / spread)

    return distance


def anatomy_of_samples(segment: Segment) -> Measure:
    """The measure that gives

    - ``anatomy_w1_<shape>`` for each of `SHAPES`: 1-Wasserstein distance to real hearts, in standard deviations of the
      real ones (areas in cm², wall in mm before that), where the structure is seen; NaN if one side shows it nowhere;
    - ``anatomy_lv_missing``: share of samples in which the segmenter sees no LV cavity. A real stack misses it at the
      apex at times, which is the floor.
    """
    return _anatomy("anatomy", lambda s: shapes(segment(s.images), s))


def anatomy_of_masks() -> Measure:
    """``mask_w1_<shape>`` and ``mask_lv_missing``: as `anatomy_of_samples`, of the masks that slices come with. No segmenter
    stands between, so it serves masks that have no image yet."""
    return _anatomy("mask", lambda s: shapes(s.masks, s))


def _anatomy(prefix: str, embed: Callable[[Slices], np.ndarray]) -> Measure:
    names = [Metric(f"{prefix}_w1_{name}", "lower", centred=True, scale=DISTANCE) for name in SHAPES]
    return Measure((*names, Metric(f"{prefix}_lv_missing", "lower", scale=SHARE)), embed, shape_statistics, axis="anatomy")


def slice_dice(segment: Segment) -> Callable[[Slices, Slices], float]:
    """A plain function of (real, synthetic): mean Dice, over slices and structures, of the map seen in the samples with
    the masks they come with. Quicker than `adherence`, for comparing corruptions; not for tables."""
    def value(real: Slices, synthetic: Slices) -> float:
        seen = segment(synthetic.images)
        scores = [dice(a == label, b == label) for a, b in zip(seen, synthetic.masks) for label in LABELS.values()]
        return float(np.nanmean(scores))

    return value
