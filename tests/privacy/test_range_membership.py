"""An attack on changed versions of a slice, where the scores of all versions are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import ParameterError
from cmri_lib.privacy.attack import Attack, Sides, Target, auc, membership_scores
from cmri_lib.privacy.attacks.range_membership import CHANGES, RangeMembership, changed
from cmri_lib.privacy.controls import DISGUISES, EXACT
from conftest import discs

MEMBERS, OTHERS = discs(6, 2, 32, seed=1), discs(6, 2, 32, seed=2, split="holdout")
SIDES, TARGET = Sides(MEMBERS, OTHERS), Target("g", frozenset(MEMBERS.patients))


class Nearest(Attack):
    """Minus the distance to the nearest image that was learnt from, and whether it is 0; `asked` lists what it was shown."""

    name = "loss"

    def __init__(self) -> None:
        self.asked: list[np.ndarray] = []

    def suits(self, target: Target) -> bool:
        return True

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        self.asked.append(slices.images)
        apart = np.abs(slices.images[:, None] - MEMBERS.images[None]).mean((2, 3, 4)).min(1).astype(float)
        return pd.DataFrame({"near": -apart, "exact": (apart == 0).astype(float)})


def test_the_score_is_the_mean_over_versions_and_the_slice_itself_is_never_asked_about() -> None:
    attack, alone = Nearest(), Nearest()
    found = RangeMembership(attack).scores(TARGET, MEMBERS)
    each = [alone.scores(TARGET, changed(MEMBERS, change)) for change in CHANGES]
    pd.testing.assert_frame_equal(found, (each[0] + each[1] + each[2]) / 3)
    assert EXACT not in CHANGES and all(np.abs(images - MEMBERS.images).mean((1, 2, 3)).min() > 0 for images in attack.asked)
    assert RangeMembership(attack).name == "range_loss"


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_that_of_the_disguise_and_leaves_all_but_the_image(change: str) -> None:
    some = changed(MEMBERS, change)
    np.testing.assert_array_equal(some.images, DISGUISES[change](torch.from_numpy(MEMBERS.images)).clamp(-1, 1).numpy())
    assert (some.masks == MEMBERS.masks).all() and some.table.equals(MEMBERS.table)
    assert some.images.dtype == np.float32 and np.abs(some.images).max() <= 1


def test_what_knows_the_exact_slice_alone_finds_nobody_and_what_knows_its_likeness_finds_all() -> None:
    """A slice that is moved a little still lies nearer to itself than a stranger's; it is nowhere equal to what was learnt."""
    exact, near = ([column] for column in ("exact", "near"))

    class Only(Nearest):
        def __init__(self, columns: list[str]) -> None:
            super().__init__()
            self.columns = columns

        def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
            return super().scores(target, slices)[self.columns]

    reached = {}
    for name, columns in (("exact", exact), ("near", near)):
        for how, attack in (("plain", Only(columns)), ("range", RangeMembership(Only(columns)))):
            one = membership_scores(attack, TARGET, SIDES)["mean"]
            reached[name, how] = auc(one.members, one.nonmembers)
    assert reached["exact", "plain"] == reached["near", "plain"] == 1
    assert reached["exact", "range"] == 0.5 and reached["near", "range"] > 0.9


@pytest.mark.parametrize("changes", [(), ("rotation by 3°", "magic")])
def test_unknown_changes_are_refused(changes: tuple[str, ...]) -> None:
    with pytest.raises(ParameterError, match="choose among"):
        RangeMembership(Nearest(), changes)
