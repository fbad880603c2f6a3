"""Dice, Hausdorff distance, wall thickness and mask adherence: closed forms, then MONAI."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.errors import DataError, SplitError
from cmri_lib.measures.anatomy.adherence import (adherence, agreement, dice, hausdorff95, masks_of_others, proportions,
                                       wall_thickness)
from cmri_lib.measures.instruments.second_segmenter import train_second_segmenter
from cmri_lib.measures.instruments.segmenter import train_segmenter
from cmri_lib.training import TrainSettings
from conftest import discs


def blobs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A random box with random holes and stray voxels."""
    mask = rng.random(shape) < 0.02
    low = [rng.integers(0, n // 2) for n in shape]
    box = tuple(slice(a, a + max(2, n // 3)) for a, n in zip(low, shape))
    mask[box] = rng.random(mask[box].shape) < 0.9
    return mask


def ring(size: int, inner: float, outer: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2
    r = np.hypot(y, x)
    return np.where(r < inner, 1, np.where(r < outer, 2, 0)).astype(np.uint8)


def test_dice_of_overlapping_squares_is_the_share_of_both():
    a, b = np.zeros((2, 8, 8), bool)
    a[:4, :4] = b[:4, 2:6] = True
    assert dice(a, b) == 0.5 and dice(a, a) == 1 and dice(a, np.zeros_like(a)) == 0
    assert np.isnan(dice(np.zeros_like(a), np.zeros_like(a)))


def test_hausdorff_of_shifted_squares_and_none_where_one_is_missed():
    a, b = np.zeros((2, 20, 20), bool)
    a[5:10, 5:10] = b[5:10, 9:14] = True
    assert hausdorff95(a, b, (1.5, 1.5)) == pytest.approx(4 * 1.5)
    # A missed structure has no distance: `missed` counts it.
    assert np.isnan(hausdorff95(a, np.zeros_like(a), (3.0, 4.0)))
    assert np.isnan(hausdorff95(np.zeros_like(a), np.zeros_like(a), (1.0, 1.0)))


@pytest.mark.parametrize("shape, spacing", [((24, 24), (1.4, 1.4)), ((6, 20, 20), (8.0, 1.4, 1.4))])
def test_dice_and_hausdorff_agree_with_monai(shape, spacing):
    rng = np.random.default_rng(0)
    for _ in range(15):
        a, b = blobs(rng, shape), blobs(rng, shape)
        x, y = (torch.from_numpy(m)[None, None].float() for m in (a, b))
        assert dice(a, b) == pytest.approx(float(compute_dice(x, y)), rel=1e-6)
        other = compute_hausdorff_distance(x, y, include_background=True, percentile=95, spacing=spacing)
        assert hausdorff95(a, b, spacing) == pytest.approx(float(other), rel=1e-5)


def test_agreement_takes_volumes_whole_and_punishes_a_miss():
    slices = discs(2, 4)
    predicted = slices.masks.copy()
    predicted[(slices.patients == slices.patients[0])[:, None, None] & (predicted == 3)] = 0
    table = agreement(predicted, slices.masks, slices.table)
    assert len(table) == 4 and set(table["phase"]) == {"ED", "ES"}, "two patients, two phases"
    missed = table[table["patient"] == slices.patients[0]]
    assert (missed["dice_RV"] == 0).all() and (missed["dice_LV"] == 1).all()
    assert np.allclose(missed["dice_mean"], 2 / 3) and missed["hd95_RV"].isna().all() and (missed["missed_RV"] == 1).all()
    others = table[table["patient"] != slices.patients[0]]
    assert (others["hd95_RV"] == 0).all() and (others["missed_RV"] == 0).all()
    nothing = agreement(0 * predicted, 0 * predicted, slices.table)
    assert nothing.filter(regex="dice_|hd95_|missed_").isna().all(axis=None), (
        "what is in neither map is neither found nor missed")


def test_several_samples_of_one_slice_are_several_volumes():
    slices = discs(3, 4)
    twice = slices.take(np.tile(np.arange(len(slices)), 2))
    assert len(agreement(twice.masks, twice.masks, twice.table)) == 12


@pytest.mark.parametrize("inner, outer", [(10, 16), (8, 13), (14, 22)])
def test_wall_thickness_of_a_ring_is_the_difference_of_its_radii(inner, outer):
    assert wall_thickness(ring(64, inner, outer), 1.5) == pytest.approx((outer - inner) * 1.5, abs=0.75)


def test_wall_thickness_scales_with_spacing_and_needs_both():
    mask = ring(64, 10, 16)
    assert wall_thickness(mask, 3.0) == pytest.approx(2 * wall_thickness(mask, 1.5))
    assert np.isnan(wall_thickness(np.where(mask == 1, 0, mask), 1.5))
    assert np.isnan(wall_thickness(np.where(mask == 2, 0, mask), 1.5))


def test_proportions_are_ratios_of_areas():
    slices = discs(1, 1).take([0])
    mask = ring(32, 6, 9)
    mask[:4, :5] = 3
    table = proportions(mask[None], slices.table)
    lv, myo = (mask == 1).sum(), (mask == 2).sum()
    assert table["lv_myo"][0] == pytest.approx(lv / myo) and table["rv_lv"][0] == pytest.approx(20 / lv)
    assert table["LV_mm2"][0] == pytest.approx(lv * 9.0)
    assert np.isnan(proportions(np.zeros_like(mask)[None], slices.table)["rv_lv"][0])


def test_borrowed_masks_come_from_another_patient_of_the_same_phase():
    slices = discs(5, 6)
    borrowed = masks_of_others(slices)
    owner = {slices.masks[i].tobytes(): (slices.patients[i], slices.table["phase"][i]) for i in range(len(slices))}
    for i in range(len(slices)):
        patient, phase = owner[borrowed[i].tobytes()]
        assert patient != slices.patients[i] and phase == slices.table["phase"][i]
    with pytest.raises(DataError, match="one patient"):
        masks_of_others(discs(1, 4))


def marked(heights: dict[str, list[float]], phase: str = "ED") -> Slices:
    """A volume of each patient, with slices at these heights; each mask has as many pixels as its place in the table says."""
    owners = [patient for patient, own in heights.items() for _ in own]
    some = discs(len(owners), 1, size=16)
    masks = np.zeros_like(some.masks)
    for place, mask in enumerate(masks):
        mask.flat[:place + 1] = 1
    table = some.table.assign(patient=owners, scan=owners, phase=phase, height=sum(heights.values(), []),
                              index=[k for own in heights.values() for k in range(len(own))])
    return Slices(some.images, masks, table)


def lent_by(slices: Slices, **options: int) -> list[int]:
    """For every slice the place of the one whose mask it has borrowed."""
    return [int(mask.sum()) - 1 for mask in masks_of_others(slices, **options)]


def test_a_borrowed_mask_is_that_of_the_nearest_height():
    """Of two patients each lends to the other: the slices at 0.0, 0.5 and 1.0 those at 0.4, 0.4 and 0.9, and so on."""
    slices = marked({"a": [0.0, 0.5, 1.0], "b": [0.4, 0.65, 0.9, 0.8, 0.7]})
    assert lent_by(slices) == [3, 3, 5, 1, 1, 2, 2, 1]


def test_all_masks_of_a_volume_are_borrowed_from_one_patient_who_is_drawn_anew_for_each():
    rng = np.random.default_rng(0)
    slices = marked({f"p{k}": list(rng.random(6)) for k in range(8)})
    lenders = [{slices.patients[place] for place in lent_by(slices, seed=seed)[6 * k:6 * k + 6]} for seed in range(4)
               for k in range(8)]
    assert all(len(one) == 1 for one in lenders), "masks of several patients are no heart"
    assert len(set.union(*lenders[:8])) > 2 and lenders[:8] != lenders[8:16], "always the same patient lends"


def test_volumes_of_either_phase_borrow_from_their_own():
    both = concatenate([marked({name: [0.1, 0.9] for name in "abc"}, phase) for phase in ("ED", "ES")])
    masks = both.masks.copy()
    masks[6:] *= 3  # masks of ES are marked by RV
    found = masks_of_others(Slices(both.images, masks, both.table))
    assert [set(np.unique(mask)) - {0} for mask in found] == 6 * [{1}] + 6 * [{3}]


def test_adherence_lies_between_floor_and_ceiling():
    real = discs(6, 4, split="test")

    def threshold(images: np.ndarray) -> np.ndarray:
        """Reads the ring of the phantom: bright is LV, grey is myocardium; RV is never found."""
        return np.where(images[:, 0] > 0.2, 1, np.where(images[:, 0] > -0.55, 2, 0)).astype(np.uint8)

    faded = Slices(real.images * np.float32(0.5), real.masks, real.table)
    same, worse = ({r["metric"]: r for r in adherence(real, s, threshold, resamples=50)} for s in (real, faded))
    structures = ("LV", "Myo", "RV")
    assert set(same) == {"dice_mean", "hd95_LV_mm", "hd95_Myo_mm",
                         *(f"{kind}_{s}" for s in structures for kind in ("dice", "missed"))}
    for row in same.values():
        assert row["value"] == pytest.approx(row["ceiling"]) and row["n"] == 6 and row["axis"] == "anatomy"
    assert same["dice_RV"]["value"] == 0 and same["missed_RV"]["value"] == 1 and same["missed_LV"]["value"] == 0
    assert same["dice_Myo"]["floor"] < same["dice_Myo"]["low"]
    assert worse["dice_Myo"]["value"] < same["dice_Myo"]["low"]
    assert same["hd95_LV_mm"]["better"] == "lower" and same["dice_LV"]["better"] == "higher"


def test_segmenter_learns_discs_and_is_named_by_its_weights(tmp_path):
    settings = TrainSettings(steps=60, batch=8, learning_rate=4e-3, warmup=5, ema=0.9)
    segmenter = train_segmenter(discs(10, 4), settings, tmp_path / "s", widths=(8, 16), augment=None)
    again = train_segmenter(discs(10, 4), settings, tmp_path / "s", widths=(8, 16), augment=None)
    assert segmenter.fingerprint == again.fingerprint
    test = discs(4, 4, seed=7, split="test")
    seen = segmenter(test.images)
    assert seen.dtype == np.uint8 and seen.shape == test.masks.shape
    assert agreement(seen, test.masks, test.table)["dice_mean"].mean() > 0.8


def test_second_segmenter_learns_discs_and_is_kept(tmp_path, monkeypatch):
    settings = TrainSettings(steps=30, batch=4, learning_rate=1e-2, warmup=5, ema=0.8)
    segmenter = train_second_segmenter(discs(10, 4), settings, tmp_path / "s")
    monkeypatch.setattr("cmri_lib.training.loop.Training.go", lambda self: pytest.fail("trained again"))
    again = train_second_segmenter(discs(10, 4), settings, tmp_path / "s")
    assert segmenter.fingerprint == again.fingerprint
    test = discs(4, 4, seed=7, split="test")
    found = agreement(segmenter(test.images), test.masks, test.table)["dice_mean"].mean()
    assert found > 0.88  # 0.80 if it has learnt from the masks of other images


@pytest.mark.parametrize("train", [train_segmenter, train_second_segmenter])
def test_segmenters_refuse_test_patients(tmp_path, train):
    with pytest.raises(SplitError, match="segmenter"):
        train(discs(2, 4, split="test"), TrainSettings(steps=1), tmp_path)
