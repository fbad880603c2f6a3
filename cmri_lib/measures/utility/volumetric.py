"""Segmentations of whole hearts: overlap and distance in 3D by patient, phase and structure, misses apart.

A volume is all slices of one scan and phase. A structure that is there and that the segmenter does not find
at all is a **miss**: it has Dice 0 but no distance. Misses are counted, and the median distance is that of
the rest; a mean with a penalty would be a number about the penalty (Maier-Hein et al., "Metrics Reloaded",
Nature Methods 21, 2024).

Images are whole crops, placed by a detector that reads no mask. Preprocessing keeps the slices that bear a
label, though: what a segmenter finds above the base or below the apex is not counted, for any arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd

from cmri_lib.cohort.case import LABELS, PHASES
from cmri_lib.cohort.slices import Slices, known
from cmri_lib.errors import DataError
from cmri_lib.measures.anatomy.adherence import dice, hausdorff95, stacked
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.measures.statistics.seeds import bootstrap_seeds, mean_over_seeds

#: What names a row of `volume_scores`.
KEYS = ["patient", "scan", "phase", "structure"]
#: Mean of the structures, in the column `structure`.
FOREGROUND = "foreground"


def volume_scores(predicted: np.ndarray, truth: Slices, *, distances: bool = True) -> pd.DataFrame:
    """Scores of label maps (N, H, W) against the masks of `truth`, one row per volume and structure.

    Slices stand at their `index`; one that `truth` does not hold counts as empty on both sides.

    Args:
        distances: measure them; they take longer than all else.

    Returns:
        `KEYS`; `dice`, NaN where the structure is in neither, 0 where in one only; `hd95_mm`, NaN unless it is in both
        and distances are measured; `missed`, 1 or 0, NaN where there is nothing to miss. In rows of `FOREGROUND` their
        means over the structures, NaN left out.

    Raises:
        DataError: if shapes differ, there is no mask, a slice occurs twice, or a spacing is unknown.
    """
    table = truth.table
    if predicted.shape != truth.masks.shape:
        raise DataError(f"label maps of shape {predicted.shape} for masks of {truth.masks.shape}",
                        field="predicted", remedy="segment the images of these very slices")
    if not truth.masks.any():
        raise DataError("no mask to test a segmenter on", field="truth",
                        remedy="score it on labelled test patients")
    if (twice := table["scan"][table.duplicated(["patient", "scan", "phase", "index"])]).any():
        raise DataError(f"scan {twice.iloc[0]} has a slice more than once", field="index",
                        remedy="score real scans, each once")
    apart, side = (known(table, name) if distances else np.ones(len(table)) for name in ("slice_mm", "spacing"))
    rows = []
    for volume, index in sorted(table.groupby(KEYS[:3]).indices.items()):
        place = table["index"].to_numpy(int)[index]
        spacing = (apart[index[0]], side[index[0]], side[index[0]]) if distances else None
        found, wanted = (stacked(masks[index], place) for masks in (predicted, truth.masks))
        each = {name: _scores(found == label, wanted == label, spacing) for name, label in LABELS.items()}
        each[FOREGROUND] = pd.DataFrame(each.values()).mean().to_dict()
        rows += [dict(zip(KEYS, (*volume, name))) | scores for name, scores in each.items()]
    return pd.DataFrame(rows)


def _scores(found: np.ndarray, wanted: np.ndarray, spacing: tuple[float, float, float] | None) -> dict[str, float]:
    both = spacing is not None and found.any() and wanted.any()
    return {"dice": dice(found, wanted), "hd95_mm": hausdorff95(found, wanted, spacing) if both else np.nan,
            "missed": float(not found.any()) if wanted.any() else np.nan}


def weighted_median(values: np.ndarray, counts: np.ndarray) -> float:
    """Median of `values` (N,), each repeated by its count, NaN left out; NaN if nothing is left."""
    each = np.repeat(values, counts)
    each = each[np.isfinite(each)]
    return float(np.median(each)) if len(each) else float("nan")


def volumetric_rows(tables: Sequence[pd.DataFrame], *, seed: int = 0, resamples: int = 1000
                    ) -> list[dict[str, object]]:
    """Tidy rows of an arm from `volume_scores` of each of its trainings on the same test patients.

    Returns:
        For each phase and structure ``downstream_dice_<structure>_<phase>`` (mean), ``downstream_missed_<…>``
        (share of misses) and ``downstream_hd95_<…>_mm`` (median of what is not missed); each is the mean over
        the trainings, with an interval over patients and trainings. n is the number of patients. Floor and
        ceiling are the ends of the scale. Structures that nobody has labelled have no row.

    Raises:
        DataError: if the trainings were scored on different volumes.
    """
    refuse_other_volumes(*tables)
    options, rows = {"seed": seed, "resamples": resamples}, []
    for (phase, structure), index in _groups(tables[0]):
        parts = [table.iloc[index] for table in tables]
        patients = parts[0]["patient"].to_numpy()
        if parts[0]["missed"].isna().all():
            continue
        overlap, missed = (mean_over_seeds([p[name].to_numpy() for p in parts], patients, **options)
                           for name in ("dice", "missed"))
        medians = [lambda counts, v=p["hd95_mm"].to_numpy(): weighted_median(v, counts) for p in parts]
        distance = bootstrap_seeds(medians, patients, **options)
        of = f"{structure}_{phase}"
        rows += [overlap.against(0, 1).row(f"downstream_dice_{of}", "utility", "higher"),
                 missed.against(1, 0).row(f"downstream_missed_{of}", "utility", "lower"),
                 distance.against(np.nan, 0).row(f"downstream_hd95_{of}_mm", "utility", "lower")]
    return rows


def overall_rows(tables: Sequence[pd.DataFrame], reference: Sequence[pd.DataFrame], *, seed: int = 0, resamples: int = 1000
                 ) -> list[dict[str, object]]:
    """Rows ``downstream_dice``, ``downstream_hd95_mm`` and ``downstream_missed`` of an arm: means over structures and volumes
    of both phases, the distance where nothing is missed.

    Args:
        tables, reference: `volume_scores` of each training of the arm, and of the one that learnt from real slices
            alone, whose mean is the **ceiling**. The floor of the Dice is 0; the others have none.
    """
    refuse_other_volumes(*tables, *reference)
    chosen, rows = (tables[0]["structure"] == FOREGROUND).to_numpy(), []
    patients = tables[0].loc[chosen, "patient"].to_numpy()
    for column, name, better, floor in (("dice", "downstream_dice", "higher", 0.0),
                                        ("missed", "downstream_missed", "lower", np.nan),
                                        ("hd95_mm", "downstream_hd95_mm", "lower", np.nan)):
        score = mean_over_seeds([t.loc[chosen, column].to_numpy() for t in tables], patients, seed=seed, resamples=resamples)
        ceiling = float(np.mean([t.loc[chosen, column].mean() for t in reference]))
        rows.append(score.against(floor, ceiling).row(name, "utility", better))
    return rows


def mean_dice(tables: Sequence[pd.DataFrame], **options: object) -> Score:
    """Mean over volumes of the mean over structures, over patients and trainings; n is the number of patients."""
    parts = [table[table["structure"] == FOREGROUND] for table in tables]
    return mean_over_seeds([part["dice"].to_numpy() for part in parts], parts[0]["patient"].to_numpy(), **options)


def arm_difference(first: Sequence[pd.DataFrame], second: Sequence[pd.DataFrame], column: str = "dice", *,
                   structure: str = FOREGROUND, phase: str | None = None, **options: object) -> Score:
    """Mean of `column` of the first arm minus that of the second, paired over volumes and over trainings of
    equal seed, with its interval over patients and trainings. n is the number of patients.

    **One** training is compared with the mean over those of the other arm. It says nothing of how much trainings of its own
    arm differ: they are taken to differ as those of the other arm, with variance s², so that the difference to S trainings
    varies by s² (1 + 1/S).

    A distance is compared where neither arm has missed the structure, that of `FOREGROUND` over the structures that each has
    found: compare "missed" beside it.

    Args:
        first, second: `volume_scores` of each training of the two arms, in the order of their seeds.
        phase: one of `PHASES`; both by default.

    Raises:
        DataError: if the arms differ in the number of their trainings and neither has one alone, or were scored on different
            volumes.
    """
    paired = len(first) == len(second)
    if not paired and min(len(first), len(second)) != 1:
        raise DataError(f"{len(first)} trainings of the first arm, {len(second)} of the second",
                        field="seeds", remedy="train both with the same seeds")
    refuse_other_volumes(*first, *second)
    table = first[0]
    chosen = (table["structure"] == structure) & table["phase"].isin(PHASES if phase is None else (phase,))
    if not chosen.any():
        known_names = [sorted(set(table[name])) for name in ("structure", "phase")]
        raise DataError(f"no volumes of {structure}, {phase or 'any phase'}", field="structure",
                        remedy="choose among {} and {}".format(*known_names))
    pairs = [*zip(first, second)] if paired else [*product(first, second)]
    gaps = [(one[column] - other[column])[chosen].to_numpy() for one, other in pairs]
    score = mean_over_seeds(gaps, table.loc[chosen, "patient"].to_numpy(), **options,
                            spread=1.0 if paired else np.sqrt(1 + len(pairs)))
    return score if paired else replace(score, seeds=1)


def refuse_other_volumes(*tables: pd.DataFrame) -> None:
    """Raise DataError unless there is a table, and all are about the same rows, in words, in one order."""
    keys = [table.select_dtypes(exclude="number") for table in tables]
    if not keys or any(not keys[0].equals(other) for other in keys[1:]):
        raise DataError("the trainings were scored on different volumes, or on none", field="tables",
                        remedy="score all of them on the same test slices")


def _groups(table: pd.DataFrame) -> list[tuple[tuple[str, str], np.ndarray]]:
    """((phase, structure), rows) in the order of `PHASES` and of the structures."""
    structures = [*LABELS, FOREGROUND]
    return sorted(table.groupby(["phase", "structure"]).indices.items(),
                  key=lambda item: (item[0][0], structures.index(item[0][1])))
