"""How much the choices of an audit matter: counted by hand on systems of which all is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import discs

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.config.study import open_study
from cmri_lib.experiments.attack_choices import MORE, SAMPLES, WEIGHTS, access_table, settings_summary, settings_table
from cmri_lib.experiments.privacy_audit import PrivacyAudit
from cmri_lib.experiments.provenance import patients_seen
from cmri_lib.privacy.attack import Attack, Target
from cmri_lib.systems.register import system
from cmri_lib.systems.system import Run

SMOKE = open_study("smoke", "phantom")
STUDY = replace(SMOKE, params=replace(SMOKE.params, fidelity=replace(SMOKE.params.fidelity, seeds=2, resamples=100)))
SLICES = concatenate([discs(24, 2, 16), *(discs(8, 2, 16, seed=k, split=split) for k, split in
                                          enumerate(("holdout", "validation", "test"), 1))])
FLOW, VAE = Run(system("U10 FM")), Run(system("U1 VAE"))


class Known(Attack):
    """Settings that are right about everybody, about nobody, and indifferent; only trainings in `knows` betray anything."""

    name = "loss"

    def __init__(self, knows: set[str]):
        self.knows = knows

    def suits(self, target: Target) -> bool:
        return not target.name.startswith("u1-")

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        seen = np.isin(slices.patients, list(target.seen)) * float(target.name in self.knows)
        return pd.DataFrame({"wrong": -seen, "same": 0 * seen, "right": seen})


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> PrivacyAudit:
    audit = PrivacyAudit(STUDY, SLICES)
    audit.__dict__["attacks"] = [Known({FLOW.folder})]
    monkeypatch.setattr(audit, "target", lambda run: Target(run.folder, patients_seen(run, SLICES)))
    return audit


def test_settings_are_those_of_every_training(audit: PrivacyAudit) -> None:
    table = settings_table(audit, [FLOW, VAE], "loss")
    assert set(table["system"]) == {FLOW.id} and set(table["training"]) == {1, 2}, "the attack does not suit a VAE"
    summary = settings_summary(audit, [FLOW, VAE], "loss")
    assert summary.index.tolist() == [(FLOW.id, 1), (FLOW.id, 2)]
    assert summary.to_numpy().tolist() == [[1.0, 1.0, 0.5, 0.0], [0.5, 0.5, 0.5, 0.5]]
    assert settings_table(audit, [VAE], "loss").empty


class Holding(Attack):
    """It needs the weights, or the samples, and knows the trainings of `knows` by heart."""

    def __init__(self, name: str, field: str, knows: set[str]):
        self.name, self.field, self.knows = name, field, knows

    def suits(self, target: Target) -> bool:
        return getattr(target, self.field) is not None

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        return pd.DataFrame({"s": np.isin(slices.patients, list(target.seen)) * float(target.name in self.knows)})


def test_what_weights_add_is_the_difference_of_the_best_attacks(audit: PrivacyAudit, monkeypatch: pytest.MonkeyPatch) -> None:
    """One attack on weights knows both trainings, the other none; samples betray one of the two trainings."""
    first, second = (run.folder for run in audit.trainings(FLOW))
    audit.__dict__["attacks"] = [Holding("pia", "generator", set()), Holding("loss", "generator", {first, second}),
                                 Holding("distance_pixel", "samples", {first})]
    generator, samples = object(), SLICES.where(split="test")
    monkeypatch.setattr(audit, "target", lambda run: Target(run.folder, patients_seen(run, SLICES), generator, samples))
    found = access_table(audit, [FLOW]).set_index("access")
    assert dict(found["value"]) == {WEIGHTS: 1.0, SAMPLES: 0.75, MORE: 0.25}
    assert (found["seeds"] == 2).all() and (found["n"] == 8).all()
    assert dict(found["chosen"]) == {WEIGHTS: "denoising loss", SAMPLES: "distance to samples, pixels", MORE: ""}
    monkeypatch.setattr(audit, "target", lambda run: Target(run.folder, patients_seen(run, SLICES), generator))
    assert list(access_table(audit, [FLOW])["access"]) == [WEIGHTS], "without samples nothing can be compared"
