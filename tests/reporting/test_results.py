"""Tables of several notebooks become one."""

from pathlib import Path

import pandas as pd

from cmri_lib.reporting import results


def test_a_notebook_that_was_left_out_turns_no_number_into_text(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "mine"
    folder.mkdir(parents=True)
    row = dict.fromkeys(results.SCORE_COLUMNS, 1.0) | {"system": "U1 VAE"}
    pd.DataFrame([row]).to_csv(folder / "06_fidelity.csv", index=False)
    pd.DataFrame(columns=list(results.SCORE_COLUMNS)).to_csv(folder / "11_privacy.csv", index=False)
    found = results.union(tmp_path)
    assert len(found) == 1 and found["value"].dtype == float


def test_what_no_system_has_made_is_real() -> None:
    assert results.with_system_columns("source unchanged", [{"value": 1.0}]) == [
        {"system": "source unchanged", "family": "real", "conditioning": "none", "value": 1.0}]
