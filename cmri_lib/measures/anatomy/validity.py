"""Is a label map a heart at all? Rules of topology and of size, as a measure of synthetic masks and as a screen for them.

A label map can overlap well with some mask on average and still show what no heart has: two cavities, an open wall at
mid-ventricle, a right ventricle that floats. Where masks are synthesised before images, such maps are better not
used (Li, Ma & Shi 2025, label screening). Topology is fixed below; what sizes a heart can have is learnt from training masks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.ndimage import binary_dilation, label

from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError
from cmri_lib.measures.anatomy.adherence import Segment, proportions
from cmri_lib.measures.statistics.comparison import Embedding, Measure, Metric, Statistic

#: Neighbours by edge and corner.
EIGHT = np.ones((3, 3), bool)
#: Share of the cavity's outline that may lie bare of myocardium: at the base the wall opens towards the aorta and the
#: atrium, elsewhere a gap is a fault.
OPENING = {"basal": 0.5, "mid": 0.0, "apical": 0.0}
#: Parts of a structure below this many pixels are the resampling's, not a second structure.
SPECK = 2
SIZES = ("LV_mm2", "Myo_mm2", "RV_mm2", "wall_mm")
RULES = ("something", "one LV", "one myocardium", "one RV", "closed wall", "RV at the wall", "sizes")


@dataclass(frozen=True)
class Ranges:
    """Smallest and largest plausible value of each of `SIZES`, where the structure is present."""

    low: pd.Series
    high: pd.Series

    @classmethod
    def of(cls, training: Slices, margin: float = 0.1) -> Ranges:
        """The extremes of real training masks, widened by `margin` of themselves.

        Raises:
            DataError: if a slice is not a real one of the training split, or no mask shows a structure.
        """
        if not training.masks.any():
            raise DataError("no label to learn sizes from", field="training", remedy="give labelled training patients")
        if (training.table["split"] != "train").any() or (training.table["source"] != "real").any():
            raise DataError("ranges are of real training masks", field="training", remedy='use slices.where(split="train")')
        seen = _sizes(training.masks, training.table)
        return cls(seen.min() * (1 - margin), seen.max() * (1 + margin))


def validity(masks: np.ndarray, table: pd.DataFrame, ranges: Ranges) -> pd.DataFrame:
    """One column per rule of `RULES` and ``valid``, all of them together; one row per label map (N, H, W).

    Args:
        table: `level` and `spacing` of every slice.
    """
    rows = pd.DataFrame([_topology(mask, level) for mask, level in zip(masks, table["level"])], columns=RULES[:-1])
    sizes = _sizes(masks, table.reset_index(drop=True))
    if np.isnan(ranges.high["Myo_mm2"]):  # nobody has labelled the wall, so none can be asked for
        rows["closed wall"] = True
    inside = (sizes.isna() | ((sizes >= ranges.low) & (sizes <= ranges.high))).all(axis=1)
    rows["sizes"] = inside.to_numpy()
    return rows.assign(valid=rows.all(axis=1))


def screened(slices: Slices, ranges: Ranges) -> Slices:
    """Those slices whose label maps are hearts; raises DataError if none is."""
    kept = validity(slices.masks, slices.table, ranges)["valid"].to_numpy()
    if not kept.any():
        raise DataError("no label map passes the screen", field="masks", remedy="train longer, or look at what they show")
    return slices.take(kept)


def validity_of_masks(ranges: Ranges) -> Measure:
    """The measure ``mask_valid``: share of label maps that pass all rules. The floor, real masks, is not 1: annotators
    leave gaps as well."""
    return _share("mask_valid", ranges, lambda slices: slices.masks)


def validity_of_samples(ranges: Ranges, segment: Segment) -> Measure:
    """The measure ``heart_valid``: share of images in which the frozen segmenter sees a heart that passes all rules. Its
    own faults count as well: read it against the floor, real images."""
    return _share("heart_valid", ranges, lambda slices: segment(slices.images))


def _share(name: str, ranges: Ranges, label_maps: Callable[[Slices], np.ndarray]) -> Measure:
    known: dict[tuple[bytes, str, float], float] = {}  # real slices are compared with many sets, and the rules are slow

    def embed(slices: Slices) -> np.ndarray:
        masks, table = label_maps(slices), slices.table
        keys = [(mask.tobytes(), *row) for mask, row in zip(masks, zip(table["level"], table["spacing"]))]
        if new := list({key: i for i, key in enumerate(keys) if key not in known}.values()):
            valid = validity(masks[new], table.iloc[new], ranges)["valid"]
            known.update(zip((keys[i] for i in new), valid.to_numpy(float)))
        return np.array([[known[key]] for key in keys])

    def statistics(real: Embedding, synthetic: Embedding) -> tuple[Statistic]:
        return (lambda u, v: float(np.average(synthetic.values[:, 0], weights=v)),)

    return Measure((Metric(name, "higher", bound=1.0),), embed, statistics, axis="anatomy")


def _sizes(masks: np.ndarray, table: pd.DataFrame) -> pd.DataFrame:
    """(N, 4) of `SIZES`, NaN where the structure is absent."""
    seen = proportions(masks, table)[list(SIZES)]
    return seen.where(seen > 0)


def _topology(mask: np.ndarray, level: str) -> tuple[bool, ...]:
    """Every rule but that of sizes, for one label map (H, W)."""
    lv, wall, rv = (mask == LABELS[name] for name in ("LV", "Myo", "RV"))
    outline = binary_dilation(lv) & ~lv  # edge neighbours of the cavity
    bare = float((outline & ~wall).sum()) / max(1, int(outline.sum()))
    beside = binary_dilation(rv, EIGHT)
    return (bool(mask.any()), _parts(lv) <= 1, _parts(wall) <= 1, _parts(rv) <= 1,
            bare <= OPENING.get(level, max(OPENING.values())),
            not rv.any() or not wall.any() or bool((beside & wall).any()))


def _parts(structure: np.ndarray) -> int:
    """Connected parts of at least `SPECK` pixels."""
    parts, _ = label(structure, EIGHT)
    return int((np.bincount(parts.ravel())[1:] >= SPECK).sum())
