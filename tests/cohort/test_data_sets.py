"""What is said of the cohorts agrees with what is there."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cmri_lib.cohort import data_sets
from cmri_lib.cohort.readers.layouts import LAYOUTS

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not (ROOT / "data" / "phantom" / "phantom.csv").exists(), reason="data/phantom is not pulled")
def test_the_embedded_cohort_is_as_described() -> None:
    table = pd.read_csv(ROOT / "data" / "phantom" / "phantom.csv")
    said = data_sets.DATA_SETS["phantom"]
    assert (said.patients, said.centres) == (table["Patient"].nunique(), table["Centre"].nunique())
    assert table["Vendor"].nunique() == 4 and table["Pathology"].nunique() == len(said.groups.split(", "))


def test_every_known_cohort_has_a_reader_terms_and_a_source() -> None:
    assert set(data_sets.DATA_SETS) - {"phantom"} <= set(LAYOUTS)
    assert (data_sets.table() != "").all(axis=None) and data_sets.terms("mine") == ""
    assert "NonCommercial" not in data_sets.terms("phantom") and "non-commercial" in data_sets.terms("acdc")
