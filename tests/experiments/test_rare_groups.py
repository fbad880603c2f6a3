"""The same patients among few and among many of their disease: whom each generator has seen, and what an attack finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import discs

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.config.study import open_study
from cmri_lib.experiments.privacy_audit import PrivacyAudit
from cmri_lib.experiments.privacy_runs import audit_runs, rare_runs
from cmri_lib.experiments.rare_groups import CHANGE, EVEN, RARE, RareGroups
from cmri_lib.privacy.attack import Attack, Target
from cmri_lib.systems.system import Run

SMOKE = open_study("smoke", "phantom")
SETTINGS = replace(SMOKE.params.privacy, patients=100, rare=replace(SMOKE.params.privacy.rare, pairs=3, few=2))
STUDY = replace(SMOKE, params=replace(SMOKE.params, privacy=SETTINGS))
PLAIN = concatenate([discs(40, 2, 16), discs(20, 2, 16, seed=1, split="holdout"), discs(5, 2, 16, seed=2, split="test")])
NAMES = np.unique(PLAIN.patients)
DISEASES = {name: "ABCDE"[k % 5] for k, name in enumerate(NAMES)}
SLICES = PLAIN.with_columns(disease=np.array([DISEASES[name] for name in PLAIN.patients]))


class Told(Attack):
    """Members score 1 above strangers, and `more` above that if less than every fifth training patient has their disease.
    Every other stranger of a disease scores 1 above the rest."""

    name = "loss"

    def __init__(self, more: float):
        self.more = more

    def suits(self, target: Target) -> bool:
        return True

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        return pd.DataFrame({"s": [self._score(target, name) for name in slices.patients]})

    def _score(self, target: Target, name: str) -> float:
        if name not in target.seen:
            return float(list(NAMES).index(name) // 5 % 2)
        mates = sum(DISEASES[other] == DISEASES[name] for other in target.seen)
        return 1.5 + (self.more if mates / len(target.seen) < 0.2 else 0.0)


def groups(monkeypatch: pytest.MonkeyPatch, more: float, slices: Slices = SLICES) -> RareGroups:
    audit = PrivacyAudit(STUDY, slices)
    audit.__dict__["attacks"] = [Told(more)]
    monkeypatch.setattr(audit, "target", lambda run: Target(run.folder, frozenset(run.patients)))
    return RareGroups(audit)


@pytest.mark.parametrize("more", [0.0, 2.0, -1.0])
def test_a_difference_is_due_to_how_rare_the_disease_is(more: float, monkeypatch: pytest.MonkeyPatch) -> None:
    found = groups(monkeypatch, more)
    (attack,) = found.attacks
    # Strangers of a disease score 0, 1, 0, 1, about 1/2. In units of their deviation members lie 1 above, with `more` more so.
    unit = (5 * 4 / 4 / (20 - 5)) ** 0.5
    assert found.score(attack, EVEN).value == pytest.approx(1 / unit)
    assert found.score(attack, RARE).value == pytest.approx((1 + more) / unit)
    change = found.difference(attack)
    assert change.value == pytest.approx(more / unit) and change.n == 3 * 3 * 2 and change.seeds == 3
    assert change.low <= change.value <= change.high and (change.low > 0) == (more > 0) and (change.high < 0) == (more < 0)


def test_the_table_has_every_pair_and_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    found = groups(monkeypatch, 2.0)
    table = found.table()
    assert list(table["pair"]) == 3 * ["1", "2", "3", "all"]
    assert list(table["disease"]) == 4 * [EVEN] + 4 * [RARE] + 4 * [CHANGE]
    np.testing.assert_allclose(table["value"], np.repeat([1, 3, 2], 4) * 3**0.5)
    rows = found.rows()
    assert [(row["system"], row["metric"], row["value"]) for row in rows] == [
        ("U10 FM, disease rare", "attack_exposure_loss", pytest.approx(3 * 3**0.5)),
        ("U10 FM, disease as common as others", "attack_exposure_loss", pytest.approx(3**0.5))]


def test_both_trainings_of_a_pair_have_seen_whom_they_are_asked_about() -> None:
    pairs = rare_runs(STUDY, SLICES)
    folders = {run.folder for pair in pairs.values() for run in pair}
    assert len(pairs) == 3 and len(folders) == 6 and {type(run) for pair in pairs.values() for run in pair} == {Run}
    for composition, (rare, even) in pairs.items():
        assert set(composition.watched) <= set(rare.patients) & set(even.patients) and len(rare.patients) == len(even.patients)
        assert rare.settings(STUDY.params, 0) == even.settings(STUDY.params, 0) and rare.stage == "privacy"
    assert folders <= {run.folder for run in audit_runs(STUDY, SLICES)}


def test_without_known_diseases_there_is_nothing_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    found = groups(monkeypatch, 1.0, PLAIN.with_columns(disease=""))
    assert found.runs == {} and found.table().empty and found.rows() == []
