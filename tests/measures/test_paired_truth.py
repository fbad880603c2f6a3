"""Paired patients: known translations are found again, and samples are held against the right scan."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import discs
from rows import by_metric
from torchmetrics.functional.image import structural_similarity_index_measure

from cmri_lib.cohort.paired_scans import registration, translated, truths
from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.errors import DataError
from cmri_lib.measures.conditioning.fixed_mask import true_scan_diversity
from cmri_lib.measures.conditioning.paired_truth import against_truth, likeness, nearest_style, tissue_intensities
from cmri_lib.measures.fidelity.corruptions import with_images

#: Vendor → where its crop lies (rows, columns), and contrast, brightness and noise of its images.
STYLES = {"A": ((0, 0), 1.0, 0.0, 0.02), "B": ((2, -1), 0.6, 0.2, 0.05), "C": ((-1, 1), 0.8, -0.2, 0.08)}


def scanned(patients: int = 4, per_patient: int = 3) -> Slices:
    """Every heart of `discs`, in a wide empty field, scanned by each of three vendors in its own style and place."""
    hearts, rng, parts = discs(patients, per_patient, split="test"), np.random.default_rng(0), []
    images = np.pad(hearts.images, [(0, 0), (0, 0), (8, 8), (8, 8)], constant_values=-0.8)
    masks = np.pad(hearts.masks, [(0, 0), (8, 8), (8, 8)])
    for vendor, (shift, contrast, brightness, noise) in STYLES.items():
        moved = translated(contrast * images + brightness, shift)
        moved = moved + noise * rng.standard_normal(moved.shape)
        table = hearts.table.assign(vendor=vendor, scan=[p + vendor for p in hearts.patients])
        parts.append(Slices(np.clip(moved, -1, 1).astype(np.float32), translated(masks, shift), table))
    return concatenate(parts)


@pytest.fixture(scope="module")
def pairs():
    everything = concatenate([scanned(), _resized(discs(3, 2, split="once"))])
    order = np.random.default_rng(1).permutation(len(everything))
    return truths(everything.take(order))


def _resized(slices: Slices) -> Slices:
    return Slices(np.pad(slices.images, [(0, 0), (0, 0), (8, 8), (8, 8)]), np.pad(slices.masks, [(0, 0), (8, 8), (8, 8)]),
                  slices.table)


def vendor_for(pairs, samples: Slices, step: int) -> Slices:
    """What a perfect generator draws that is asked for the vendor `step` places after that of the mask."""
    place, frame, _ = pairs.locate(samples)
    asked = (frame + step) % len(pairs.vendors)
    images = np.stack([pairs.aligned(pairs.vendors[f])[v, p] for p, f, v in zip(place, frame, asked)])
    return with_images(samples, images).with_columns(vendor=[pairs.vendors[v] for v in asked])


# Finding and laying

def test_a_translation_is_found_again_and_undone():
    masks = scanned().where(vendor="A").masks
    for shift in ((0, 0), (3, -3), (-2, 1)):
        moved = translated(masks, shift)
        assert registration(masks, moved, 3) == shift
        np.testing.assert_array_equal(translated(moved, (-shift[0], -shift[1])), masks)
    square = np.zeros((1, 5, 5), np.uint8)
    square[0, 2, 2] = 1
    assert np.argwhere(translated(square, (1, -2))[0]).tolist() == [[3, 0]], "rows down, columns right"


def test_scans_of_one_anatomy_stand_in_one_row_and_lie_on_each_other(pairs):
    assert pairs.vendors == ["A", "B", "C"] and len(pairs.anatomies) == 12 and len(pairs.conditions()) == 36
    for scans in pairs.scans.values():
        pd.testing.assert_frame_equal(scans.table[["patient", "phase", "index"]],
                                      pairs.anatomies.to_frame(index=False), check_dtype=False)
    for (_, vendor, onto), shift in pairs.shifts.items():
        assert shift == tuple(np.subtract(STYLES[onto][0], STYLES[vendor][0]))
    onto_b = pairs.aligned("B")
    np.testing.assert_array_equal(onto_b[1], pairs.scans["B"].images)
    error = onto_b[0, :, 0] * 0.6 + 0.2 - onto_b[1, :, 0]
    assert error[:, 8:-8, 8:-8].std() < 0.06, "laid on each other, two styles of one heart differ by noise alone"


def test_cohorts_without_pairs_are_refused():
    with pytest.raises(DataError, match="scan.*several vendors"):
        truths(discs(4, 3))
    twice = scanned().where(vendor="A")
    twice = concatenate([twice, twice.with_columns(scan=[p + "again" for p in twice.patients])])
    with pytest.raises(DataError, match="vendor.*twice"):
        truths(twice)


# Likeness

def test_likeness_is_the_closed_form_and_that_of_torchmetrics():
    flat = [np.full((2, 1, 32, 32), value, np.float32) for value in (0.5, -0.25)]
    everywhere, c1 = np.ones((2, 32, 32), bool), 0.02**2
    ssim, psnr = likeness(*flat, everywhere)
    np.testing.assert_allclose(ssim, (2 * 0.5 * -0.25 + c1) / (0.5**2 + 0.25**2 + c1), rtol=1e-4)
    np.testing.assert_allclose(psnr, 10 * np.log10(4 / 0.75**2))
    first, second = discs(4, 2).images, discs(4, 2, seed=1).images
    theirs = structural_similarity_index_measure(torch.from_numpy(first), torch.from_numpy(second), data_range=2.0,
                                                 reduction="none")
    np.testing.assert_allclose(likeness(first, second, np.ones((8, 32, 32), bool))[0], theirs, atol=1e-6)


def test_only_the_region_counts():
    first = discs(3, 2).images
    region = np.zeros((6, 32, 32), bool)
    region[:, 20:] = True
    second = first.copy()
    second[:, :, :10] += 0.5  # further from the region than half a window
    ssim, psnr = likeness(first, second, region)
    np.testing.assert_allclose(ssim, 1, atol=1e-5)
    assert np.isinf(psnr).all()


# Against the truth

@pytest.mark.parametrize("step", [0, 1, 2])
def test_the_true_scan_scores_the_ceiling_under_any_mask_of_its_heart(pairs, step):
    rows = by_metric(against_truth(pairs, vendor_for(pairs, pairs.conditions(), step), resamples=20))
    assert rows["ssim_true"]["value"] == pytest.approx(1, abs=1e-5) and rows["ssim_true"]["n"] == 36
    assert rows["style_gain_ssim"]["value"] == pytest.approx(rows["style_gain_ssim"]["ceiling"], abs=1e-5)
    assert rows["style_gain_ssim"]["ceiling"] > 0.05
    if step == 0:
        assert rows["style_match"]["value"] == 1 == rows["style_match"]["ceiling"]


def test_another_vendors_scan_scores_the_floor(pairs):
    asked = pairs.conditions()
    wrong = [vendor_for(pairs, asked, step).with_columns(vendor=asked.table["vendor"].to_numpy()) for step in (1, 2)]
    found = [by_metric(against_truth(pairs, samples, resamples=20)) for samples in wrong]
    for name in ("ssim_true", "psnr_true"):
        assert np.mean([rows[name]["value"] for rows in found]) == pytest.approx(found[0][name]["floor"], rel=1e-5)
    assert found[0]["style_match"]["floor"] == pytest.approx(1 / 3) and found[0]["style_match"]["value"] < 0.2
    assert found[0]["style_gain_ssim"]["value"] < 0


def test_who_knows_no_vendors_gains_nothing_under_crossed_conditions(pairs):
    crossed = pairs.conditions(crossed=True)
    assert len(crossed) == 3 * 36 and crossed.table.groupby(["scan", "vendor"]).size().eq(3).all()
    one_image_per_mask = with_images(crossed, crossed.images + 0.1 * np.sin(np.arange(48)))
    rows = by_metric(against_truth(pairs, one_image_per_mask, resamples=20))
    assert rows["style_gain_ssim"]["value"] == pytest.approx(0, abs=1e-6)
    assert rows["style_match"]["value"] == pytest.approx(rows["style_match"]["floor"])


def test_psnr_of_a_known_error_is_the_closed_form(pairs):
    truth = pairs.conditions().where(vendor="A")
    off = truth.images - np.float32(0.05) * np.sign(truth.images)  # by 0.05 everywhere, and within the range
    row = by_metric(against_truth(pairs, Slices(off, truth.masks, truth.table), resamples=20))["psnr_true"]
    assert row["value"] == pytest.approx(10 * np.log10(4 / 0.05**2), abs=1e-3)


def test_intensities_of_flat_tissues_are_their_levels():
    some = discs(2, 2)
    levels = np.array([-0.8, 0.9, -0.3, 0.5], np.float32)
    flat = with_images(some, levels[some.masks][:, None])
    expected = [0.9, 0, -0.3, 0, 0.5, 0, -0.8, 0]
    np.testing.assert_allclose(tissue_intensities(flat), [expected] * 4, atol=1e-6)
    without = Slices(flat.images, np.where(some.masks == 3, 0, some.masks).astype(np.uint8), some.table)
    assert np.isnan(tissue_intensities(without)[:, 4:6]).all()


def test_style_is_told_by_intensities_whatever_the_texture(pairs):
    asked = pairs.conditions().where(vendor="B")
    shuffled = asked.images.copy()
    rng = np.random.default_rng(3)
    for image, mask in zip(shuffled[:, 0], asked.masks):  # pixels change places within their tissue
        for label in (1, 2, 3):
            image[mask == label] = rng.permutation(image[mask == label])
    assert (nearest_style(pairs, with_images(asked, shuffled)) == 1).all()


def test_true_scans_differ_more_than_their_noise_and_less_than_other_hearts(pairs):
    rows = by_metric(true_scan_diversity(pairs, resamples=20))
    assert rows["fixed_mask_sd_heart"]["value"] > 0.1 and rows["fixed_mask_ms_ssim"]["n"] == 12
    assert rows["fixed_mask_ms_ssim"]["floor"] < rows["fixed_mask_ms_ssim"]["value"] < 1


def test_samples_of_other_masks_are_refused(pairs):
    good = pairs.conditions()
    for column, value in (("vendor", "D"), ("scan", "nobody"), ("index", 99)):
        with pytest.raises(DataError, match=rf"\[{column}\]"):
            against_truth(pairs, good.with_columns(**{column: value}))
    with pytest.raises(DataError, match="masks"):
        against_truth(pairs, Slices(good.images, np.zeros_like(good.masks), good.table))
