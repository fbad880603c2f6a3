"""What a segmenter makes of a heart's function: volumes, ejection fraction and mass against the truth.

Agreement is that of Bland & Altman (Statistical Methods in Medical Research 8, 1999): the **bias**, which is
the mean of predicted − true, and the **limits of agreement**, bias ± 1.96 SD, between which 95 % of the
errors lie. Volumes are those of `cohort.cardiac_function`, on both sides from the same slices, so that what a
stack does not hold is missing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cmri_lib.cohort.cardiac_function import SCAN, myocardial_mass, phenotype_table
from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.measures.statistics.seeds import bootstrap_seeds
from cmri_lib.measures.utility.volumetric import refuse_other_volumes

#: Name of an index, with its unit → the column of `phenotype_table` that it is read from.
INDICES = {"lvedv_ml": "lvedv", "lvesv_ml": "lvesv", "lvef_percent": "lvef", "lv_mass_g": "myoedv",
           "rvedv_ml": "rvedv", "rvef_percent": "rvef"}
#: Normal quantile of the limits of agreement.
Z = 1.96


@dataclass(frozen=True)
class BlandAltman:
    """Mean of the errors, and the limits between which 95 % of them lie; each with its interval."""

    bias: Score
    lower: Score
    upper: Score


def function_errors(predicted: np.ndarray, truth: Slices) -> pd.DataFrame:
    """Indices of heart function from label maps (N, H, W), against those from the masks of `truth`.

    Returns:
        One row per scan and index: patient, scan, index (a key of `INDICES`), true, predicted, error
        (predicted − true). NaN where a phase is missing, and an ejection fraction also where the cavity is
        empty at ED.

    Raises:
        DataError: as `phenotype_table`, or if shapes differ.
    """
    if predicted.shape != truth.masks.shape:
        raise DataError(f"label maps of shape {predicted.shape} for masks of {truth.masks.shape}",
                        field="predicted", remedy="segment the images of these very slices")
    wanted, found = (_indices(Slices(truth.images, masks, truth.table)) for masks in (truth.masks, predicted))
    table = wanted.rename(columns={"value": "true"}).assign(predicted=found["value"])
    return table.assign(error=table["predicted"] - table["true"])


def _indices(slices: Slices) -> pd.DataFrame:
    """patient, scan, index, value: one row per scan and index."""
    known = phenotype_table(slices)
    values = known[SCAN].assign(**{name: known[column] for name, column in INDICES.items()})
    values["lv_mass_g"] = myocardial_mass(values["lv_mass_g"])
    return values.melt(SCAN, var_name="index")


def bland_altman(errors: Sequence[np.ndarray], patients: np.ndarray, **options: object) -> BlandAltman:
    """Bias and limits of agreement of errors (N,), one array for each training, on scans of `patients` (N,).

    Each is the mean over trainings, with an interval over patients and trainings; n is the number of patients
    with a known error in all trainings. NaN errors are left out.
    """
    known = np.isfinite(errors).all(axis=0)
    patients = np.asarray(patients)[known]

    def score(shift: float) -> Score:
        statistics = [_limit(np.asarray(one, float)[known], shift) for one in errors]
        return bootstrap_seeds(statistics, patients, **options)

    return BlandAltman(score(0.0), score(-Z), score(Z))


def _limit(errors: np.ndarray, shift: float) -> Callable[[np.ndarray], float]:
    """Mean + `shift` SD as a function of how often each error is drawn; NaN for fewer than two."""
    def statistic(counts: np.ndarray) -> float:
        drawn = np.repeat(errors, counts)
        return float(drawn.mean() + shift * drawn.std(ddof=1)) if len(drawn) > 1 else float("nan")

    return statistic


def function_rows(tables: Sequence[pd.DataFrame], *, seed: int = 0, resamples: int = 1000
                  ) -> list[dict[str, object]]:
    """Tidy rows of an arm from `function_errors` of each of its trainings on the same test patients.

    Returns:
        For each index ``<index>_bias``, ``<index>_limit_low`` and ``<index>_limit_high``, in the index's
        unit. All are better nearer to 0, and `better` holds the direction that leads there. The ceiling is 0,
        and there is no floor.

    Raises:
        DataError: if the trainings were scored on different scans.
    """
    refuse_other_volumes(*tables)
    rows = []
    for name in INDICES:
        parts = [table[table["index"] == name] for table in tables]
        errors = [part["error"].to_numpy(float) for part in parts]
        if not np.isfinite(errors).all(axis=0).any():
            continue
        found = bland_altman(errors, parts[0]["patient"].to_numpy(), seed=seed, resamples=resamples)
        for what, score in (("bias", found.bias), ("limit_low", found.lower), ("limit_high", found.upper)):
            better = "higher" if score.value < 0 else "lower"
            rows.append(score.against(np.nan, 0).row(f"{name}_{what}", "utility", better))
    return rows

