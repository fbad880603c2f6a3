"""Every notebook on cohorts as they are published, in the smoke profile. Too long for every day:

    python -m pytest -m nightly --dist load -rP      # with `mutations.py` an hour on two cores; says what was left out
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from published_cohorts import PUBLISHED

from cmri_lib.cohort import add

ROOT = Path(__file__).parents[2]
NOTEBOOKS = [file.name[:2] for file in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py"))]
pytestmark = pytest.mark.nightly


def run(folder: Path, *arguments: object) -> str:
    """Run ``python -m cmri_lib…`` there; returns what it printed, fails with it."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", *map(str, arguments)], cwd=folder, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def study_without_data(folder: Path) -> Path:
    """The code and the settings of the study in an empty folder."""
    folder.mkdir(parents=True)
    for name in ("cmri_lib", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml", "pyproject.toml"):
        shutil.copy2(ROOT / name, folder / name)
    (folder / "data").mkdir()
    return folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_notebook_runs(name: str, tmp_path: Path) -> None:
    PUBLISHED[name](tmp_path / "raw")
    folder, lines = study_without_data(tmp_path / "study"), []
    assert add.main([name, str(tmp_path / "raw"), "--data", str(folder / "data")]) == 0  # prints what notebooks leave out
    for number in NOTEBOOKS:
        begun = time.monotonic()
        run(folder, "cmri_lib.run", number, "--profile", "smoke", "--dataset", name)
        lines.append({"cohort": name, "notebook": number, "seconds": round(time.monotonic() - begun)})
        assert list((folder / "results" / name).glob(f"{number}_*.csv")) or number == "13", f"{number} left no results"
        assert list((folder / "figures" / name / number).glob("*.png")), f"{number} left no figure"
    print(pd.DataFrame(lines).to_string(index=False))
    scores = pd.read_csv(folder / "results" / "scores.csv")
    assert set(scores["dataset"]) == {name} and {"fidelity", "cost"} <= set(scores["axis"])
