"""Is a label map a heart at all? Rules of topology and of size, as a measure of synthetic masks and as a screen for them.

A label map can overlap well with some mask on average and still show what no heart has: two cavities, an open wall at
mid-ventricle, a right ventricle that floats, or no ventricle. Where masks are synthesised before images, such maps are
better not used (Li, Ma & Shi 2025, label screening). What a level of the heart must show, and in which sizes, is learnt
from training masks; topology is fixed.

The rules are written once and read two kinds of map. A **mask** was drawn to be used, so it must be clean. A map that the
frozen **segmenter read** from an image has the segmenter's own crumbs and gaps, which are no fault of the image. But the
segmenter must be about as sure of it as it is of real hearts: it finds shapes in noise as well. `READ` and `UNSURE` were
chosen on validation patients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.ndimage import binary_dilation, label

from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.slices import UNKNOWN, Slices
from cmri_lib.errors import DataError
from cmri_lib.measures.anatomy.adherence import Segment, proportions
from cmri_lib.measures.statistics.comparison import SHARE, Embedding, Measure, Metric, Statistic

#: Neighbours by edge and corner.
EIGHT = np.ones((3, 3), bool)
SIZES = ("LV_mm2", "Myo_mm2", "RV_mm2", "wall_mm", "lv_myo")
RULES = ("something", "LV and wall", "RV where due", "one LV", "one myocardium", "one RV", "closed wall",
         "RV at the wall", "in place", "sizes")
#: A structure is due at a level where this share of the training slices shows it.
DUE = 0.8
#: Distance of the left ventricle's centre from that of the image: the crop puts the heart in the middle.
PLACE = "off_centre_mm"
#: Sizes of so many training slices of a level, from the smallest and from the largest, are not counted as plausible.
TAIL = 0.005
#: Fewer slices than this have no range of their own.
FEWEST = 5


@dataclass(frozen=True)
class Tolerance:
    """What a kind of label map is forgiven.

    Attributes:
        opening: level → share of the cavity's outline that may lie bare of myocardium; at the base the wall opens
            towards the aorta and the atrium, elsewhere a gap is a fault.
        stray: share of a structure that may lie outside its largest part; of the thin RV twice as much.
        speck: pixels that may lie outside it at any size of the structure.
    """

    opening: Mapping[str, float]
    stray: float
    speck: int

    def opening_at(self, level: str) -> float:
        """The share at a level; the largest where the level is unknown."""
        return self.opening.get(level, max(self.opening.values()))


#: A mask: parts below two pixels are the resampling's.
DRAWN = Tolerance({"basal": 0.5, "mid": 0.0, "apical": 0.0}, stray=0.0, speck=1)
#: A map that the segmenter read from an image.
READ = Tolerance({"basal": 0.5, "mid": 0.25, "apical": 0.4}, stray=0.3, speck=1)
#: Share of the real training hearts, found valid, of which the segmenter is least sure: below it nothing is a heart.
UNSURE = 0.02


@dataclass(frozen=True)
class Span:
    """Smallest and largest plausible value of each of `SIZES` and of `PLACE`, where the structure is present."""

    low: pd.Series
    high: pd.Series

    @classmethod
    def of(cls, sizes: pd.DataFrame, margin: float, pixel: float) -> Span:
        """All but the outermost `TAIL` on each side; that of sizes is widened by `margin` of itself, because hearts vary
        more than the crop does."""
        low, high = sizes.quantile(TAIL), sizes.quantile(1 - TAIL)
        low[list(SIZES)] *= 1 - margin
        high[list(SIZES)] *= 1 + margin
        low[PLACE] = 0.0
        high[PLACE] = max(high[PLACE], pixel)  # mm; nobody's place is known better
        return cls(low, high)

    def holds(self, sizes: pd.DataFrame) -> pd.DataFrame:
        """Which values lie within; those that are absent do."""
        return sizes.isna() | ((sizes >= self.low) & (sizes <= self.high))


@dataclass(frozen=True)
class Ranges:
    """What training masks show at each level.

    Attributes:
        every, without_rv: level → sizes of all slices, and of those without an RV: where it has ended, the left ventricle
            is small.
        due: level → structures that nearly every slice of that level shows.
    """

    every: Mapping[str, Span]
    without_rv: Mapping[str, Span]
    due: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, training: Slices, margin: float = 0.15) -> Ranges:
        """The ranges of real training masks, see `Span.of`.

        Raises:
            DataError: if a slice is not a real one of the training split, or no mask shows a structure.
        """
        if not training.masks.any():
            raise DataError("no label to learn sizes from", field="training", remedy="give labelled training patients")
        if (training.table["split"] != "train").any() or (training.table["source"] != "real").any():
            raise DataError("ranges are of real training masks", field="training", remedy='use slices.where(split="train")')
        every, without_rv, due = {}, {}, {}
        pixel = float(training.table["spacing"].max())
        for level, seen in _sizes(training.masks, training.table).groupby(training.table["level"].to_numpy()):
            every[level] = Span.of(seen, margin, pixel)
            lone = seen[seen["RV_mm2"].isna()]
            without_rv[level] = Span.of(lone, margin, pixel) if len(lone) >= FEWEST else every[level]
            due[level] = frozenset(name for name in LABELS if seen[f"{name}_mm2"].notna().mean() >= DUE)
        return cls(every, without_rv, due)


def validity(masks: np.ndarray, table: pd.DataFrame, ranges: Ranges, tolerance: Tolerance = DRAWN) -> pd.DataFrame:
    """One column per rule of `RULES` and ``valid``, all of them together; one row per label map (N, H, W).

    A map of unknown level, as an unconditional generator makes, is judged at each level that training has, and has the
    rules of the one at which it breaks fewest.

    Args:
        table: `level` and `spacing` of every slice.
    """
    findings = pd.concat([pd.DataFrame([_findings(mask) for mask in masks], columns=FINDINGS),
                          _sizes(masks, table.reset_index(drop=True))], axis=1)
    levels = table["level"].to_numpy()
    by_level = {level: _rules(findings, level, ranges, tolerance) for level in ranges.due}
    kept = pd.DataFrame({level: rules.sum(axis=1) for level, rules in by_level.items()}).idxmax(axis=1)
    level_of = [own if own in by_level else best for own, best in zip(levels, kept)]
    rows = pd.DataFrame([by_level[level].iloc[i] for i, level in enumerate(level_of)], columns=list(RULES))
    return rows.reset_index(drop=True).assign(valid=rows.all(axis=1).to_numpy())


def screened(slices: Slices, ranges: Ranges) -> Slices:
    """Those slices whose label maps are hearts; raises DataError if none is."""
    kept = validity(slices.masks, slices.table, ranges)["valid"].to_numpy()
    if not kept.any():
        raise DataError("no label map passes the screen", field="masks", remedy="train longer, or look at what they show")
    return slices.take(kept)


def validity_of_masks(ranges: Ranges) -> Measure:
    """The measure ``mask_valid``: share of label maps that pass all rules at their level. The floor, real masks, is not 1:
    annotators leave gaps as well."""
    return _share("mask_valid", lambda slices: (slices.masks, slices.table), ranges, DRAWN)


@dataclass(frozen=True)
class Certainty:
    """How sure a segmenter is: `of` images (N, 1, H, W) → (N,), and the least that a heart has."""

    of: Callable[[np.ndarray], np.ndarray]
    least: float

    @classmethod
    def learnt(cls, of: Callable[[np.ndarray], np.ndarray], segment: Segment, training: Slices, ranges: Ranges) -> Certainty:
        """The least is exceeded by all but `UNSURE` of the training images that show valid hearts."""
        found = validity(segment(training.images), training.table, ranges, READ)["valid"].to_numpy()
        return cls(of, float(np.quantile(of(training.images)[found], UNSURE)) if found.any() else 0.0)


def validity_of_samples(ranges: Ranges, segment: Segment, certainty: Certainty | None = None) -> Measure:
    """The measure ``heart_valid``: share of images in which the frozen segmenter sees a heart, at whatever level, and is
    sure of it where `certainty` is given.

    Which level an image should show is not asked, so that systems with and without conditions are judged alike; whether
    a mask is followed is asked by adherence. The segmenter's own faults count as well: read it against the floor, real
    images.
    """
    def sure(slices: Slices) -> np.ndarray:
        return np.ones(len(slices)) if certainty is None else certainty.of(slices.images) >= certainty.least

    return _share("heart_valid", lambda slices: (segment(slices.images), slices.table.assign(level=UNKNOWN)), ranges, READ,
                  sure)


def _share(name: str, label_maps: Callable[[Slices], tuple[np.ndarray, pd.DataFrame]], ranges: Ranges,
           tolerance: Tolerance, sure: Callable[[Slices], np.ndarray] = lambda slices: np.ones(len(slices))) -> Measure:
    known: dict[tuple[bytes, str, float], float] = {}  # real slices are compared with many sets, and the rules are slow

    def embed(slices: Slices) -> np.ndarray:
        masks, table = label_maps(slices)
        keys = [(mask.tobytes(), *row) for mask, row in zip(masks, zip(table["level"], table["spacing"]))]
        if new := list({key: i for i, key in enumerate(keys) if key not in known}.values()):
            valid = validity(masks[new], table.iloc[new], ranges, tolerance)["valid"]
            known.update(zip((keys[i] for i in new), valid.to_numpy(float)))
        return np.array([known[key] for key in keys])[:, None] * sure(slices)[:, None]

    def statistics(real: Embedding, synthetic: Embedding) -> tuple[Statistic]:
        return (lambda u, v: float(np.average(synthetic.values[:, 0], weights=v)),)

    return Measure((Metric(name, "higher", bound=1.0, scale=SHARE),), embed, statistics, axis="anatomy")


def _sizes(masks: np.ndarray, table: pd.DataFrame) -> pd.DataFrame:
    """(N, 6) of `SIZES` and `PLACE`, NaN where the structure is absent."""
    seen = proportions(masks, table)[list(SIZES)]
    ventricles = (masks == LABELS["LV"]) | (masks == LABELS["Myo"])
    off = [np.hypot(*(np.argwhere(m).mean(0) - (np.array(m.shape) - 1) / 2)) if m.any() else np.nan for m in ventricles]
    return seen.where(seen > 0).assign(**{PLACE: np.array(off) * table["spacing"].to_numpy(float)})


#: What one map shows: pixels outside the largest part and share of the structure they are, by structure; share of the
#: cavity's outline that is bare; does the RV touch the wall (or is there none)?
FINDINGS = (*(f"{what} {name}" for name in LABELS for what in ("pixels", "stray")), "bare", "beside")


def _findings(mask: np.ndarray) -> tuple[float, ...]:
    """`FINDINGS` of one label map (H, W)."""
    found: list[float] = []
    for value in LABELS.values():
        parts, _ = label(mask == value, EIGHT)
        areas = np.bincount(parts.ravel())[1:]
        found += [int(areas.sum()), int(areas.sum() - areas.max(initial=0))]
    lv, wall, rv = (mask == LABELS[name] for name in ("LV", "Myo", "RV"))
    beside = not rv.any() or not wall.any() or (binary_dilation(rv, EIGHT) & wall).any()
    return (*found, bare_share(lv, wall), float(beside))


def bare_share(cavity: np.ndarray, wall: np.ndarray) -> float:
    """Share of the outline of a cavity (H, W) that is not wall; 0 without a cavity."""
    outline = binary_dilation(cavity) & ~cavity  # edge neighbours
    return float((outline & ~wall).sum() / max(1, outline.sum()))


def _rules(found: pd.DataFrame, level: str, ranges: Ranges, tolerance: Tolerance) -> pd.DataFrame:
    """(N, `RULES`) booleans at one level."""
    due = ranges.due[level]
    shown = {name: found[f"pixels {name}"] > 0 for name in LABELS}
    allowed = {"LV": tolerance.stray, "Myo": tolerance.stray, "RV": 2 * tolerance.stray}
    one = {name: found[f"stray {name}"] <= np.maximum(tolerance.speck, allowed[name] * found[f"pixels {name}"])
           for name in LABELS}
    sizes = found[[*SIZES, PLACE]]
    inside = ranges.every[level].holds(sizes) & (ranges.without_rv[level].holds(sizes).where(~shown["RV"], True))
    opening = tolerance.opening_at(level)
    needed = [shown[name] | (name not in due) for name in ("LV", "Myo")]
    labelled = any("Myo" in structures for structures in ranges.due.values())  # else no wall can be asked for
    columns = (shown["LV"] | shown["Myo"] | shown["RV"], needed[0] & needed[1], shown["RV"] | ("RV" not in due),
               one["LV"], one["Myo"], one["RV"], (found["bare"] <= opening) | (not labelled), found["beside"] > 0,
               inside[PLACE], inside[list(SIZES)].all(axis=1))
    return pd.DataFrame(dict(zip(RULES, columns)))
