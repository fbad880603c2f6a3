"""The best of several attacks is chosen on other patients than those that are scored."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmri_lib.cohort.slices import Slices
from cmri_lib.privacy.attack import Attack, Sides, Target, auc, membership_scores
from cmri_lib.privacy.attacks.best_of import BestOf, attack_of
from conftest import discs

MEMBERS, OTHERS = discs(20, 2, 8, seed=1), discs(20, 2, 8, seed=2, split="holdout")
SIDES, TARGET = Sides(MEMBERS, OTHERS), Target("g", frozenset(MEMBERS.patients))


class Scaled(Attack):
    """Members score `good` above others, in units of chance, and all that `scale` times; two settings, of which one is less
    good. It suits targets whose names begin with `of`."""

    def __init__(self, name: str, good: float, scale: float = 1.0, of: str = "", seed: int = 0):
        self.name, self.good, self.scale, self.of = name, good, scale, of
        rng = np.random.default_rng(seed)
        self.chance = {p: rng.normal() for p in (*np.unique(MEMBERS.patients), *np.unique(OTHERS.patients))}

    def suits(self, target: Target) -> bool:
        return target.name.startswith(self.of)

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        values = np.array([self.good * (p in target.seen) + self.chance[p] for p in slices.patients])
        return pd.DataFrame({"sharp": self.scale * values, "blunt": self.scale * np.round(values / 4)})


def test_the_attack_that_knows_is_chosen_whatever_its_scale() -> None:
    weak, strong = Scaled("weak", 0.0, 1e6, seed=1), Scaled("strong", 30.0, 1e-6, seed=2)
    best, alone = (membership_scores(attack, TARGET, SIDES)["mean"]
                   for attack in (BestOf((weak, strong), "both"), strong))
    assert best.chosen == ("strong: sharp",) * 2 and [attack_of(s) for s in best.chosen] == ["strong"] * 2
    np.testing.assert_array_equal(best.members, alone.members)
    np.testing.assert_array_equal(best.nonmembers, alone.nonmembers)
    assert auc(best.members, best.nonmembers) == 1


def test_of_attacks_that_know_nothing_the_best_is_no_better_than_chance() -> None:
    """Picked afterwards, the best of twenty finds members whom nobody has learnt from; chosen beforehand it finds none."""
    afterwards, before = [], []
    for trial in range(40):
        attacks = tuple(Scaled(f"a{k}", 0.0, seed=100 * trial + k) for k in range(20))
        each = [membership_scores(attack, TARGET, SIDES)["mean"] for attack in attacks]
        afterwards.append(max(auc(one.members, one.nonmembers) for one in each))
        best = membership_scores(BestOf(attacks, "all"), TARGET, SIDES, seed=trial)["mean"]
        before.append(auc(best.members, best.nonmembers))
    spread = np.std(before) / np.sqrt(len(before))
    assert np.mean(afterwards) > 0.6 and np.mean(before) == pytest.approx(0.5, abs=3 * spread) and spread < 0.03


def test_attacks_that_do_not_suit_take_no_part() -> None:
    both = BestOf((Scaled("a", 1.0, of="flow"), Scaled("b", 1.0)), "both")
    flow, gan = (both.scores(Target(name, TARGET.seen), MEMBERS) for name in ("flow 1", "gan 1"))
    assert list(flow) == ["a: sharp", "a: blunt", "b: sharp", "b: blunt"] and list(gan) == ["b: sharp", "b: blunt"]
    assert not BestOf((Scaled("a", 1.0, of="flow"),), "flows").suits(Target("gan 1", TARGET.seen))
