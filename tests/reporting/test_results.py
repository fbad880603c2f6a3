"""Tables of several notebooks become one."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmri_lib.config.study import open_study
from cmri_lib.reporting import results

ROOT = Path(__file__).parents[2]


def test_a_notebook_that_was_left_out_turns_no_number_into_text(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "mine"
    folder.mkdir(parents=True)
    row = dict.fromkeys(results.SCORE_COLUMNS, 1.0) | {"system": "U1 VAE"}
    pd.DataFrame([row]).to_csv(folder / "06_fidelity.csv", index=False)
    pd.DataFrame(columns=list(results.SCORE_COLUMNS)).to_csv(folder / "11_privacy.csv", index=False)
    found = results.union(tmp_path)
    assert len(found) == 1 and found["value"].dtype == float


def test_scores_are_read_of_one_profile_and_may_be_absent(tmp_path: Path) -> None:
    study = replace(open_study("smoke", "phantom"), root=tmp_path)
    assert results.read_scores(study, "06_fidelity").empty
    row = dict.fromkeys(results.SCORE_COLUMNS, 1.0) | {"system": "U1 VAE", "axis": "fidelity", "better": "lower"}
    results.write_scores(study, "06_fidelity", [row | {"profile": "smoke"}, row | {"profile": "laptop", "system": "real"}])
    assert results.read_scores(study, "06_fidelity")["system"].tolist() == ["U1 VAE"]


def test_curves_of_all_notebooks_are_read_together(tmp_path: Path) -> None:
    study = replace(open_study("smoke", "phantom"), root=tmp_path)
    assert results.read_curves(study).empty and list(results.read_curves(study)) == list(results.CURVE_COLUMNS)
    point = dict.fromkeys(results.CURVE_COLUMNS, 1.0) | {"curve": "images", "metric": "mmd_anatomy"}
    for name, system in (("02_vae", "U1 VAE"), ("03_gan", "U2 DCGAN")):
        results.write_curves(study, name, [point | {"system": system, "not a column": 0}])
    read = results.read_curves(study)
    assert read["system"].tolist() == ["U1 VAE", "U2 DCGAN"] and list(read) == list(results.CURVE_COLUMNS)


def test_what_no_system_has_made_is_real() -> None:
    assert results.with_system_columns("source unchanged", [{"value": 1.0}]) == [
        {"system": "source unchanged", "family": "real", "conditioning": "none", "value": 1.0}]


def test_json_knows_every_value_that_is_written() -> None:
    given = {"a": np.float32(0.5), "b": [math.nan, math.inf, 1.0], 3: (np.int64(2), True, None), "c": np.arange(2),
             "d": Path("x")}
    found = results.json_values(given)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found == {"a": 0.5, "b": [None, None, 1.0], "3": [2, True, None], "c": [0, 1], "d": "x"}


@pytest.mark.parametrize("dataset", ["phantom", "acdc", "phantom-audit"])
def test_intervals_of_published_rates_end_where_rates_do(dataset: str) -> None:
    table = pd.read_csv(ROOT / f"results/{dataset}/11_privacy.csv")
    rates = table[table["metric"].str.match("attack_(auc|tpr)")]
    assert len(rates) > 100 and rates["low"].min() >= 0 and rates["high"].max() <= 1
