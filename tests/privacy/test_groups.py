"""An attack within groups, against sklearn; and nothing is gained by what a group has in common."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from cmri_lib.privacy.attack import PatientScores, auc
from cmri_lib.privacy.groups import within


def scores(members: np.ndarray, others: np.ndarray) -> PatientScores:
    names = (np.array([f"{side}{i}" for i in range(len(x))]) for side, x in (("m", members), ("n", others)))
    return PatientScores(members, others, *names, ("s",))


@pytest.mark.parametrize("seed", range(3))
def test_the_auc_of_a_group_is_that_of_sklearn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = scores(rng.normal(0.5, 1, 40), rng.normal(0, 1, 50))
    groups = {name: "abc"[k % 3] for k, name in enumerate([*found.member_names, *found.nonmember_names])}
    parts = within(found, groups)
    assert list(parts) == ["a", "b", "c"]
    for group, part in parts.items():
        ours, theirs = ([value for name, value in zip(names, values) if groups[name] == group] for names, values in (
            (found.member_names, found.members), (found.nonmember_names, found.nonmembers)))
        labels = np.repeat([1, 0], [len(ours), len(theirs)])
        assert auc(part.members, part.nonmembers) == pytest.approx(roc_auc_score(labels, [*ours, *theirs]))
        assert {groups[name] for name in (*part.member_names, *part.nonmember_names)} == {group}


def test_what_a_group_has_in_common_tells_nobody_apart() -> None:
    """More members than strangers have the disease, and the score is nothing but the disease."""
    groups = {f"{side}{i}": "ill" if i < ill else "well" for side, ill in (("m", 15), ("n", 5)) for i in range(20)}
    found = scores(*(np.array([float(groups[f"{side}{i}"] == "ill") for i in range(20)]) for side in "mn"))
    assert auc(found.members, found.nonmembers) == 0.75
    assert {auc(part.members, part.nonmembers) for part in within(found, groups).values()} == {0.5}


@given(st.lists(st.sampled_from(["a", "b", "", None]), min_size=8, max_size=8))
def test_who_is_in_no_group_is_left_out_and_nobody_counts_twice(labels: list[str | None]) -> None:
    found = scores(np.arange(4.0), np.arange(4.0))
    groups = {name: label for name, label in zip([*found.member_names, *found.nonmember_names], labels) if label is not None}
    parts = within(found, groups)
    assert set(parts) == (set(labels[:4]) & set(labels[4:])) - {"", None}
    kept = [name for part in parts.values() for name in (*part.member_names, *part.nonmember_names)]
    assert len(kept) == len(set(kept)) and all(groups[name] in parts for name in kept)
