"""Attacks are scored by patient, with settings chosen on others: against sklearn, and where the truth is known."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score, roc_curve

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError, SplitError
from cmri_lib.privacy.attack import (Attack, Calibrated, PatientScores, Remembered, Sides, Target,
                                     attack_rows, auc, auc_difference, fpr_note,
                                     membership_scores, score_of, tpr_at)
from conftest import discs

MEMBERS, OTHERS = discs(20, 3, 8, seed=1), discs(24, 3, 8, seed=2, split="holdout")
SIDES, TARGET = Sides(MEMBERS, OTHERS), Target("g", frozenset(MEMBERS.patients))


class Given(Attack):
    """Scores by a function of (name of the target, slices)."""

    name = "given"

    def __init__(self, function):
        self.function = function

    def suits(self, target):
        return True

    def scores(self, target, slices):
        return pd.DataFrame(self.function(target.name, slices))


@pytest.mark.parametrize("seed", range(4))
def test_auc_and_tpr_are_those_of_sklearn_with_ties(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 12, 70) + 2.0, rng.integers(0, 12, 90) * 1.0
    labels, scores = np.repeat([1, 0], [70, 90]), np.concatenate([x, y])
    assert auc(x, y) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    for rate in (0.0, 0.01, 0.05, 0.2):
        assert tpr_at(x, y, rate) == pytest.approx(true[false <= rate].max(), abs=1e-12)


def test_counts_are_repetitions():
    rng = np.random.default_rng(0)
    x, y, u, v = rng.normal(1, 1, 9), rng.normal(0, 1, 11), rng.integers(0, 4, 9), rng.integers(0, 4, 11)
    twice = np.repeat(x, u), np.repeat(y, v)
    assert auc(x, y, u, v) == pytest.approx(auc(*twice))
    assert tpr_at(x, y, 0.1, u, v) == pytest.approx(tpr_at(*twice, 0.1))


def test_what_few_non_members_can_show_is_said():
    assert fpr_note(200, 0.01) == "1% of 200 non-members are 2"
    assert fpr_note(100, 0.01) == "1% of 100 non-members are 1"
    for few in (20, 99):  # none may be reached; what a rate may be of which none among so many has come
        limit = binomtest(0, few, alternative="less").proportion_ci(0.95, method="exact").high
        assert fpr_note(few, 0.01).startswith(f"1% of {few} non-members are less than one")
        assert fpr_note(few, 0.01).endswith(f"false-positive rate of up to {limit:.0%}")
    assert fpr_note(20, 0.01).endswith("up to 14%") and fpr_note(20, 0.05) == "5% of 20 non-members are 1"


def test_a_patient_on_both_sides_and_strangers_among_members_are_refused():
    with pytest.raises(SplitError, match="both members and nonmembers"):
        Sides(MEMBERS, MEMBERS)
    with pytest.raises(DataError, match="1 patients"):
        Sides(MEMBERS.where(patient=MEMBERS.patients[0]), OTHERS)
    attack = Given(lambda name, slices: {"s": np.zeros(len(slices))})
    with pytest.raises(SplitError, match="has not learnt from 20 members"):
        membership_scores(attack, Target("g", frozenset()), SIDES)
    with pytest.raises(SplitError, match="has seen 24"):
        membership_scores(attack, Target("g", frozenset([*MEMBERS.patients, *OTHERS.patients])), SIDES)
    with pytest.raises(SplitError, match="this null"):
        membership_scores(attack, TARGET, SIDES, null=True)


def test_patients_are_scored_by_the_mean_and_by_the_maximum_of_their_slices():
    values = {id(MEMBERS): np.arange(60.0), id(OTHERS): -np.arange(72.0)}
    found = membership_scores(Given(lambda name, slices: {"s": values[id(slices)]}), TARGET, SIDES)
    expected = pd.Series(np.arange(60.0)).groupby(MEMBERS.patients)
    np.testing.assert_allclose(found["mean"].members, expected.mean())
    np.testing.assert_allclose(found["max"].members, expected.max())
    np.testing.assert_array_equal(found["mean"].member_names, np.unique(MEMBERS.patients))
    assert found["mean"].chosen == ("s", "s")


def test_settings_are_chosen_on_other_patients():
    """Of 150 settings of pure noise the best on the same patients has an AUC far above one half;
    chosen on others it has not."""
    found, best = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        noise = {len(s): rng.normal(size=(len(s), 150)) for s in (MEMBERS, OTHERS)}
        attack = Given(lambda name, slices: dict(zip(map(str, range(150)), noise[len(slices)].T)))
        found.append(score_of(membership_scores(attack, TARGET, SIDES, seed=seed)["mean"], resamples=1).value)
        by_patient = [pd.DataFrame(noise[len(s)]).groupby(s.patients).mean() for s in (MEMBERS, OTHERS)]
        best.append(max(auc(by_patient[0][k], by_patient[1][k]) for k in range(150)))
    assert np.mean(best) > 0.65 and np.mean(found) == pytest.approx(0.5, abs=3 * 0.09 / 12**0.5)


def test_the_one_setting_that_tells_is_found_whatever_its_scale():
    def scores(name, slices):
        rng = np.random.default_rng(len(slices))
        inside = np.isin(slices.patients, MEMBERS.patients)
        return {"noise": rng.normal(size=len(slices)),
                "tells": 1000 + 50 * (inside + 0.05 * rng.normal(size=len(slices)))}

    found = membership_scores(Given(scores), TARGET, SIDES)["mean"]
    assert found.chosen == ("tells", "tells") and auc(found.members, found.nonmembers) > 0.99


def test_calibration_takes_difficulty_away_and_needs_a_reference_without_the_patients():
    rng = np.random.default_rng(0)
    hard = {p: rng.normal(0, 10) for p in [*MEMBERS.patients, *OTHERS.patients]}

    def scores(name, slices):
        inside = np.isin(slices.patients, MEMBERS.patients) & (name == "g")
        return {"s": np.array([hard[p] for p in slices.patients]) + inside}

    plain, attack = Given(scores), Calibrated(Given(scores), Target("reference", frozenset(["somebody"])))
    of = {a.name: score_of(membership_scores(a, TARGET, SIDES)["mean"], resamples=1).value
          for a in (plain, attack)}
    assert of["given"] < 0.8 and of["given_calibrated"] == 1
    with pytest.raises(SplitError, match="the reference"):
        membership_scores(Calibrated(plain, TARGET), TARGET, SIDES)


def test_a_slice_is_scored_once_for_each_target():
    asked = []

    def scores(name, slices):
        asked.append((name, len(slices)))
        return {"s": slices.images.mean((1, 2, 3)), "t": slices.images.std((1, 2, 3))}

    attack, other = Remembered(Given(scores)), Target("other", frozenset())
    first = attack.scores(TARGET, MEMBERS.take(range(10)))
    again = attack.scores(TARGET, MEMBERS.take(range(5, 15)))
    attack.scores(other, MEMBERS.take(range(3)))
    assert asked == [("g", 10), ("g", 5), ("other", 3)] and list(again) == ["s", "t"]
    np.testing.assert_array_equal(again.to_numpy()[:5], first.to_numpy()[5:])
    np.testing.assert_allclose(again["s"], MEMBERS.images[5:15].mean((1, 2, 3)), rtol=1e-6)
    unknown = MEMBERS.table.assign(sex=pd.Series([None] * len(MEMBERS), dtype="str"))
    assert len(attack.scores(TARGET, Slices(MEMBERS.images, MEMBERS.masks, unknown))) == len(MEMBERS)


def drawn(shift, seed, size=60):
    rng = np.random.default_rng(seed)
    names = [np.array([f"{side}{i}" for i in range(size)]) for side in "mn"]
    return PatientScores(rng.normal(shift, 1, size), rng.normal(0, 1, size), *names, ("s",))


def test_rows_have_intervals_over_patients_and_trainings_that_cover_the_truth():
    truth = 0.7602  # Φ(1 / √2)
    covered = []
    for seed in range(40):
        score = score_of(drawn(1.0, seed), resamples=200)
        covered.append(score.low <= truth <= score.high)
    assert np.mean(covered) >= 0.85
    rows = {r["metric"]: r for r in attack_rows("loss", [{"mean": drawn(1.0, s), "max": drawn(1.0, s)}
                                                         for s in range(3)],
                                                resamples=50)}
    assert set(rows) == {f"attack_{m}_loss" for m in ("auc", "auc_max", "tpr1", "tpr5")}
    row = rows["attack_auc_loss"]
    assert row["seeds"] == 3 and row["n"] == 60 and row["floor"] == 0.5 and row["low"] <= row["value"] <= row["high"]
    assert rows["attack_tpr1_loss"]["floor"] == 0.01


def test_an_attack_without_an_error_is_not_sure_of_the_next_patient():
    """Of twelve disjoint pairs none is in the wrong order."""
    score = score_of(drawn(50.0, 0, size=12), resamples=50)
    assert score.value == score.high == 1 and score.low == pytest.approx(0.025 ** (1 / 12))


def test_a_difference_of_two_attacks_is_paired():
    first = drawn(1.0, 0)
    gain = auc_difference([first], [first], resamples=50)
    assert gain.value == gain.low == gain.high == 0
    with pytest.raises(DataError, match="different patients"):
        score_of([first, drawn(1.0, 1, size=30)])


def test_a_difference_of_two_attacks_changes_its_sign_with_their_order():
    strong, weak = ([drawn(shift, seed) for seed in seeds] for shift, seeds in ((2.0, (0, 1)), (0.0, (2, 3))))
    gain, loss = (auc_difference(*sides, resamples=100) for sides in ((strong, weak), (weak, strong)))
    each = [[auc(one.members, one.nonmembers) for one in side] for side in (strong, weak)]
    assert gain.value == pytest.approx(np.mean(each[0]) - np.mean(each[1])) and gain.low > 0.2 and gain.seeds == 2
    assert (loss.value, loss.low, loss.high) == pytest.approx((-gain.value, -gain.high, -gain.low))


def test_trainings_of_other_patients_on_either_side_of_a_difference_are_refused():
    alike, others = [drawn(1.0, 0), drawn(1.0, 1)], [drawn(1.0, 0), drawn(1.0, 1, size=30)]
    for sides in ((others, alike), (alike, others)):
        with pytest.raises(DataError, match="different patients"):
            auc_difference(*sides, resamples=5)
