"""What networks that read the ejection fraction saw first, and their errors: by hand, on three scans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study, open_study
from cmri_lib.experiments import ejection_arms
from cmri_lib.experiments.arms import real_arm
from cmri_lib.experiments.ejection_arms import EVEN, EVEN_REAL, SAMPLES, ejection_rows, mean_error, weak
from cmri_lib.measures.utility.ejection_regression import TARGETS, heart_pairs

PATIENTS = ["a", "b", "c"]
#: % and mL of three scans; the errors of their ejection fraction are 3, −1 and 2.
TRUE = {"lvef": [30.0, 60.0, 60.0], "lvedv": [200.0, 100.0, 120.0], "lvesv": [140.0, 40.0, 48.0]}


def read(lvef: tuple[float, ...] = (3.0, -1.0, 2.0), true: dict[str, list[float]] = TRUE) -> pd.DataFrame:
    """What `reading_errors` gives of a network with these errors of the ejection fraction; those of both volumes are 10."""
    parts = [pd.DataFrame({"patient": PATIENTS, "scan": PATIENTS, "index": name, "true": true[name],
                           "error": lvef if name == "lvef" else [10.0, -10.0, 10.0]}) for name in TARGETS]
    table = pd.concat(parts, ignore_index=True)
    return table.assign(predicted=table["true"] + table["error"])


def test_errors_are_absolute_over_scans_and_trainings() -> None:
    assert mean_error([read()], resamples=20).value == pytest.approx(2) and mean_error([read()], "lvedv").value == 10
    both = mean_error([read(), read((-6.0, 6.0, 0.0))], resamples=20)
    assert both.value == pytest.approx((2 + 4) / 2) and both.seeds == 2 and both.n == 3


def test_the_error_of_other_networks_is_subtracted_scan_by_scan() -> None:
    ours, perfect = [read()], [read((0.0, 0.0, 0.0))]
    forth, back = mean_error(ours, than=perfect, resamples=50), mean_error(perfect, than=ours, resamples=50)
    assert forth.value == pytest.approx(2) and back.value == pytest.approx(-2)
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low)) and 1 <= forth.low < forth.high <= 3
    same = mean_error(ours, than=[read((-3.0, 1.0, -2.0))], resamples=50)
    assert same.value == same.low == same.high == 0, "each scan is as far off, to the other side"


@pytest.mark.filterwarnings("ignore:no interval")
def test_scans_of_reduced_ejection_fraction_are_told_by_the_truth() -> None:
    assert weak(read()).tolist() == [True, False, False] * 3, "whatever the index"
    assert weak(read(true={**TRUE, "lvef": [40.1, 40.0, 60.0]}).iloc[::-1]).tolist() == [False, True, False] * 3
    assert mean_error([read()], of=weak).value == pytest.approx(3)
    assert mean_error([read()], than=[read((1.0, 0.0, 0.0))], of=weak).value == pytest.approx(2)


@pytest.mark.filterwarnings("ignore:no interval")
def test_the_floor_is_the_error_of_who_names_the_mean_of_the_very_scans() -> None:
    rows = {row["metric"]: row for row in ejection_rows("U0", [read()], resamples=20)}
    assert list(rows) == ["read_lvef_error", "read_lvedv_error", "read_lvesv_error", "read_lvef_error_weak"]
    found = {name: (row["value"], row["floor"], row["ceiling"]) for name, row in rows.items()}
    assert found["read_lvef_error"] == pytest.approx((2, (20 + 10 + 10) / 3, 0)), "the mean EF is 50 %"
    assert found["read_lvef_error_weak"] == pytest.approx((3, 20, 0)), "the mean is that of all scans"
    assert found["read_lvedv_error"] == pytest.approx((10, (60 + 40 + 20) / 3, 0))
    assert all((row["system"], row["better"]) == ("U0", "lower") for row in rows.values())
    healthy = ejection_rows("U0", [read(true={**TRUE, "lvef": [50.0, 60.0, 60.0]})], resamples=5)
    assert [row["metric"] for row in healthy] == [f"read_{name}_error" for name in TARGETS]


def hearts(fractions: list[float]) -> Slices:
    """A patient for each ejection fraction in %: squares of 10 × 10 pixels at ED of which fewer rows are left at ES."""
    rows = [{"patient": f"p{p}", "scan": f"p{p}", "phase": phase, "index": z, "height": float(z), "left": left}
            for p, ef in enumerate(fractions) for phase, left in (("ED", 10), ("ES", round(10 - ef / 10))) for z in (0, 1)]
    masks = np.zeros((len(rows), 16, 16), np.uint8)
    for mask, row in zip(masks, rows):
        mask[3:3 + row["left"], 3:13] = 1
    columns = {name: [row[name] for row in rows] for name in ("scan", "phase", "index", "height")}
    return Slices.from_arrays(2.0 * masks - 1, masks, [row["patient"] for row in rows], value_range=(-1, 1), spacing=2.0,
                              slice_mm=8.0, split="train", source="real", **columns)


def test_the_first_part_has_uniform_ejection_fractions_or_those_of_the_cohort(tmp_path, monkeypatch) -> None:
    params = open_study("smoke", "phantom").params
    study = Study(tmp_path, replace(params, utility=replace(params.utility, scans=40)))
    monkeypatch.setattr(ejection_arms, "_samples", lambda study, arm, slices, conditions, kind: conditions)
    cohort = hearts([20.0] + [60.0] * 7)
    real = heart_pairs(cohort, params.utility.planes)
    low, high = params.masks.ejection
    share = {kind: (ejection_arms._first_part(study, real_arm(1.0), cohort, kind, real).targets[:, 0] < 40).mean()
             for kind in (EVEN_REAL, SAMPLES, EVEN)}
    assert share[EVEN] == share[EVEN_REAL] == pytest.approx((40 - low) / (high - low), abs=1 / 40)
    assert share[SAMPLES] == pytest.approx(1 / 8, abs=3 * (7 / 64 / 40) ** 0.5), "one heart in eight is weak"
    drawn = ejection_arms._first_part(study, real_arm(1.0), cohort, EVEN_REAL, real)
    assert len(drawn) == 40 and set(drawn.table["patient"]) <= set(cohort.patients) and drawn.images.max() == 1
