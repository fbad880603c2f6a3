"""Anatomy: does an image show the heart its mask asks for, and do the hearts shown have the right proportions?

A frozen segmenter, trained on real training patients, reads the label map back from the image. Dice and Hausdorff
distance against the conditioning mask are then taken per volume (all slices of one patient and phase together) and
averaged over volumes, so that a patient with many slices does not count more.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects

from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.slices import Slices, known
from cmri_lib.cohort.stacks import volumes_of
from cmri_lib.errors import DataError
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.measures.statistics.comparison import Banks, paired_trainings, refuse_unlike, trainings
from cmri_lib.measures.statistics.seeds import mean_over_seeds

Segment = Callable[[np.ndarray], np.ndarray]
#: How the columns of `agreement` begin that score a volume.
SCORES = ("dice_", "hd95_", "missed_")


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """2 |A ∩ B| / (|A| + |B|) of boolean arrays of any shape; NaN if both are empty, 0 if one is."""
    total = int(first.sum()) + int(second.sum())
    return 2.0 * int((first & second).sum()) / total if total else float("nan")


def hausdorff95(first: np.ndarray, second: np.ndarray, spacing: tuple[float, ...]) -> float:
    """95 % Hausdorff distance in mm of boolean masks of one shape, with voxels of `spacing` mm along each axis.

    The larger of the two 95th percentiles of distances from one boundary to the other (Taha & Hanbury, BMC Medical
    Imaging 15:29, 2015). NaN if one is empty: there is no distance to what was missed, and a mean with the grid's diagonal in
    its place counts misses in millimetres. `agreement` counts them apart.
    """
    if not first.any() or not second.any():
        return float("nan")
    edges = [mask & ~binary_erosion(mask) for mask in (first, second)]
    inside = find_objects((edges[0] | edges[1]).astype(np.uint8))[0]  # both boundaries lie within
    a, b = (edge[inside] for edge in edges)
    forth, back = distance_transform_edt(~b, spacing)[a], distance_transform_edt(~a, spacing)[b]
    return float(max(np.percentile(forth, 95), np.percentile(back, 95)))


def stacked(masks: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(Z, H, W) from slices (n, H, W) at their places in a scan; what lies between them is empty."""
    volume = np.zeros((np.ptp(place) + 1, *masks.shape[1:]), masks.dtype)
    volume[place - place.min()] = masks
    return volume


def agreement(predicted: np.ndarray, wanted: np.ndarray, table: pd.DataFrame) -> pd.DataFrame:
    """Dice and 95 % Hausdorff distance of label maps (N, H, W), one row per volume; background does not count.

    A volume is the slices of one patient, scan and phase, stacked by `index` at `slice_mm`, empty where one is missing; several
    samples of one slice make several volumes.

    Returns:
        patient, scan, phase, then ``dice_<structure>``, ``dice_mean`` (over structures), ``hd95_<structure>``, and
        ``missed_<structure>``, 1 where a structure is in one map only, which has a Dice of 0 and no distance. All NaN where it
        is in neither.

    Raises:
        DataError: if there is no slice, or a spacing is unknown.
    """
    if not len(table):
        raise DataError("no slices to compare", field="masks", remedy="check the splits, or draw samples")
    rows, apart, side = [], known(table, "slice_mm"), known(table, "spacing")
    for keys, index in volumes_of(table):
        spacing = (apart[index[0]], side[index[0]], side[index[0]])
        row = dict(zip(("patient", "scan", "phase"), keys))
        found, asked = (stacked(masks[index], table["index"].to_numpy(int)[index]) for masks in (predicted, wanted))
        for name, label in LABELS.items():
            a, b = found == label, asked == label
            missed = float(a.any() != b.any()) if a.any() or b.any() else float("nan")
            row |= {f"dice_{name}": dice(a, b), f"hd95_{name}": hausdorff95(a, b, spacing), f"missed_{name}": missed}
        scores = np.array([row[f"dice_{name}"] for name in LABELS])
        row["dice_mean"] = float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")
        rows.append(row)
    scores = [f"{kind}_{name}" for name in LABELS for kind in ("dice", "hd95", "missed")]
    return pd.DataFrame(rows, columns=["patient", "scan", "phase", *scores, "dice_mean"])


def adherence(real: Slices, synthetic: Banks, segmenter: Segment, *, resamples: int = 1000, seed: int = 0,
              bounds: tuple[pd.DataFrame, pd.DataFrame] | None = None) -> list[dict[str, object]]:
    """Agreement of what `segmenter` sees in the synthetic images with the masks they were conditioned on.

    Args:
        real: real test slices, for ceiling and floor.
        synthetic: samples whose `masks` are the conditions and whose `patient` is the patient of the mask; a list of
            those of several trainings, under the same masks, is scored by its mean.
        segmenter: images → label maps, trained on real training patients.
        bounds: from `adherence_bounds`, if known already.

    Returns:
        Rows ``dice_<structure>``, ``dice_mean``, ``hd95_<structure>_mm`` of the volumes in which both have the structure, and
        the share of ``missed_<structure>``. n is the number of patients. **Ceiling**: the
        segmenter's own agreement on the real images, above which adherence measures nothing. **Floor**: real images
        against the mask of another patient, of the same phase and height, that is, an image of some heart but not of
        the one asked for; NaN with a warning if there is no other patient.

    Raises:
        DataError: if a set is empty or without masks, or the sets differ in size or intensities.
    """
    banks = trainings(synthetic)
    for bank in banks:
        refuse_unlike(real=real, synthetic=bank)
    for name, slices in (("real", real), *(("synthetic", bank) for bank in banks)):
        if not slices.masks.any():
            raise DataError("every mask is empty", field=name, remedy="score samples that follow masks, on labelled patients")
    obtained = [agreement(segmenter(bank.images), bank.masks, bank.table) for bank in banks]
    floor, ceiling = adherence_bounds(real, segmenter, seed) if bounds is None else bounds
    rows = []
    known = [c for c in obtained[0] if obtained[0][c].notna().any()]  # a structure that nobody has labelled has no row
    for column in [c for c in known if c.startswith(SCORES)]:
        score = mean_over_seeds([one[column].to_numpy() for one in obtained], obtained[0]["patient"].to_numpy(),
                                resamples=resamples, seed=seed)
        score = score.against(floor[column].mean(), ceiling[column].mean())
        name = f"{column}_mm" if column.startswith("hd95_") else column
        rows.append(score.row(name, "anatomy", "higher" if column.startswith("dice_") else "lower"))
    return rows


