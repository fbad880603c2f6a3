"""The AUC of every setting, where it is known, and what of it an audit has chosen by."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import SplitError
from cmri_lib.privacy.attack import Attack, Sides, Target, auc, halves, membership_scores
from cmri_lib.privacy.setting_scores import ALL, HALVES, by_setting
from conftest import discs

MEMBERS, OTHERS = discs(8, 3, 8, seed=1), discs(12, 3, 8, seed=2, split="holdout")
SIDES, TARGET = Sides(MEMBERS, OTHERS), Target("g", frozenset(MEMBERS.patients))


class OfPatients(Attack):
    """Setting → patient → score; the slices of a patient lie 1 below it, at it and 1 above it."""

    name = "given"

    def __init__(self, tables: dict[str, dict[str, float]]):
        self.tables = tables

    def suits(self, target: Target) -> bool:
        return True

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        place = pd.Series(slices.patients).groupby(slices.patients).cumcount() - 1
        return pd.DataFrame({name: [table[p] for p in slices.patients] + place for name, table in self.tables.items()})


def test_every_setting_has_the_auc_that_its_patients_give_it() -> None:
    """"right" is right about all; "half" about one of the halves, in which all others score alike; "wrong" about nobody."""
    people = [halves(side.patients, seed) for side, seed in ((MEMBERS, 0), (OTHERS, 1))]
    everyone = np.concatenate([*people[0], *people[1]])
    right = {p: float(p in TARGET.seen) for p in everyone}
    half = {p: float(p in people[0][0]) for p in everyone}
    table = by_setting(OfPatients({"half": half, "right": right, "wrong": {p: -v for p, v in right.items()}}), TARGET, SIDES)
    wide = table.pivot(index="setting", columns="half", values="value")
    assert dict(wide.loc["half"]) == {HALVES[0]: 1.0, HALVES[1]: 0.5, ALL: 0.75}
    assert set(wide.loc["right"]) == {1.0} and set(wide.loc["wrong"]) == {0.0}
    assert dict(table.groupby("half")["n"].first()) == {HALVES[0]: 4, HALVES[1]: 4, ALL: 8}
    # In the first half two settings are equally good, and the first of them is picked; it serves the second half.
    chosen = {(row.half, row.setting): (row.picked, row.used) for row in table.itertuples() if row.picked or row.used}
    assert chosen == {(HALVES[0], "half"): (True, False), (HALVES[0], "right"): (False, True),
                      (HALVES[1], "right"): (True, False), (HALVES[1], "half"): (False, True)}


@pytest.mark.parametrize("seed", range(6))
def test_picked_is_what_is_best_there_and_used_is_what_the_audit_used(seed: int) -> None:
    rng = np.random.default_rng(seed)
    people = [*np.unique(MEMBERS.patients), *np.unique(OTHERS.patients)]
    attack = OfPatients({f"u = {k}": dict(zip(people, rng.normal(size=len(people)))) for k in range(7)})
    table, audited = (f(attack, TARGET, SIDES, seed=seed) for f in (by_setting, membership_scores))
    for half, other in (HALVES, HALVES[::-1]):
        part = table[table["half"] == half].set_index("setting")
        assert part["picked"].sum() == part["used"].sum() == 1
        assert part["value"].idxmax() == part["picked"].idxmax()
        assert part["picked"].idxmax() == table[(table["half"] == other) & table["used"]]["setting"].item()
    used = [table[(table["half"] == half) & table["used"]]["setting"].item() for half in HALVES]
    assert tuple(used) == audited["mean"].chosen
    # In one half, scores by one setting are only shifted and stretched: its AUC is that of the audit's own scores there.
    found = audited["mean"]
    for k, half in enumerate(HALVES):
        ours = found.members[np.isin(found.member_names, halves(MEMBERS.patients, seed)[k])]
        theirs = found.nonmembers[np.isin(found.nonmember_names, halves(OTHERS.patients, seed + 1)[k])]
        assert auc(ours, theirs) == table[(table["half"] == half) & table["used"]]["value"].item()


def test_whoever_was_not_learnt_from_is_no_member() -> None:
    with pytest.raises(SplitError, match="has not learnt from 8 members"):
        by_setting(OfPatients({}), Target("g", frozenset()), SIDES)
