"""An attack within groups, against sklearn; what a group has in common helps nobody; and sets in which a group is rare."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from cmri_lib.errors import DataError
from cmri_lib.privacy.attack import PatientScores, auc
from cmri_lib.privacy.groups import against_others, compositions, exposure, within


def scores(members: np.ndarray, others: np.ndarray) -> PatientScores:
    names = (np.array([f"{side}{i}" for i in range(len(x))]) for side, x in (("m", members), ("n", others)))
    return PatientScores(members, others, *names, ("s",))


@pytest.mark.parametrize("seed", range(3))
def test_the_auc_of_a_group_is_that_of_sklearn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = scores(rng.normal(0.5, 1, 40), rng.normal(0, 1, 50))
    groups = {name: "abc"[k % 3] for k, name in enumerate([*found.member_names, *found.nonmember_names])}
    parts = within([found], groups)
    assert list(parts) == ["a", "b", "c"]
    for group, (part,) in parts.items():
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
    assert {auc(part.members, part.nonmembers) for part, in within([found], groups).values()} == {0.5}


@given(st.lists(st.sampled_from(["a", "b", "", None]), min_size=8, max_size=8))
def test_who_is_in_no_group_is_left_out_and_nobody_counts_twice(labels: list[str | None]) -> None:
    found = scores(np.arange(4.0), np.arange(4.0))
    groups = {name: label for name, label in zip([*found.member_names, *found.nonmember_names], labels) if label is not None}
    parts = within([found], groups)
    assert set(parts) == (set(labels[:4]) & set(labels[4:])) - {"", None}
    kept = [name for part, in parts.values() for name in (*part.member_names, *part.nonmember_names)]
    assert len(kept) == len(set(kept)) and all(groups[name] in parts for name in kept)


def test_a_group_is_compared_with_the_mean_of_the_others() -> None:
    """Of three groups one has an AUC of 1, the others of 1/2; its difference stands out, theirs lie the other way."""
    members, others = (np.array([float(k // 8 == 0 and ours) for k in range(24)]) for ours in (True, False))
    found = scores(members, others)
    groups = {name: "abc"[int(name[1:]) // 8] for name in (*found.member_names, *found.nonmember_names)}
    parts = within([found], groups)
    first, second = (against_others(parts, group, resamples=200) for group in "ab")
    assert (first.value, first.low, first.high) == (0.5, 0.5, 0.5) and second.value == 0.5 - 0.75


def test_over_trainings_a_group_is_compared_in_each() -> None:
    """One training finds the first group, the other finds nobody: half the difference, and an interval that says so."""
    groups = {f"{side}{k}": "ab"[k // 10] for side in "mn" for k in range(20)}
    sure = scores(np.repeat([1.0, 0.0], 10), np.zeros(20))
    blind = scores(np.zeros(20), np.zeros(20))
    one, both = (against_others(within(found, groups), "a", resamples=200) for found in ([sure], [sure, blind]))
    assert one.value == 0.5 and both.value == 0.25 and both.seeds == 2
    assert one.low == one.high == 0.5 and both.low < 0.25 < both.high


@given(st.integers(2, 6), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5))
def test_two_sets_differ_in_nothing_but_how_common_a_group_is(kinds: int, pairs: int, few: int, spare: int) -> None:
    least = max(pairs * few, few + kinds)
    groups = {f"{kind}{k}": kind for n, kind in enumerate("abcdef"[:kinds]) for k in range(least + n * spare)}
    found = compositions(groups, pairs, few, seed=spare)
    watched = [name for one in found for name in one.watched]
    assert len(watched) == len(set(watched)) and len(found) == pairs
    for one in found:
        rare, even, of_watched = (Counter(groups[name] for name in some) for some in (one.rare, one.even, one.watched))
        assert len(one.rare) == len(one.even) == len(set(one.rare)) == len(set(one.even))
        assert set(one.watched) <= set(one.rare) & set(one.even) and set(of_watched.values()) == {few}
        assert len(set(even.values())) == 1 and len(even) == kinds
        assert all(rare[kind] == few < even[kind] for kind in of_watched)
        assert all(rare[kind] >= even[kind] for kind in even if kind not in of_watched)


def test_every_group_is_rare_in_turn() -> None:
    groups = {f"{kind}{k}": kind for kind in "abcde" for k in range(14)}
    times = Counter(groups[name] for one in compositions(groups, 5, 3) for name in one.watched)
    assert set(times.values()) == {9} and len(times) == 5


@pytest.mark.parametrize(("sizes", "pairs", "few"), [((9,), 1, 1), ((3, 9), 1, 2), ((4, 4, 4), 6, 3),
                                                       ((3, 3, 3, 3, 3), 1, 1)])
def test_too_few_patients_for_rare_groups_are_refused(sizes: tuple[int, ...], pairs: int, few: int) -> None:
    with pytest.raises(DataError, match="groups"):
        compositions({f"{kind}{k}": str(kind) for kind, size in enumerate(sizes) for k in range(size)}, pairs, few)


def test_exposure_is_told_in_deviations_of_strangers_of_the_same_group() -> None:
    strangers = pd.DataFrame({"t": [1.0, 3.0, 11.0, 13.0]}, index=["s1", "s2", "s3", "s4"])  # about 2 and 12; √2 of 2 degrees
    members = pd.DataFrame({"t": [4.0, 12.0, 0.0]}, index=["m1", "m2", "m3"])
    groups = dict(zip(["s1", "s2", "s3", "s4", "m1", "m2", "m3"], "aabbabc"))
    np.testing.assert_allclose(exposure(members, strangers, groups), [2 / 2**0.5, 0, np.nan])
    np.testing.assert_allclose(exposure(members, strangers, groups, np.array([3, 1, 1, 0])), [2.5 / 2**0.5, 1 / 2**0.5, np.nan])
    np.testing.assert_allclose(exposure(10 * members + 1, 10 * strangers + 1, groups)[:2], [2 / 2**0.5, 0], atol=1e-12)
    two = exposure(members.assign(u=members["t"]), strangers.assign(u=-strangers["t"]), groups)
    np.testing.assert_allclose(two[:2], [(2 + 6) / 2**1.5, (0 + 24) / 2**1.5])
