"""Diversity at a fixed mask: identical draws, noise of known strength, and what must be refused."""

import numpy as np
import pytest
from conftest import discs
from rows import by_metric
from scipy.special import gamma

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.measures.conditioning.fixed_mask import fixed_mask_diversity, repeated
from cmri_lib.measures.conditioning.regions import heart_region, mean_inside
from cmri_lib.measures.fidelity.corruptions import with_images


def test_the_region_of_one_pixel_is_a_disc_of_the_margin():
    one = discs(2, 1, size=32)
    one.masks[:] = 0
    one.masks[0, 16, 16] = 3
    region = heart_region(one.with_columns(spacing=2.0), margin=10.0)
    assert region.sum((1, 2)).tolist() == [81, 0], "81 points of a grid lie within 5 of its origin; no label, no region"
    assert region[0, 16, 11] and not region[0, 16, 10]
    np.testing.assert_array_equal(mean_inside(np.ones((2, 32, 32)), region), [1, np.nan])


def test_repeated_goes_through_all_conditions_before_it_starts_anew():
    conditions = discs(3, 2)
    again = repeated(conditions, 4)
    assert again.patients.tolist() == 4 * conditions.patients.tolist()
    np.testing.assert_array_equal(again.masks[6:12], conditions.masks)
    with pytest.raises(ParameterError, match="draws"):
        repeated(conditions, 1)


def test_identical_draws_score_the_ceiling_however_different_the_masks():
    rows = by_metric(fixed_mask_diversity(repeated(discs(5, 3), 4), 4, resamples=20))
    for row in rows.values():
        assert row["value"] == row["low"] == row["high"] == pytest.approx(row["ceiling"], abs=1e-5) and row["n"] == 15
    assert rows["fixed_mask_ms_ssim"]["floor"] < 0.9 and rows["fixed_mask_sd_heart"]["floor"] > 0.05, "other masks differ"


@pytest.mark.parametrize("draws", [2, 4, 8])
def test_noise_has_its_standard_deviation_where_it_is(draws):
    samples = repeated(discs(8, 4), draws)
    inside = heart_region(samples)[:, None]
    noise = np.random.default_rng(0).standard_normal(inside.shape)
    rows = by_metric(fixed_mask_diversity(with_images(samples, np.where(inside, 0.1, 0.02) * noise), draws, resamples=20))
    c4 = np.sqrt(2 / (draws - 1)) * gamma(draws / 2) / gamma((draws - 1) / 2)  # mean of a standard deviation of few
    assert rows["fixed_mask_sd_heart"]["value"] == pytest.approx(0.1 * c4, rel=0.03)
    assert rows["fixed_mask_sd_outside"]["value"] == pytest.approx(0.02 * c4, rel=0.03)
    assert rows["fixed_mask_ms_ssim"]["value"] < 0.7, "noise resembles no noise"


def test_noise_stream_is_more_diverse_in_every_row():
    samples, values = repeated(discs(5, 3), 3), []
    noise = np.random.default_rng(1).standard_normal(samples.images.shape)
    for strength in (0.02, 0.1, 0.3):
        noisy = with_images(samples, samples.images + strength * noise)
        values.append([row["value"] * (1 if row["better"] == "higher" else -1)
                       for row in fixed_mask_diversity(noisy, 3, resamples=5)])
    assert (np.diff(values, axis=0) > 0).all()


def test_a_given_floor_stands_and_wrong_orders_are_refused():
    conditions = discs(4, 3)
    samples = repeated(conditions, 3)
    floor = {"fixed_mask_ms_ssim": 0.7, "fixed_mask_sd_heart": 0.1, "fixed_mask_sd_outside": 0.2}
    assert {r["metric"]: r["floor"] for r in fixed_mask_diversity(samples, 3, floor=floor, resamples=5)} == floor
    with pytest.raises(DataError, match="masks.*different masks"):
        fixed_mask_diversity(conditions.take(np.repeat(np.arange(12), 3)), 3)
    with pytest.raises(DataError, match="draws"):
        fixed_mask_diversity(samples, 5)
    empty = Slices(samples.images, np.zeros_like(samples.masks), samples.table)
    with pytest.raises(DataError, match="masks.*or none"):
        fixed_mask_diversity(empty, 3)