def adherence_bounds(real: Slices, segmenter: Segment, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Floor and ceiling of `adherence`, each a table of `agreement`."""
    seen = segmenter(real.images)
    ceiling = agreement(seen, real.masks, real.table)
    try:
        return agreement(seen, masks_of_others(real, seed), real.table), ceiling
    except DataError as error:
        warnings.warn(f"no floor of adherence: {error.problem}", stacklevel=2)
        return ceiling.assign(**{c: np.nan for c in ceiling if c.startswith(SCORES)}), ceiling


def adherence_difference(first: Banks, second: Banks, segmenter: Segment, column: str = "dice_mean", *, resamples: int = 1000,
                         seed: int = 0) -> Score:
    """A column of `agreement` for the first set of samples minus that for the second, paired over volumes, and over the
    trainings of both systems where there are several. n is the number of patients.

    Raises:
        DataError: if the sets do not follow the same masks in the same order.
    """
    ones, others = paired_trainings(first, second)
    if any(not np.array_equal(ones[0].masks, s.masks) or list(ones[0].patients) != list(s.patients) for s in (*ones, *others)):
        raise DataError("the two sets follow different masks", field="masks", remedy="draw both under the same conditions")
    tables = [[agreement(segmenter(s.images), s.masks, s.table) for s in banks] for banks in (ones, others)]
    gaps = [one[column].to_numpy() - other[column].to_numpy() for one, other in zip(*tables)]
    return mean_over_seeds(gaps, tables[0][0]["patient"].to_numpy(), resamples=resamples, seed=seed)


def masks_of_others(slices: Slices, seed: int = 0) -> np.ndarray:
    """(N, H, W): for every slice the mask of a slice of another patient, of the same phase and of the nearest height.

    One other patient is drawn per volume, so that the borrowed masks form a heart.

    Raises:
        DataError: if a phase has fewer than two patients.
    """
    generator = np.random.default_rng(seed)
    table, out = slices.table, np.empty_like(slices.masks)
    for (patient, _, phase), index in volumes_of(table):
        others = np.unique(table["patient"][(table["phase"] == phase) & (table["patient"] != patient)])
        if not len(others):
            raise DataError(f"phase {phase} has one patient", field="patient", remedy="score at least two patients")
        lent = np.flatnonzero((table["patient"] == generator.choice(others)) & (table["phase"] == phase))
        heights = table["height"].to_numpy(float)
        nearest = np.abs(heights[index][:, None] - heights[lent][None]).argmin(1)
        out[index] = slices.masks[lent[nearest]]
    return out


def wall_thickness(mask: np.ndarray, spacing: float) -> float:
    """Mean thickness of the LV wall in mm on one slice (H, W); NaN without both LV cavity and myocardium.

    The distance from each myocardial pixel beside the cavity to the nearest pixel outside the ventricle. From the
    centre of the innermost pixel of the wall to the centre of the first one outside is as far as from edge to edge.
    Where the wall is open (base), the thickness is that of the part beside the cavity.
    """
    cavity, wall = mask == LABELS["LV"], mask == LABELS["Myo"]
    beside = wall & ~binary_erosion(~cavity, border_value=1)
    if not beside.any():
        return float("nan")
    return float(distance_transform_edt(cavity | wall)[beside].mean() * spacing)


def proportions(masks: np.ndarray, table: pd.DataFrame) -> pd.DataFrame:
    """Proportions of the heart on every slice of label maps (N, H, W).

    Returns:
        the columns patient, phase, level, height of `table`, and: ``<structure>_mm2`` areas, ``lv_myo`` and ``rv_lv``
        ratios of areas (NaN where the divisor is absent), ``wall_mm`` (see `wall_thickness`).
    """
    spacing = known(table, "spacing")
    areas = {name: (masks == label).sum((1, 2)) * spacing**2 for name, label in LABELS.items()}

    def ratio(above: str, below: str) -> np.ndarray:
        return np.divide(areas[above], areas[below], out=np.full(len(masks), np.nan), where=areas[below] > 0)

    measured = {f"{name}_mm2": area for name, area in areas.items()}
    measured |= {"lv_myo": ratio("LV", "Myo"), "rv_lv": ratio("RV", "LV"),
                 "wall_mm": np.array([wall_thickness(m, s) for m, s in zip(masks, spacing)])}
    return table[["patient", "phase", "level", "height"]].reset_index(drop=True).assign(**measured)
