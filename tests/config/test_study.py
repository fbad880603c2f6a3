"""Parameters: one file, every key known, every value of its type, one value per profile."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest

from cmri_lib.config.study import PROFILES, Study, build, project_root, read_params, resolve
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.experiments.protocol import open_study
from cmri_lib.reporting.results import SCORE_COLUMNS, union, write_claims, write_scores
from cmri_lib.training import TrainSettings

ROOT = Path(__file__).parents[2]


def project(folder: Path, text: str) -> Path:
    (folder / "params.yaml").write_text("profile: laptop\ndataset: phantom\nseed: 1\n" + text)
    return folder


@pytest.mark.parametrize("profile", PROFILES)
def test_the_committed_parameters_hold_in_every_profile(profile: str) -> None:
    study, params = open_study(profile, root=ROOT)
    assert params.preprocess.size % 2 ** (len(params.flow.network.channels) - 1) == 0, "the U-Net halves the image"
    assert all(nfe % 2 == 0 for nfe in params.flow.few_steps.evaluations), "second-order solvers spend two per step"
    assert params.samples >= 48 and study.seed


@pytest.mark.parametrize("wrong", ["flwo: {}", "fidelity: {resamples: 5, repeats: 5, floors: 2}", "samples: many"])
def test_a_misspelt_key_anywhere_is_refused_at_once(tmp_path: Path, wrong: str) -> None:
    text, key = (ROOT / "params.yaml").read_text(), wrong.split(":")[0]
    kept = [part for part in re.split(r"\n(?=\w)", text) if not part.startswith(f"{key}:")]
    (tmp_path / "params.yaml").write_text("\n".join([*kept, wrong]))
    with pytest.raises(ParameterError, match=key):
        open_study(root=tmp_path)


def test_a_profile_changes_numbers_only() -> None:
    def shape(value: object) -> object:
        return {k: shape(v) for k, v in value.items()} if isinstance(value, dict) else type(value)

    shapes = [shape(Study.open(p, root=ROOT).values) for p in PROFILES]
    assert shapes[0] == shapes[1] == shapes[2]


def test_per_profile_values_resolve(tmp_path: Path) -> None:
    root = project(tmp_path, "flow: {steps: {smoke: 1, laptop: 2, gpu: 3}, name: x}\n")
    assert Study.open(root=root).values["flow"] == {"steps": 2, "name": "x"}
    assert Study.open("gpu", "acdc", root=root).work("slices") == root / "work" / "acdc" / "gpu" / "slices"
    assert project_root(root / "a" if (root / "a").mkdir() else root / "a") == root.resolve()


@dataclass(frozen=True)
class Some:
    steps: int
    rate: float = 0.1
    name: Literal["a", "b"] = "a"
    limit: int | None = None
    sizes: tuple[int, ...] = (1,)


@pytest.mark.parametrize(("values", "field"), [
    ({"steps": 1, "stpes": 2}, "stpes"), ({}, "steps"), ({"steps": 1.5}, "some.steps"), ({"steps": True}, "some.steps"),
    ({"steps": 1, "rate": "1e-4"}, "some.rate"), ({"steps": 1, "name": "c"}, "some.name"),
    ({"steps": 1, "limit": "x"}, "some.limit"), ({"steps": 1, "sizes": 3}, "some.sizes"),
    ({"steps": 1, "sizes": ["a"]}, r"some.sizes\[0\]"),
])
def test_wrong_parameters_are_named(values: dict, field: str) -> None:
    with pytest.raises(ParameterError, match=field) as caught:
        build(Some, values, "some")
    assert "Remedy" in str(caught.value) and "params.yaml" in str(caught.value)


def test_right_parameters_are_taken() -> None:
    assert build(Some, {"steps": 2, "rate": 1, "limit": None, "sizes": [1, 2]}, "some") == Some(2, 1.0, sizes=(1, 2))


@pytest.mark.parametrize(("text", "match"), [
    ("a: {smoke: 1, laptop: 2}\n", "profiles"), ("a: {smoke: 1, laptop: 2, gpu: 3, cloud: 4}\n", "profiles"),
])
def test_incomplete_profiles_are_refused(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(ParameterError, match=match):
        Study.open(root=project(tmp_path, text))


def test_unreadable_parameters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="twice"):
        Study.open(root=project(tmp_path, "a: 1\na: 2\n"))
    with pytest.raises(ParameterError, match="profile"):
        Study.open("workstation", root=project(tmp_path, ""))
    (tmp_path / "params.yaml").write_text("profile: [")
    with pytest.raises(ParameterError, match="YAML"):
        read_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("profile: laptop\n")
    with pytest.raises(ParameterError, match="seed"):
        read_params(tmp_path / "params.yaml")
    with pytest.raises(ParameterError, match="no such section"):
        Study.open(root=ROOT).settings("flow.trainign", TrainSettings)
    assert resolve([1, 2], "laptop", "x") == [1, 2]


ROW = {"system": "U10", "family": "flow", "conditioning": "none", "axis": "fidelity", "metric": "kid", "value": 1.0, "low": 0.5,
       "high": 2.0, "n": 10, "seeds": 1, "better": "lower", "floor": 0.1, "ceiling": 0.0}


def test_scores_are_complete_or_refused(tmp_path: Path) -> None:
    study = Study.open(root=project(tmp_path, ""))
    table = write_scores(study, "05_flow", [ROW])
    assert tuple(table.columns) == SCORE_COLUMNS and union(tmp_path).equals(pd.read_csv(study.results / "05_flow.csv"))
    for broken in ({"axis": "beauty"}, {"better": "more"}, {"value": 3.0}):
        with pytest.raises(DataError):
            write_scores(study, "05_flow", [ROW | broken])
    with pytest.raises(DataError, match="floor"):
        write_scores(study, "05_flow", [{k: v for k, v in ROW.items() if k != "floor"}])


def test_claims_have_a_verdict(tmp_path: Path) -> None:
    study = Study.open(root=project(tmp_path, ""))
    claim = {"claim": "F1", "test": "paired", "effect": 1.0, "low": 0.1, "high": 2.0, "unit": "KID", "verdict": "supported"}
    write_claims(study, "06_fidelity", [claim])
    assert union(tmp_path, claims=True)["claim"].tolist() == ["F1"] and union(tmp_path).empty
    with pytest.raises(DataError, match="F1"):
        write_claims(study, "06_fidelity", [claim | {"verdict": "clearly"}])
