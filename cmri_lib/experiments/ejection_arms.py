"""What a network that reads the ejection fraction gains if it has seen synthetic hearts of uniform EF first (C5).

All arms see the real scans of the same few patients in the second part of their training; they differ in what they see in the
first part, and nothing of other patients gets into any of them. Two controls tell why an arm gains: samples of the EFs that the
cohort has, which are as many, and the real scans themselves, drawn until their EFs are uniform.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from cmri_lib.cohort.cardiac_function import SCAN
from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study
from cmri_lib.errors import SplitError
from cmri_lib.experiments.arm_samples import refuse_generators, run_digest, sampler_choices
from cmri_lib.experiments.arms import Arm, own_patients, own_slices
from cmri_lib.experiments.banks import kept_bank
from cmri_lib.experiments.provenance import patients_seen
from cmri_lib.experiments.training import train_or_load
from cmri_lib.generators.base import draw
from cmri_lib.generators.disease_shift import any_ef, nearest_to_uniform, uniform_ef
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.measures.statistics.seeds import mean_over_seeds
from cmri_lib.measures.utility.ejection_regression import (TARGETS, EjectionRegression, HeartPairs, fit_regression, heart_pairs,
                                                           reading_errors)
from cmri_lib.reporting.results import with_system_columns
from cmri_lib.systems.system import file_name
from cmri_lib.training.fingerprint import code_digest, digest

#: First part of the training → in words.
REAL, EVEN_REAL, SAMPLES, EVEN = ("real scans", "real scans of uniform EF, then real", "samples, then real",
                                  "samples of uniform EF (C5), then real")
ARMS = (REAL, EVEN_REAL, SAMPLES, EVEN)
#: %, up to which an EF counts as reduced (McDonagh et al., European Heart Journal 42:3599, 2021, table 3).
WEAK = 40.0


def ejection_errors(study: Study, arm: Arm, slices: Slices, test: Slices, seeds: Sequence[int], kinds: Sequence[str] = ARMS
                    ) -> dict[str, list[pd.DataFrame]]:
    """`reading_errors` on the scans of `test` of a network of each kind, one table for each seed.

    Args:
        arm: names the patients whose real scans all kinds may use, and the run that draws samples under their masks. Every
            kind takes the same number of steps.
        test: whole real scans, each patient once.

    Raises:
        SplitError: if the generator has seen a patient whom the arm may not use, or a test patient is one of them.
    """
    refuse_generators(study, arm, slices)
    seen = {*own_patients(study, arm, slices), *(p for run in arm.runs for p in patients_seen(run, slices))}
    if met := sorted(seen & set(test.patients)):
        raise SplitError(f"{arm.id} has met {len(met)} of the test patients, e.g. {met[:3]}", field="test",
                         remedy='read scans of slices.where(split="test", source="real")')
    asked = heart_pairs(test, study.params.utility.planes)
    return {kind: [reading_errors(_trained(study, arm, slices, kind, seed), asked) for seed in seeds] for kind in kinds}


def _trained(study: Study, arm: Arm, slices: Slices, kind: str, seed: int) -> EjectionRegression:
    settings = replace(study.params.utility.training, seed=seed)
    real = heart_pairs(own_slices(study, arm, slices), study.params.utility.planes)
    folder = study.work(arm.stage) / "ejection" / file_name(arm.id) / file_name(kind) / f"seed-{seed}"
    if kind == REAL:
        return fit_regression(real, real, settings, folder)
    first = min(settings.steps - 1, max(1, round(study.params.utility.pretraining * settings.steps)))
    start = fit_regression(_first_part(study, arm, slices, kind, real), real, replace(settings, steps=first),
                           folder / "pretraining")
    return fit_regression(real, real, replace(settings, steps=settings.steps - first), folder, start)


def _first_part(study: Study, arm: Arm, slices: Slices, kind: str, real: HeartPairs) -> HeartPairs:
    utility, (low, high) = study.params.utility, study.params.masks.ejection
    if kind == EVEN_REAL:
        return real.take(nearest_to_uniform(real.targets[:, TARGETS.index("lvef")], utility.scans, study.seed, low, high))
    own = own_slices(study, arm, slices)
    conditions = (uniform_ef(own, utility.scans, study.seed, low, high) if kind == EVEN else
                  any_ef(own, utility.scans, study.seed))
    return heart_pairs(_samples(study, arm, slices, conditions, kind), utility.planes)


def _samples(study: Study, arm: Arm, slices: Slices, conditions: Slices, kind: str) -> Slices:
    """A sample under each of the masks; drawn once and kept."""
    choices = sampler_choices(study, arm)
    key = digest([repr((kind, study.seed, sorted(choices.items()))).encode(), conditions.masks.tobytes(),
                  run_digest(study, arm.images, slices).encode(), code_digest(draw).encode()])
    folder = study.work("banks") / arm.stage / file_name(f"ejection {kind} {arm.id}")
    return kept_bank(folder, key, len(conditions), lambda count: draw(
        train_or_load(study, arm.images, slices), conditions.take(np.arange(count)), arm.images.id, seed=study.seed, **choices))


def mean_error(tables: Sequence[pd.DataFrame], index: str = "lvef", than: Sequence[pd.DataFrame] | None = None, *,
               of: Callable[[pd.DataFrame], pd.Series] | None = None, **options: object) -> Score:
    """Mean absolute error of an index over scans and trainings, with its interval over patients and trainings.

    Args:
        than: tables of other networks with the same seeds: their error is subtracted, scan by scan.
        of: table → (N,) bool, the scans that count; all by default.
    """
    def errors(table: pd.DataFrame) -> pd.DataFrame:
        part = table[table["index"] == index]
        return part if of is None else part[of(part)]

    parts = [errors(table) for table in tables]
    values = [part["error"].abs().to_numpy() for part in parts]
    if than is not None:
        values = [value - errors(other)["error"].abs().to_numpy() for value, other in zip(values, than, strict=True)]
    return mean_over_seeds(values, parts[0]["patient"].to_numpy(), **options)


def weak(table: pd.DataFrame) -> pd.Series:
    """(N,) bool: scans of `reading_errors` whose true EF is reduced (`WEAK`)."""
    scans = table[table["index"] == "lvef"].set_index(SCAN)["true"] <= WEAK
    return pd.Series(scans.reindex(pd.MultiIndex.from_frame(table[SCAN])).to_numpy(), table.index)


def ejection_rows(name: str, tables: Sequence[pd.DataFrame], **options: object) -> list[dict[str, object]]:
    """Tidy rows of a network from `reading_errors` of each of its trainings: ``read_<index>_error``, the mean absolute
    error in % or mL, and ``read_lvef_error_weak``, that of scans with a reduced EF. The floor is the error of who names
    the same number, the mean of the very scans, for all of them; the ceiling is 0."""
    rows = []
    for index, suffix, of in (*((index, "", None) for index in TARGETS), ("lvef", "_weak", weak)):
        if of is not None and not of(tables[0]).any():
            continue
        guess = tables[0].assign(error=tables[0]["true"] - tables[0].groupby("index")["true"].transform("mean"))
        floor = mean_error([guess], index, of=of, resamples=2).value
        rows.append(mean_error(tables, index, of=of, **options).against(floor, 0.0).row(
            f"read_{index}_error{suffix}", "utility", "lower"))
    return with_system_columns(name, rows)
