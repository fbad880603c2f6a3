"""The layout of CONTRIBUTING.md: what is written in it is read back, and a bad scan does not hide the good ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from contributing import run_example
from layout_writers import random_case, write_nifti

from cmri_lib.cohort.add import add_dataset
from cmri_lib.cohort.case import Case
from cmri_lib.cohort.readers import layouts
from cmri_lib.cohort.splits import load_split

STORED = np.array([0, 3, 2, 1], np.uint8)  # library label → stored label


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Case]:
    """Scans of eight patients below ``scans``, where the test runs; the layout is known."""
    monkeypatch.setitem(layouts.LAYOUTS, "by_patient", None)  # so that it is gone afterwards
    run_example("def by_patient", **vars(layouts))
    cases = [random_case(k, scan=f"P{k:03d}") for k in range(1, 9)]
    for case in cases:
        for phase, volume in case.volumes.items():
            write_nifti(tmp_path / "scans" / case.scan / f"{phase}.nii.gz", volume.image, case.spacing)
            write_nifti(tmp_path / "scans" / case.scan / f"{phase}_seg.nii.gz", STORED[volume.mask], case.spacing, "u1")
    monkeypatch.chdir(tmp_path)
    return cases


def test_what_is_written_is_read_back(scans: list[Case]) -> None:
    names = run_example('"by_patient", on_bad_case')
    for read, written in zip(names["cohort"].cases, scans, strict=True):
        assert (read.patient, read.scan, read.vendor) == (written.scan, written.scan, "Siemens")
        for phase, volume in written.volumes.items():
            np.testing.assert_array_equal(read.volumes[phase].image, volume.image)
            np.testing.assert_array_equal(read.volumes[phase].mask, volume.mask)
    assert names["heart"].image.ndim == names["heart"].mask.ndim == 3


def test_a_missing_file_is_named_and_hides_nobody(scans: list[Case], capsys: pytest.CaptureFixture) -> None:
    Path("scans/P003/ES_seg.nii.gz").unlink()
    cohort = run_example('"by_patient", on_bad_case')["cohort"]
    report = cohort.report.set_index("scan")
    assert set(report.index) == {case.scan for case in scans} and len(cohort.cases) == len(scans) - 1
    assert list(report.index[report["status"] == "bad"]) == ["P003"]
    assert "ES_seg.nii.gz" in report.loc["P003", "problem"] and "P003" in capsys.readouterr().out


def test_the_cohort_is_added_with_a_split(scans: list[Case], tmp_path: Path) -> None:
    cohort = add_dataset("mine", "scans", "by_patient", data=tmp_path / "data")
    split = load_split("mine", tmp_path / "data" / "mine")
    assert set(split["patient"]) == {case.scan for case in scans} == {case.patient for case in cohort.cases}
    assert (tmp_path / "data/mine/P001/ED.nii.gz").is_file()
