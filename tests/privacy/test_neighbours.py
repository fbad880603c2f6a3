"""The neighbour audit finds planted copies, and finds nothing where there is nothing."""

import warnings

import numpy as np
import pandas as pd
import pytest

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import SplitError
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.fidelity import support
from cmri_lib.privacy.nearest_neighbours import (Neighbours, Pixels, _reached, audit_neighbours, nearest, nearest_share,
                                                 nearest_slices, share_excess)
from conftest import discs


@pytest.fixture(scope="module")
def sets() -> dict[str, Slices]:
    return {"training": discs(24, 4, seed=1), "holdout": discs(8, 4, seed=2, split="holdout"),
            "test": discs(8, 4, seed=3, split="test"), "honest": discs(16, 4, seed=4, split="sample")}


def audit(sets: dict[str, Slices], synthetic: Slices, features=Pixels()):
    result = audit_neighbours(sets["test"], synthetic, sets["training"], sets["holdout"], features, resamples=200)
    return {row["metric"]: row for row in result.rows}, result.suspects


def test_nearest_is_brute_force():
    rng = np.random.default_rng(0)
    samples, side = rng.standard_normal((300, 7)), rng.standard_normal((50, 7))
    side[13] = samples[4]
    found = nearest(samples, side, np.array([f"p{i // 5}" for i in range(50)]))
    distances = np.linalg.norm(samples[:, None] - side[None], axis=2)
    np.testing.assert_array_equal(found.index, distances.argmin(1))
    np.testing.assert_allclose(found.distance, distances.min(1), rtol=1e-12)
    assert found.distance[4] == 0 and found.patient[4] == "p2"


def test_rows_of_the_own_patient_do_not_count():
    rows, patients = np.random.default_rng(0).standard_normal((300, 3)), np.arange(300) % 7
    found = nearest(rows, rows, patients, patients)
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    distances[patients[:, None] == patients[None]] = np.inf
    np.testing.assert_array_equal(found.index, distances.argmin(1))


@pytest.mark.parametrize("block", [1, 7, 96, 1000])
def test_blocks_of_a_side_are_brute_force(sets, block):
    side = sets["training"]
    images = side.images.copy()
    images[50:] = images[:len(images) - 50]  # of equals the first counts, also in another block
    side = Slices(images, side.masks, side.table)
    rows = [Pixels()(s.images) for s in (sets["honest"], sets["test"])]
    for samples, found in zip(rows, nearest_slices(rows, side, Pixels(), block), strict=True):
        distances = np.linalg.norm(samples[:, None] - Pixels()(images)[None], axis=2)
        np.testing.assert_array_equal(found.index, distances.argmin(1))
        np.testing.assert_array_equal(found.patient, side.patients[distances.argmin(1)])
        np.testing.assert_allclose(found.distance, distances.min(1), rtol=1e-12)


