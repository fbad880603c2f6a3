"""Scores of whole hearts in closed form: overlap and distance of boxes, misses apart, volumes of discs, limits of agreement."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import discs
from monai.metrics import compute_hausdorff_distance

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError
from cmri_lib.measures.utility.heart_volumes import INDICES, bland_altman, function_errors, function_rows
from cmri_lib.measures.utility.volumetric import (arm_difference, overall_rows, volume_scores, volumetric_rows,
                                                  weighted_median)

#: Slices of a box of 4 × 4 × 4 voxels, and its label map; 2 mm pixels, 8 mm apart.
SIDE, LV = 16, 1


def boxes(patients: int = 4, structures: tuple[int, ...] = (1,), phases: tuple[str, ...] = ("ED",), slices: int = 4) -> Slices:
    """A 4 × 4 square of every structure, one below the other, on each slice."""
    rows = [{"patient": f"p{p}", "scan": f"p{p}", "phase": phase, "index": z}
            for p in range(patients) for phase in phases for z in range(slices)]
    masks = np.zeros((len(rows), SIDE, SIDE), np.uint8)
    for label in structures:
        masks[:, 4 * label:4 * label + 4, 4:8] = label
    table = {name: [row[name] for row in rows] for name in ("scan", "phase", "index")}
    return Slices.from_arrays(np.zeros(masks.shape, np.float32), masks, [row["patient"] for row in rows], value_range=(-1, 1),
                              spacing=2.0, slice_mm=8.0, **table)


def of(scores: pd.DataFrame, structure: str, column: str) -> np.ndarray:
    return scores.loc[scores["structure"] == structure, column].to_numpy()


def test_a_box_moved_by_one_pixel_overlaps_by_three_quarters() -> None:
    truth = boxes(2)
    scores = volume_scores(np.roll(truth.masks, 1, axis=2), truth)
    assert of(scores, "LV", "dice") == pytest.approx([3 / 4] * 2) and of(scores, "LV", "hd95_mm") == pytest.approx([2.0] * 2)
    assert np.isnan(of(scores, "RV", "dice")).all() and np.isnan(of(scores, "RV", "missed")).all(), "nobody has labelled an RV"
    assert of(scores, "foreground", "dice") == pytest.approx([3 / 4] * 2)


def test_a_slice_not_found_is_as_far_as_its_neighbour() -> None:
    truth = boxes(1)
    found = truth.masks.copy()
    found[0] = 0
    scores = volume_scores(found, truth)
    assert of(scores, "LV", "dice") == pytest.approx([6 / 7]) and of(scores, "LV", "hd95_mm") == pytest.approx([8.0])
    gap = truth.take([0, 1, 3])  # and with the third slice absent, the fourth is 16 mm away
    found = np.where(np.array([0, 1, 0])[:, None, None], gap.masks, 0).astype(np.uint8)
    assert of(volume_scores(found, gap), "LV", "hd95_mm") == pytest.approx([16.0])


def test_distances_are_monai_s() -> None:
    truth = discs(3, 6, size=48).with_columns(phase="ED")
    found = np.roll(truth.masks, (2, 1), axis=(1, 2))
    scores = volume_scores(found, truth)
    for name, label in (("LV", 1), ("Myo", 2), ("RV", 3)):
        pair = [torch.from_numpy((m == label).reshape(3, 1, 6, 48, 48).astype(np.float32)) for m in (found, truth.masks)]
        wanted = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=[10.0, 3.0, 3.0])
        assert of(scores, name, "hd95_mm") == pytest.approx(wanted[:, 0].numpy(), rel=1e-5)


def test_misses_are_counted_apart_and_do_not_touch_the_median() -> None:
    truth = boxes(5, (1, 2, 3), ("ED", "ES"))
    found = np.roll(truth.masks, 1, axis=2)
    found[(truth.patients == "p0") & (truth.table["phase"] == "ES").to_numpy()] = 0  # one heart in five at ES
    rows = {row["metric"]: row for row in volumetric_rows([volume_scores(found, truth)], resamples=50)}
    assert rows["downstream_missed_RV_ES"]["value"] == pytest.approx(0.2) and rows["downstream_missed_RV_ED"]["value"] == 0
    assert rows["downstream_hd95_RV_ES_mm"]["value"] == rows["downstream_hd95_RV_ED_mm"]["value"] == pytest.approx(2.0)
    assert rows["downstream_dice_RV_ES"]["value"] == pytest.approx(0.8 * 3 / 4), "a miss has no distance, but Dice 0"
    assert rows["downstream_dice_foreground_ES"]["n"] == 5 and len(rows) == 2 * 4 * 3
    assert rows["downstream_missed_RV_ES"]["low"] < 0.2 < rows["downstream_missed_RV_ES"]["high"]
    whole, quick = volume_scores(found, truth), volume_scores(found, truth, distances=False)
    assert quick["hd95_mm"].isna().all() and quick.drop(columns="hd95_mm").equals(whole.drop(columns="hd95_mm"))


def test_a_structure_that_is_not_there_is_no_miss_and_finding_it_costs_overlap_only() -> None:
    truth = boxes(3)
    found = truth.masks.copy()
    found[:, 12:, 12:] = 3
    scores = volume_scores(found, truth)
    assert (of(scores, "RV", "dice") == 0).all() and np.isnan(of(scores, "RV", "hd95_mm")).all()
    assert {row["metric"].split("_")[2] for row in volumetric_rows([scores], resamples=20)} == {"LV", "foreground"}


def test_arms_are_paired_over_patients_and_seeds() -> None:
    truth = boxes(4, phases=("ED", "ES"))
    exact, moved = volume_scores(truth.masks, truth), volume_scores(np.roll(truth.masks, 1, axis=2), truth)
    gain = arm_difference([exact, exact, moved], [moved, moved, exact], structure="LV", resamples=200)
    assert gain.value == pytest.approx((2 / 4 - 1 / 4) / 3) and gain.seeds == 3 and gain.n == 4
    assert gain.low < 0 < gain.high, "the sign differs between seeds"
    same = arm_difference([exact] * 2, [moved] * 2, "hd95_mm", structure="LV", phase="ES", resamples=50)
    assert (same.value, same.low, same.high) == pytest.approx((-2.0,) * 3)
    blind = volume_scores(0 * truth.masks, truth)
    assert arm_difference([exact], [blind], "missed", structure="LV", resamples=50).value == -1
    with pytest.raises(DataError, match="2 trainings of the first arm, 3 of"):
        arm_difference([exact] * 2, [moved] * 3)
    with pytest.raises(DataError, match="different volumes"):
        arm_difference([exact], [moved[::-1].reset_index(drop=True)])
    with pytest.raises(DataError, match="no volumes"):
        arm_difference([exact], [moved], structure="heart")


def test_one_training_is_compared_with_the_mean_of_the_others() -> None:
    truth = boxes(4)
    exact, moved = volume_scores(truth.masks, truth), volume_scores(np.roll(truth.masks, 1, axis=2), truth)
    alone = arm_difference([exact], [exact, moved, moved], structure="LV", resamples=200)
    assert alone.value == pytest.approx(2 / 3 * (2 / 4 - 1 / 4)) and alone.seeds == 1
    back = arm_difference([exact, moved, moved], [exact], structure="LV", resamples=200)
    assert (back.value, back.low, back.high) == pytest.approx((-alone.value, -alone.high, -alone.low), abs=0.05)
    assert alone.low < 0, "its own training may be as lucky as the first of the three"


def test_overall_rows_are_those_of_the_arm_and_their_ceiling_is_that_of_real_slices() -> None:
    truth = boxes(4, (1, 2, 3), ("ED", "ES"))
    es, lv, rest = (truth.table["phase"] == "ES").to_numpy(), truth.masks == LV, truth.masks * (truth.masks != LV)
    found = np.roll(rest, 1, axis=2) + np.roll(lv, 2, axis=2)
    found[(truth.patients == "p0") & es] = 0  # one heart in eight is missed, and of another the RV
    found[((truth.patients == "p1") & ~es)[:, None, None] & (found == 3)] = 0
    exact, moved = volume_scores(truth.masks, truth), volume_scores(found, truth)
    both = [{row["metric"]: row for row in overall_rows(*sides, resamples=50)}
            for sides in (([moved, moved, exact], [exact]), ([exact], [moved, exact]))]
    # LV 1/2 and 4 mm, the others 3/4 and 2 mm; a miss has no distance. A heart is the mean of its structures.
    dice, distance, missed = (6 * 2 / 3 + 5 / 12) / 8, (6 * 8 / 3 + 6 / 2) / 7, (1 + 1 / 3) / 8
    wanted = {"downstream_dice": (dice, 1.0, 0.0, "higher"), "downstream_hd95_mm": (distance, 0.0, np.nan, "lower"),
              "downstream_missed": (missed, 0.0, np.nan, "lower")}
    for metric, (of_moved, of_exact, floor, better) in wanted.items():
        mixed, alone = (rows[metric] for rows in both)
        assert (mixed["value"], mixed["ceiling"]) == pytest.approx(((2 * of_moved + of_exact) / 3, of_exact))
        assert (alone["value"], alone["ceiling"]) == pytest.approx((of_exact, (of_moved + of_exact) / 2))
        assert mixed["floor"] == pytest.approx(floor, nan_ok=True) and mixed["better"] == better
        assert (mixed["n"], mixed["seeds"], alone["seeds"]) == (4, 3, 1) and mixed["low"] <= mixed["value"] <= mixed["high"]
    with pytest.raises(DataError, match="different volumes"):
        overall_rows([exact], [volume_scores(truth.masks[:8], truth.take(np.arange(8)))])


@pytest.mark.parametrize("others", [3, 5])
def test_the_interval_of_one_training_against_several_covers(others: int) -> None:
    truth = boxes(12)
    table, generator, covered = volume_scores(truth.masks, truth), np.random.default_rng(0), []

    def training(patients: np.ndarray) -> pd.DataFrame:
        return table.assign(dice=patients.repeat(len(table) // 12) + 0.05 * generator.normal())

    for _ in range(100):
        patients = generator.normal(0.8, 0.1, 12)
        first, second = [training(patients)], [training(patients) for _ in range(others)]
        gap = arm_difference(first, second, structure="LV", resamples=100)
        covered.append(gap.low <= 0 <= gap.high)
    assert 0.88 <= np.mean(covered) <= 1.0


def test_a_weighted_median_is_that_of_repeated_values() -> None:
    values, counts = np.array([3.0, np.nan, 1.0, 2.0]), np.array([1, 4, 0, 3])
    assert weighted_median(values, counts) == 2 and np.isnan(weighted_median(values, np.array([0, 4, 0, 0])))


def test_indices_are_those_of_discs_and_errors_are_predicted_minus_true() -> None:
    truth = boxes(3, (1, 2, 3), ("ED", "ES"))
    masks = truth.masks.copy()
    es = (truth.table["phase"] == "ES").to_numpy()
    masks[es, 4:6, 4:8] = 0  # half of the LV is left at ES
    truth = Slices(truth.images, masks, truth.table)
    found = masks.copy()
    found[es] = np.where(found[es] == LV, 0, found[es])  # and the segmenter finds none of it
    table = function_errors(found, truth).set_index(["index", "patient"])
    millilitres = 16 * 4 * 4 * 8 / 1000  # pixels × mm² × slices × mm
    assert table.loc[("lvedv_ml", "p0")].tolist()[1:] == pytest.approx([millilitres, millilitres, 0])
    assert table.loc[("lvesv_ml", "p1")].tolist()[1:] == pytest.approx([millilitres / 2, 0, -millilitres / 2])
    assert table.loc[("lvef_percent", "p2")].tolist()[1:] == pytest.approx([50, 100, 50])
    assert table.loc[("lv_mass_g", "p2")].tolist()[1:] == pytest.approx([1.05 * millilitres] * 2 + [0])
    rows = {row["metric"]: row for row in function_rows([table.reset_index()] * 2, resamples=20)}
    assert len(rows) == 3 * len(INDICES) and rows["lvef_percent_bias"]["value"] == pytest.approx(50)
    assert rows["lvesv_ml_bias"]["better"] == "higher" and rows["lvef_percent_limit_low"]["seeds"] == 2


def test_limits_of_agreement_are_bland_and_altman_s() -> None:
    errors = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    found = bland_altman([errors], np.arange(5), resamples=50)
    width = 1.96 * np.sqrt(2.5)
    assert (found.lower.value, found.bias.value, found.upper.value) == pytest.approx((3 - width, 3, 3 + width))
    again = bland_altman([np.append(errors, np.nan), np.append(errors + 2, 0)], np.arange(6), resamples=50)
    assert again.bias.value == pytest.approx(4) and again.bias.n == 5 and again.bias.seeds == 2


def test_the_interval_of_a_limit_is_that_of_bland_and_altman_1999() -> None:
    n = 400
    found = bland_altman([np.random.default_rng(0).normal(2, 5, n)], np.arange(n), resamples=1500)
    standard_error = 5 * np.sqrt(1 / n + 1.96**2 / (2 * (n - 1)))  # their equation on page 141, for normal errors
    for limit in (found.lower, found.upper):
        assert (limit.high - limit.low) / 2 == pytest.approx(1.96 * standard_error, rel=0.15)
    assert (found.bias.high - found.bias.low) / 2 == pytest.approx(1.96 * 5 / np.sqrt(n), rel=0.1)


def test_bad_input_is_named() -> None:
    truth = boxes(2)
    for score in (volume_scores, function_errors):
        with pytest.raises(DataError, match="label maps of shape"):
            score(truth.masks[:-1], truth)
    with pytest.raises(DataError, match="more than once"):
        volume_scores(truth.masks[[0, 0]], truth.take([0, 0]))
    with pytest.raises(DataError, match="no mask"):
        volume_scores(0 * truth.masks, Slices(truth.images, 0 * truth.masks, truth.table))
    with pytest.raises(DataError, match="unknown"):
        volume_scores(truth.masks, truth.with_columns(slice_mm=np.nan))
    with pytest.raises(DataError, match="different volumes"):
        volumetric_rows([volume_scores(truth.masks, truth), volume_scores(truth.masks[:4], truth.take(np.arange(4)))])
