"""The pipeline is read in one place: stages, their notebooks, what they make; and what is wrong with it is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cmri_lib import train
from cmri_lib.config.pipeline import Stage, locked_stages, stages
from cmri_lib.config.study import open_study
from cmri_lib.errors import DataError

ROOT = Path(__file__).parents[2]
TWO = """stages:
  vae:
    cmd: python -m cmri_lib.run 02
    outs:
      - work/${dataset}/${profile}/vae: {persist: true}
      - results/${dataset}/02_vae.csv
  book:
    cmd: python -m cmri_lib.book
"""


def test_stages_name_their_notebook_and_what_they_make(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text(TWO)
    vae, book = stages(tmp_path)
    assert book == Stage("book", "", ()) and (vae.name, vae.notebook) == ("vae", "02")
    study = replace(open_study("smoke", "phantom", ROOT), root=tmp_path)
    assert vae.places(study) == (study.work("vae"), study.results / "02_vae.csv")


def test_the_stages_that_have_run_come_in_the_order_of_the_pipeline(tmp_path: Path, capsys: pytest.CaptureFixture,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dvc.yaml").write_text(TWO)
    with pytest.raises(DataError, match="dvc.lock[^~]*run dvc repro first"):
        locked_stages(tmp_path)
    (tmp_path / "dvc.lock").write_text("stages: {gone: {}, book: {}, vae: {}}")
    assert [stage.name for stage in locked_stages(tmp_path)] == ["vae", "book"]
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    assert train.main(["published"]) == 0 and capsys.readouterr().out == "vae book\n"


@pytest.mark.parametrize(("text", "field"), [
    ("plots: {}", "stages"), ("stages: [vae]", "stages"), ("stages: {vae: {outs: []}}", "stages.vae.cmd"),
    ("stages: {vae: {cmd: [a, b]}}", "stages.vae.cmd"), ("stages: {vae: {cmd: a, outs: work}}", "stages.vae.outs"),
    ("stages: {vae: {cmd: a, outs: [1]}}", "stages.vae.outs")])
def test_a_broken_pipeline_is_refused_by_name(text: str, field: str, tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text(text)
    with pytest.raises(DataError, match="dvc.yaml") as refused:
        stages(tmp_path)
    assert refused.value.field == field
