"""The system of CONTRIBUTING.md: its entry can be built, and is trained, drawn and scored as the guide says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import discs
from contributing import example, run_example

from cmri_lib.cohort.slices import concatenate
from cmri_lib.config import study as study_module
from cmri_lib.config.study import open_study
from cmri_lib.experiments import instruments
from cmri_lib.experiments.evaluator import Evaluator
from cmri_lib.measures.fidelity.distances import distances
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.systems import conditional, register

SPLITS = {"train": 8, "validation": 6, "test": 6, "holdout": 6}


def test_it_is_entered_trained_drawn_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, = eval("(" + example("control=True") + ")", dict(vars(conditional)))
    assert entry.id not in register.SYSTEMS, "an example is no system of the study"
    monkeypatch.setitem(register.SYSTEMS, entry.id, entry)
    study = replace(open_study("smoke", "phantom"), root=tmp_path)
    cohort = concatenate([discs(n, 4, seed=k, split=split) for k, (split, n) in enumerate(SPLITS.items())])
    segment = lambda images: np.select([images[:, 0] > 0.2, images[:, 0] > -0.55], [1, 2], 0).astype(np.uint8)  # noqa: E731
    monkeypatch.setattr(study_module, "open_study", lambda profile: study)
    monkeypatch.setattr(instruments, "load_slices", lambda study: cohort)
    monkeypatch.setattr(Evaluator, "measures", [distances(ClassicalFeatures())])
    for name in ("segmenter", "second_segmenter"):
        monkeypatch.setattr(Evaluator, name, staticmethod(segment))

    made = run_example("evaluator.bank")
    weights = sorted(str(file.parent.relative_to(tmp_path / "work")) for file in tmp_path.rglob("weights.safetensors"))
    assert weights == ["phantom/smoke/conditional/c12-diffusion-by-controlnet", "phantom/smoke/diffusion/u6-ddpm"]
    assert made["bank"].images.shape == (24, 1, 32, 32)
    assert set(made["bank"].patients) <= set(cohort.where(split="test").patients)
    assert {row["system"] for row in made["rows"]} == {entry.id}
    assert {"kid_classical", "dice_mean"} <= {row["metric"] for row in made["rows"]}