def test_an_audit_in_blocks_is_the_audit(sets, monkeypatch):
    def found(**options):
        result = audit_neighbours(sets["test"], sets["honest"], sets["training"], sets["holdout"], Pixels(),
                                  resamples=20, **options)
        return pd.DataFrame(result.rows), result.suspects

    whole = found()
    monkeypatch.setattr(support, "ENTRIES", 200)  # three rows of 64 samples
    for one, other in zip(whole, found(block=10), strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_pixel_distance_is_the_root_mean_square():
    images = discs(1, 2).images
    pixels = Pixels()(images)
    expected = np.sqrt(((images[0].astype(float) - images[1]) ** 2).mean())
    assert np.linalg.norm(pixels[0] - pixels[1]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("features", [Pixels(), ClassicalFeatures()], ids=["pixel", "classical"])
def test_copies_are_found(sets, features):
    copies = sets["training"].take(np.arange(0, 96, 2))
    copies = copies.with_columns(source="copier", patient=[f"s{i}" for i in range(48)])
    rows, suspects = audit(sets, copies, features)
    share = rows[f"nearest_share_{features.name}"]
    assert share["value"] == share["low"] == share["high"] == share["ceiling"] == 1
    assert rows[f"nearest_ratio_{features.name}"]["value"] == pytest.approx(0, abs=1e-9)
    assert rows[f"near_copies_{features.name}"]["value"] == 1
    np.testing.assert_array_equal(suspects.sort_values("sample")["train_index"], np.arange(0, 96, 2))
    assert (suspects["percentile"] == 0).all()


def test_beside_copies_of_the_hold_out_nothing_has_a_ratio(sets):
    copies = sets["holdout"].with_columns(source="copier", patient=[f"s{i}" for i in range(len(sets["holdout"]))])
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # of a division by zero
        rows, _ = audit(sets, copies)
    assert np.isnan(rows["nearest_ratio_pixel"]["value"]) and rows["nearest_share_pixel"]["value"] == 0


def test_a_few_planted_copies_head_the_list(sets):
    honest = sets["honest"]
    images = honest.images.copy()
    noise = np.random.default_rng(0).standard_normal((3, *images.shape[1:])).astype(np.float32)
    images[[5, 20, 41]] = np.clip(sets["training"].images[[2, 50, 77]] + 0.01 * noise, -1, 1)
    _, suspects = audit(sets, Slices(images, honest.masks, honest.table))
    assert set(suspects["sample"][:3]) == {5, 20, 41}
    found = suspects.set_index("sample")
    assert found.loc[20, "train_patient"] == sets["training"].patients[50]


def test_independent_samples_show_no_memory(sets):
    rows, _ = audit(sets, sets["honest"])
    share = rows["nearest_share_pixel"]
    assert share["low"] < 0.5 < share["high"] and share["n"] == 64
    copies = rows["near_copies_pixel"]
    assert copies["floor"] == 0.05 and copies["low"] < 0.05 < copies["high"] < 0.2, "as many as of the test slices"
    excess = rows["nearest_excess_pixel"]
    assert excess["value"] == pytest.approx(share["value"] - share["floor"]) and excess["low"] < 0 < excess["high"]


def test_the_excess_has_no_offset_where_the_share_has_one():
    # Few patients, one of training in the middle: real slices that no one has copied are nearest to him, share .8.
    rng = np.random.default_rng(0)
    sides = {"training": np.array(["t0", "t1", "t2"]), "holdout": np.array(["h0", "h1", "h2"])}
    centres = np.array([[0.0, 0.0], [4.0, 0.0], [-4.0, 0.0]]), np.array([[0.0, 2.5], [4.0, 4.0], [-4.0, -4.0]])
    clouds = [(x, np.array([f"{name}{i}" for i in range(len(x))])) for name, x in
              (("s", rng.standard_normal((300, 2))), ("r", rng.standard_normal((300, 2))))]
    placed = [(*(nearest(x, c, who) for c, who in zip(centres, sides.values())), names) for x, names in clouds]
    share = nearest_share(*placed[0], **sides, resamples=1)
    excess = share_excess(*placed, **sides, resamples=200)
    assert share.value > 0.75 and abs(excess.value) < 0.07 and excess.low < 0 < excess.high


def test_samples_beside_the_data_have_no_share_and_copies_of_few_have_one(sets):
    some = sets["honest"]
    far = Slices(np.full_like(some.images, 0.9) + 0.01 * some.images, some.masks, some.table)
    result = audit_neighbours(sets["test"], far, sets["training"], sets["holdout"], Pixels(), resamples=20)
    rows = {row["metric"]: row for row in result.rows}
    assert np.isnan(rows["nearest_share_pixel"]["value"]) and np.isnan(rows["nearest_excess_pixel"]["low"])
    assert np.isfinite(rows["near_copies_pixel"]["value"]) and "beside the data" in result.blank
    few = sets["training"].take(np.arange(48) % 3).with_columns(patient=[f"s{i}" for i in range(48)])
    rows, _ = audit(sets, few)  # they reach hardly any real slice, but they are copies
    assert rows["nearest_share_pixel"]["value"] == 1
    assert rows["nearest_excess_pixel"]["value"] > 0.2 and rows["nearest_excess_pixel"]["low"] >= 0


@pytest.mark.parametrize("entries", [2**24, 50])
def test_recall_is_brute_force(monkeypatch, entries):
    """A ball about each sample, to the fifth nearest sample of another patient; how many real rows lie in any of them?"""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((6, 2))
    samples, patients = np.repeat(centres, 3, axis=0) + 0.05 * rng.standard_normal((18, 2)), np.repeat(list("abcdef"), 3)
    real, inside = 1.5 * rng.standard_normal((60, 2)), 0
    for row in real:
        for sample, own in zip(samples, patients):
            others = sorted(np.hypot(*(sample - other)) for other, name in zip(samples, patients) if name != own)
            if np.hypot(*(row - sample)) <= others[4]:
                inside += 1
                break
    monkeypatch.setattr(support, "ENTRIES", entries)
    assert 10 < inside < 50 and _reached(real, samples, patients) == pytest.approx(inside / 60, abs=1e-12)


def test_samples_spread_wider_than_the_data_reach_it(sets):
    """Noisy samples lie in no neighbourhood of real slices, and are copies of none; but real slices lie in theirs."""
    some = sets["honest"]
    noise = 0.5 * np.random.default_rng(0).standard_normal(some.images.shape).astype(np.float32)
    noisy = Slices(np.clip(some.images + noise, -1, 1), some.masks, some.table)
    result = audit_neighbours(sets["test"], noisy, sets["training"], sets["holdout"], Pixels(), resamples=20)
    rows = {row["metric"]: row["value"] for row in result.rows}
    assert not result.blank and np.isfinite(rows["nearest_share_pixel"]) and rows["near_copies_pixel"] == 0


def test_share_is_a_half_on_average_whatever_the_sizes_of_the_sides():
    rng = np.random.default_rng(1)
    values = []
    for _ in range(100):
        centres = rng.standard_normal((50, 2))
        slices = np.repeat(centres, 3, axis=0) + 0.2 * rng.standard_normal((150, 2))
        patients = np.repeat([f"p{i}" for i in range(50)], 3)
        train, held = slice(0, 120), slice(120, 150)  # 40 patients against 10
        samples = rng.standard_normal((200, 2))
        near, far = (nearest(samples, slices[s], patients[s]) for s in (train, held))
        names = np.arange(200).astype(str)
        values.append(nearest_share(near, far, names, patients[train], patients[held], resamples=1).value)
    assert np.mean(values) == pytest.approx(0.5, abs=3 * np.std(values) / 10)
    assert np.mean(values) == pytest.approx(0.5, abs=0.04)


def test_ties_count_half():
    same = Neighbours(np.zeros(6, int), np.array(["t"] * 6), np.ones(6))
    other = Neighbours(np.zeros(6, int), np.array(["h"] * 6), np.ones(6))
    sides = [np.array([a, b, c]) for a, b, c in (("t", "u", "v"), ("h", "i", "j"))]
    assert nearest_share(same, other, np.arange(6).astype(str), *sides, resamples=20).value == 0.5


def test_overlapping_sides_are_refused(sets):
    with pytest.raises(SplitError, match="training and holdout"):
        audit_neighbours(sets["test"], sets["honest"], sets["training"], sets["training"], Pixels())
