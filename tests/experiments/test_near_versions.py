"""Exact slices, changed ones, and all changes together are scored by the same attacks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import discs

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.config.study import open_study
from cmri_lib.experiments.near_versions import EXACT, RANGE, versions_table
from cmri_lib.experiments.privacy_audit import PrivacyAudit
from cmri_lib.experiments.provenance import patients_seen
from cmri_lib.privacy.attack import Attack, Target
from cmri_lib.privacy.attacks.denoising_error import Fluctuation
from cmri_lib.privacy.attacks.range_membership import CHANGES
from cmri_lib.systems.register import system
from cmri_lib.systems.system import Run

STUDY, FLOW = open_study("smoke", "phantom"), Run(system("U10 FM"))
SLICES = concatenate([discs(12, 2, 16), *(discs(8, 2, 16, seed=k, split=split) for k, split in
                                          enumerate(("holdout", "validation", "test"), 1))])


class Equal(Attack):
    """1 for an image that was learnt from, pixel by pixel, else 0."""

    def __init__(self, name: str):
        self.name = name

    def suits(self, target: Target) -> bool:
        return True

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        known = {image.tobytes() for image in SLICES.images[np.isin(SLICES.patients, list(target.seen))]}
        return pd.DataFrame({"s": [float(image.tobytes() in known) for image in slices.images]})


class Blurred(Equal):
    """Near to an image that was learnt from, or not."""

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        known = SLICES.images[np.isin(SLICES.patients, list(target.seen))]
        return pd.DataFrame({"s": -np.abs(slices.images[:, None] - known[None]).mean((2, 3, 4)).min(1).astype(float)})


def test_one_attack_needs_the_very_slice_and_the_other_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    audit = PrivacyAudit(STUDY, SLICES)
    audit.__dict__["attacks"] = [Equal("loss"), Fluctuation(Equal("loss")), Blurred("distance_pixel"), Blurred("pia")]
    monkeypatch.setattr(audit, "target", lambda run: Target(run.folder, patients_seen(run, SLICES)))
    found = versions_table(audit, [FLOW])
    assert set(found["attack"]) == {"loss", "distance_pixel"} and len(found) == 2 * (len(CHANGES) + 2)
    wide = found.pivot(index="version", columns="attack", values="value")
    assert list(dict.fromkeys(found["version"])) == [EXACT, *CHANGES, RANGE]
    assert (wide.loc[EXACT] == 1).all() and (wide["loss"].drop(EXACT) == 0.5).all()
    assert wide.loc["shift of 1 pixel", "distance_pixel"] > 0.8 and wide.loc[RANGE, "distance_pixel"] > 0.8
