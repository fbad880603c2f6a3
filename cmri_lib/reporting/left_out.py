"""What stands in the place of a notebook's results where its cohort leaves it nothing to do.

The pipeline goes on: all that the notebook's stage promises is there, tables without rows, and a figure says why.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from cmri_lib.config.pipeline import stages
from cmri_lib.config.study import Study
from cmri_lib.reporting import figures, results


def leave_out(study: Study, number: str, why: str) -> list[Path]:
    """Write what the stage of notebook `number` promises in ``dvc.yaml``, empty; returns it. What an earlier run has left
    in the place of its tables and figures goes; trainings stay."""
    made = promised(study, number)
    for place in made:
        if place.suffix == ".csv":
            columns = results.CLAIM_COLUMNS if place.stem.endswith("_claims") else results.SCORE_COLUMNS
            place.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(columns=list(columns)).to_csv(place, index=False)
            continue
        if study.root / "work" not in place.parents:
            shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True, exist_ok=True)
        if study.root / "figures" in place.parents:
            figures.publish(study, f"{number}/left_out", pd.DataFrame({"why": [why]}),
                            lambda table: figures.notice(f"left out: {table['why'].iloc[0]}"))
    return made


def promised(study: Study, number: str) -> list[Path]:
    """The outs of the stage that runs notebook `number`: folders, and tables of scores and claims."""
    return [place for stage in stages(study.root) if stage.notebook == number for place in stage.places(study)]
