"""What audits of copies and of neighbours count, counted again pair by pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
from clouds import First, cloud

from cmri_lib.privacy.copies import CopyAudit
from cmri_lib.privacy.nearest_neighbours import audit_neighbours

#: Points whose coordinates are so many 64ths have distances without rounding.
UNIT = 1 / 64


def on_a_line(*places: float, prefix: str, split: str = "train"):
    """Slices of one patient each, at so many 64ths of the first feature."""
    return cloud(UNIT * np.array([(place, 0) for place in places], float), prefix, split=split)


def test_the_closest_pairs_come_first_with_the_share_of_strangers_as_near() -> None:
    """Nine strangers at one to nine 64ths: as near as two of them lie two, and with the sample itself three of ten."""
    training, others = on_a_line(0, 40, prefix="t"), on_a_line(20, 21, prefix="o", split="validation")
    holdout = on_a_line(*(-k for k in range(1, 10)), prefix="h", split="holdout")
    made = on_a_line(43.5, 20, 0, -2, 2, prefix="s", split="test")
    found = CopyAudit(made, training, holdout, others, First(), resamples=2).closest(4)
    assert found["sample"].tolist() == [2, 3, 4, 0] and found["training"].tolist() == [0, 0, 0, 1]
    assert found["distance"].tolist() == [0, 2 * UNIT, 2 * UNIT, 3.5 * UNIT]
    assert found["p"].tolist() == pytest.approx([1 / 10, 3 / 10, 3 / 10, 4 / 10])
    every = CopyAudit(made, training, holdout, others, First(), resamples=2).closest(99)
    assert len(every) == 5 and every["p"].iloc[-1] == 1, "further away than all strangers"


def test_the_ratio_is_the_median_distance_to_training_over_that_to_the_hold_out() -> None:
    """On a line, training at 0 and hold-out at 40: samples about 2 lie 2 and 38 away, real slices of others about 10."""
    training, holdout = (on_a_line(*places, prefix=name, split=split) for places, name, split in
                         (((0, -50, -51), "t", "train"), ((40, 60, 61), "h", "holdout")))
    made = on_a_line(1, 9, 2, 1.5, 30, 2, 1, prefix="s", split="made")
    test = on_a_line(8, 20, 10, 9, 39, 11, prefix="r", split="test")
    rows = {row["metric"]: row for row in audit_neighbours(test, made, training, holdout, First(), resamples=50).rows}
    ratio = rows["nearest_ratio_first"]
    assert ratio["value"] == pytest.approx(2 / 38) and ratio["floor"] == pytest.approx(10.5 / 29.5)
    assert ratio["ceiling"] == 0 and ratio["better"] == "higher" and ratio["n"] == 7
    assert 1 / 39 <= ratio["low"] <= ratio["value"] <= ratio["high"] <= 30 / 10


def clustered(patients, prefix, rng, split="train"):
    """Four slices of each patient that lie much nearer to each other than to anybody else's."""
    centres = np.repeat(0.2 * rng.normal(size=(patients, 2)), 4, axis=0)
    return cloud(np.clip(centres + 0.004 * rng.normal(size=centres.shape), -1, 1), prefix, 4, split)


def test_measures_of_clustered_patients_are_counted_by_hand():
    """Pair by pair: by the slices of the same patient, which count nowhere, every one of these would be another number."""
    rng = np.random.default_rng(5)
    training, holdout, others = (clustered(12, name, rng, split) for name, split in
                                 (("t", "train"), ("h", "holdout"), ("o", "validation")))
    near = First()(training.images)[:24:2] + 0.03 * rng.normal(size=(12, 2))
    made = cloud(np.concatenate([near, 0.2 * rng.normal(size=(18, 2)).clip(-4, 4)]), "s", split="test")
    audit = CopyAudit(made, training, holdout, others, First(), rate=0.2, resamples=2)
    t, h, s = (list(zip(map(tuple, First()(some.images)), some.patients)) for some in (training, holdout, made))

    def closest(one, rows, without=None):
        return min((math.dist(one[0], row[0]), row[1], row) for row in rows if row[1] != without)

    def authentic(rows):
        return np.mean([closest(one, t)[0] > closest(closest(one, t)[2], t, closest(one, t)[1])[0] for one in rows])

    def ratio(rows):
        return np.mean([closest(one, t)[0] / closest(one, t, closest(one, t)[1])[0] for one in rows])

    def accuracy(real):
        return np.mean([closest(one, s)[0] > closest(one, real, one[1])[0] for one in real]) / 2 + np.mean(
            [closest(one, real)[0] > closest(one, s, one[1])[0] for one in s]) / 2

    null = [closest(one, t)[0] for one in h]
    found = audit.near_copies(), audit.authenticity(), audit.neighbour_ratio(), audit.privacy_loss(), audit.concentration()
    whose = [closest(one, t)[1] for one in s]
    np.testing.assert_allclose([score.value for score in found], [
        np.mean([np.sum(np.array(null) <= closest(one, t)[0]) <= 0.2 * len(null) for one in s]), authentic(s), ratio(s),
        accuracy(h) - accuracy(t), max(map(whose.count, whose)) / len(s)], rtol=1e-6)
    np.testing.assert_allclose([score.floor for score in found[:4]], [0.2, authentic(h), ratio(h), 0], rtol=1e-6)
    o = list(zip(map(tuple, First()(others.images)), others.patients))
    null, swapped = np.array(null), np.array([closest(one, h)[0] for one in o])  # others: to the hold-out as it to training
    both = np.array([(closest(one, t)[0], closest(one, h)[0]) for one in s])
    ranks = np.array([[np.mean(null < first), np.mean(swapped < second)] for first, second in both])
    assert audit.swapped_share().value == pytest.approx(np.mean(0.5 + 0.5 * np.sign(ranks[:, 1] - ranks[:, 0])))
    rates = [np.mean([np.sum(some <= d) <= 0.2 * len(some) for d in column]) for some, column in zip((null, swapped), both.T)]
    assert rates[1] > 0 and audit.near_copy_excess().value == pytest.approx(rates[0] - rates[1])
    theirs = [closest(one, t)[1] for one in h]  # of fewer, drawn from them, the largest share is larger still
    assert 0 < found[4].floor - max(map(theirs.count, theirs)) / len(h) < 0.1


def test_honest_samples_of_many_clustered_patients_score_the_floor():
    rng = np.random.default_rng(6)
    training, holdout, others = (clustered(300, name, rng, split) for name, split in
                                 (("t", "train"), ("h", "holdout"), ("o", "validation")))
    honest = cloud(np.clip(0.2 * rng.normal(size=(1200, 2)), -1, 1), "s", split="test")
    audit = CopyAudit(honest, training, holdout, others, First(), rate=0.1, resamples=2)
    for name in ("near_copies", "near_copy_excess", "swapped_share", "authenticity", "neighbour_ratio", "privacy_loss"):
        score = getattr(audit, name)()
        assert abs(score.value - score.floor) < 0.05, (name, score)
