"""Preprocessing: closed forms first, then a trusted library, then properties of any scan."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from cmri_lib.cohort.case import Case, Volume
from cmri_lib.cohort.preprocessing.intensity import (LANDMARK_PERCENTILES, ZSCORE_RANGE, Landmarks, clip_percentiles,
                                       correct_bias_field, image_landmarks, minmax, standard_scale, standardise, zscore)
from cmri_lib.cohort.preprocessing.pipeline import (LEVELS, PreprocessSettings, crop_report, crop_window, fit_landmarks,
                                                    heights, level, preprocess, trace)
from cmri_lib.cohort.preprocessing.resample import (Window, cubic, interpolation_weights, linear, on_grid, resample_image,
                                                     resample_labels)
from cmri_lib.errors import DataError, ParameterError, SplitError

CENTRE = PreprocessSettings(size=32, field_of_view=96.0, crop="centre", jobs=1)


def rings(slices: int = 6, shape: tuple[int, int] = (80, 72), spacing: tuple[float, float] = (1.5, 1.5),
          centre: tuple[float, float] | None = None, base_first: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask (Z, H, W): LV disc, myocardial ring and an RV disc beside it, shrinking from base to apex; the
    first and last slice are empty."""
    centre = centre or tuple((n - 1) / 2 for n in shape)
    r, c = np.meshgrid(*(((np.arange(n) - m) * s) for n, m, s in zip(shape, centre, spacing, strict=True)),
                       indexing="ij")
    mask = np.zeros((slices, *shape), np.uint8)
    for z in range(1, slices - 1):
        radius = 16.0 - 10.0 * (z - 1) / max(1, slices - 3)
        mask[z][np.hypot(r, c + radius) < radius] = 3
        mask[z][np.hypot(r, c) < radius] = 2
        mask[z][np.hypot(r, c) < 0.6 * radius] = 1
    mask = mask if base_first else mask[::-1].copy()
    grey = np.array([120.0, 400.0, 150.0, 380.0])[mask]
    noise = np.random.default_rng(slices).normal(0, 15, mask.shape)
    return np.maximum(grey + noise, 0).astype(np.float32), mask


def case(patient: str = "p1", spacing: tuple[float, float, float] = (10.0, 1.5, 1.5), **options) -> Case:
    image, mask = rings(spacing=spacing[1:], **options)
    volumes = {"ED": Volume(image, mask), "ES": Volume(0.9 * image, mask)}
    return Case(patient, patient, volumes, spacing, np.eye(4), vendor="A", dataset="toy")


def volume_like(seed: int = 0, shape: tuple[int, ...] = (2, 4, 40, 40)) -> np.ndarray:
    return np.random.default_rng(seed).gamma(3.0, 100.0, shape).astype(np.float32)


# ---------------------------------------------------------------- geometry: closed forms

@pytest.mark.parametrize("step", [0.5, 1.5, 2.0, 3.0])
def test_linear_ramp_stays_the_ramp(step):
    ramp = np.add.outer(3.0 * np.arange(60), -2.0 * np.arange(50)).astype(np.float32) * 1.5
    window = Window((30.0, 24.0), 12, 12 * step)
    place = (np.arange(12) - 5.5) * step
    expected = 3.0 * (30.0 * 1.5 + place)[:, None] - 2.0 * (24.0 * 1.5 + place)[None, :]
    assert np.abs(resample_image(ramp, (1.5, 1.5), window) - expected).max() < 0.01 * np.ptp(expected)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.4, 0.9), (0.7, 0.8)])
def test_area_of_a_disc_is_kept_within_one_per_cent(spacing):
    n = [int(120 / s) for s in spacing]
    r, c = np.meshgrid(*(np.arange(k) * s for k, s in zip(n, spacing, strict=True)), indexing="ij")
    disc = (np.hypot(r - 60.3, c - 59.1) < 35.0).astype(np.uint8)
    labels = resample_labels(disc, spacing, Window(((n[0] - 1) / 2, (n[1] - 1) / 2), 60, 100.0), [1, 2, 3])
    assert labels.sum() * (100 / 60) ** 2 == pytest.approx(np.pi * 35.0**2, rel=0.01)


def test_same_grid_gives_back_the_image():
    image = volume_like(shape=(3, 20, 20))
    np.testing.assert_allclose(resample_image(image, (1.5, 1.5), Window((9.5, 9.5), 20, 30.0)), image, rtol=1e-6)


@given(row=st.floats(-6, 6), column=st.floats(-6, 6))
@settings(max_examples=20, deadline=None)
def test_a_stack_on_the_output_grid_is_moved_by_whole_pixels_and_not_smoothed(row, column):
    image, labels = rings(shape=(48, 48), centre=(24, 24))
    window = Window((24 + row, 24 + column), 32, 96.0)
    placed = on_grid(window, (3.0, 3.0))
    assert np.abs(np.subtract(placed.centre, window.centre)).max() <= 0.5
    top, left = (round(c - 15.5) for c in placed.centre)
    inside = np.s_[:, top:top + 32, left:left + 32]
    np.testing.assert_allclose(resample_image(image, (3.0, 3.0), placed), image[inside], atol=1e-6)
    np.testing.assert_array_equal(resample_labels(labels, (3.0, 3.0), placed, [1, 2, 3]), labels[inside])
    assert on_grid(window, (2.9, 3.0)).centre[0] == window.centre[0], "pixels of another size stay where they are"


def test_shrinking_averages_what_the_coarse_grid_cannot_hold():
    stripes = np.tile(np.array([0.0, 100.0], np.float32), (40, 20))  # at the stored Nyquist frequency
    small = resample_image(stripes, (1.0, 1.0), Window((19.5, 19.5), 8, 24.0))
    assert np.abs(small - 50.0).max() < 10.0


def test_padding_is_the_minimum_and_the_background():
    image, mask = np.full((1, 10, 10), 7.0, np.float32), np.full((1, 10, 10), 2, np.uint8)
    image[0, 5, 5] = 3.0
    window = Window((4.5, 4.5), 30, 30.0)
    outer = np.ones((30, 30), bool)
    outer[8:22, 8:22] = False
    assert (resample_image(image, (1.0, 1.0), window)[0][outer] == 3.0).all()
    assert not resample_labels(mask, (1.0, 1.0), window, [1, 2, 3])[0][outer].any()


@pytest.mark.parametrize("kernel, at_the_border", [(linear, [0, 0.5, 1, 1]), (cubic, [-0.0625, 0.5, 1.0625, 1])])
def test_weights_of_each_pixel_sum_to_one_inside_and_are_missing_beyond_the_border(kernel, at_the_border):
    weights = interpolation_weights(100, 1.3, 50.0, Window((50.0, 50.0), 16, 64.0), kernel)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)
    beyond = interpolation_weights(10, 1.0, 0.0, Window((0.0, 0.0), 4, 4.0), kernel)  # at −1.5, −0.5, 0.5 and 1.5
    np.testing.assert_allclose(beyond.sum(axis=1), at_the_border, atol=1e-6)


def test_linear_weights_are_shares_of_the_neighbours_and_a_wider_triangle_where_the_grid_is_coarser():
    fine = interpolation_weights(10, 1.0, 4.25, Window((4.25, 4.25), 3, 1.5), linear).toarray()  # at 3.75, 4.25 and 4.75
    np.testing.assert_allclose(fine[:, 3:6], [[0.25, 0.75, 0], [0, 0.75, 0.25], [0, 0.25, 0.75]], atol=1e-6)
    assert not fine[:, :3].any() and not fine[:, 6:].any()
    coarse = interpolation_weights(11, 1.0, 5.0, Window((5.0, 5.0), 3, 6.0), linear).toarray()  # at 3, 5 and 7, of 2 mm
    np.testing.assert_allclose(coarse[1, 3:8], [0, 0.25, 0.5, 0.25, 0], atol=1e-6)
    np.testing.assert_allclose(coarse[0], np.roll(coarse[1], -2), atol=1e-6)


@pytest.mark.parametrize("distance, wanted", [(0, 1), (0.5, 0.5625), (1, 0), (1.5, -0.0625), (2, 0), (2.5, 0)])
def test_the_cubic_kernel_is_keys(distance, wanted):
    assert cubic(np.array([-distance, distance])) == pytest.approx([wanted] * 2, abs=1e-12)


# ---------------------------------------------------------------- geometry: against libraries

def test_refining_agrees_with_simpleitk_linear_labels_and_images():
    """Without shrinking there is no anti-aliasing, so SimpleITK's linear interpolation is the same formula; the cubic
    kernel is compared with it on a smooth image. Tolerance: 1e-4 of the range (linear), 1 % (cubic)."""
    grid = np.arange(48)
    smooth = (100 * np.sin(grid / 9.0)[:, None] * np.cos(grid / 7.0)[None, :]).astype(np.float32)
    image = sitk.GetImageFromArray(smooth)
    image.SetSpacing((1.8, 1.5))  # (x, y) = (column, row)
    window = Window((23.5, 23.5), 40, 40.0)
    reference = sitk.ResampleImageFilter()
    reference.SetInterpolator(sitk.sitkLinear)
    reference.SetSize((40, 40))
    reference.SetOutputSpacing((1.0, 1.0))
    reference.SetOutputOrigin((23.5 * 1.8 - 19.5, 23.5 * 1.5 - 19.5))
    expected = sitk.GetArrayFromImage(reference.Execute(image))
    rows, columns = (interpolation_weights(48, s, 23.5, window, linear) for s in (1.5, 1.8))
    assert np.abs(rows @ smooth @ columns.T - expected).max() < 0.02
    assert np.abs(resample_image(smooth, (1.5, 1.8), window) - expected).max() < 2.0


def test_shrinking_agrees_with_pillow_bicubic():
    """Pillow's antialiased BICUBIC is the same kernel (a = −1/2), widened in the same way; tolerance 1e-3 of the range
    away from the border, where Pillow repeats the weights of the image instead of padding."""
    pillow = pytest.importorskip("PIL.Image")
    image = volume_like(shape=(60, 60))
    expected = np.asarray(pillow.fromarray(image).resize((20, 20), pillow.Resampling.BICUBIC))
    ours = resample_image(image, (1.0, 1.0), Window((29.5, 29.5), 20, 60.0))
    assert np.abs(ours - expected)[2:-2, 2:-2].max() < 1e-3 * np.ptp(image)


# ---------------------------------------------------------------- intensities: closed forms

def test_minmax_spans_exactly_minus_one_to_one_after_the_clip():
    out = minmax(clip_percentiles(volume_like(), (1.0, 99.0)))
    assert (out.min(), out.max()) == (-1.0, 1.0)
    assert np.isclose((out == 1.0).mean(), 0.01, atol=0.002) and np.isclose((out == -1.0).mean(), 0.01, atol=0.002)


def test_zscore_has_the_moments_of_a_standard_normal_divided_by_its_range():
    normal = np.random.default_rng(0).normal(500.0, 80.0, (2, 4, 60, 60)).astype(np.float32)
    out = zscore(normal)
    assert abs(out.mean()) < 1e-3 and out.std() * ZSCORE_RANGE == pytest.approx(1.0, abs=0.01)
    assert out.min() >= -1 and out.max() <= 1


@pytest.mark.parametrize("step", [minmax, zscore, lambda x: clip_percentiles(x, (1.0, 99.0)),
                                  lambda x: correct_bias_field(x, (10.0, 1.5, 1.5))])
def test_a_constant_scan_stays_finite(step):
    assert np.isfinite(step(np.full((2, 3, 16, 16), 5.0, np.float32))).all()


def test_phases_share_one_window():
    image = volume_like()
    image[1] *= 0.5  # ES darker than ED by a factor
    out = minmax(clip_percentiles(image, (0.0, 100.0))) + 1
    np.testing.assert_allclose(out[1].mean() / out[0].mean(), 0.5, atol=0.05)


def test_bias_field_is_removed_from_a_disc():
    """A disc of two tissues under a field that changes by a factor of two: the variation within each must fall by half
    at least, and the field must not leak from one phase to the other."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 80)] * 2, indexing="ij"))
    radius = np.hypot(*grid)
    tissue = np.where(radius < 0.9, 200.0, 5.0) + np.where(radius < 0.4, 200.0, 0.0)
    field = np.exp(0.35 * grid[0] + 0.2 * grid[1] ** 2)
    noise = np.random.default_rng(0).normal(0, 3, (2, 5, 80, 80))
    image = (tissue * field + noise).astype(np.float32)
    out = correct_bias_field(image, (8.0, 2.0, 2.0))
    for inside in (radius < 0.35, (radius > 0.45) & (radius < 0.85)):
        before, after = (x[..., inside].std() / x[..., inside].mean() for x in (image, out))
        assert after < 0.5 * before
    ratio = image / out
    np.testing.assert_allclose(ratio[0], ratio[1], rtol=1e-4)


# ---------------------------------------------------------------- histogram standardisation

def test_landmarks_land_exactly_on_the_standard_scale():
    # 101 distinct values above the minimum: every percentile of the foreground is one of the voxels.
    values = np.concatenate([[0.0], np.sort(np.random.default_rng(1).uniform(10, 900, 101))]).astype(np.float32)
    scale = Landmarks(tuple(np.linspace(-1, 1, len(LANDMARK_PERCENTILES)) ** 3))
    out = standardise(values.reshape(1, 1, 6, 17), scale).ravel()
    np.testing.assert_allclose(out[1:][np.array(LANDMARK_PERCENTILES, int)], scale.scale, atol=1e-6)


def test_standard_scale_is_the_mean_of_the_scaled_landmarks():
    images = [volume_like(seed) for seed in range(3)]
    marks = np.stack([image_landmarks(i) for i in images])
    expected = np.mean([np.interp(m, m[[0, -1]], [-1, 1]) for m in marks], axis=0)
    np.testing.assert_allclose(standard_scale(images).scale, expected, atol=1e-9)
    assert standard_scale(images).scale[0] == -1 and standard_scale(images).scale[-1] == 1


def test_standardising_undoes_a_vendor_s_gamma_and_scale():
    image = volume_like()
    other = 7.0 * (image / image.max()) ** 0.6
    scale = standard_scale([image])
    # Within the ends of the scale the map between two monotone copies is the identity up to its 10 linear pieces.
    assert np.abs(standardise(image, scale) - standardise(other.astype(np.float32), scale)).mean() < 0.02


@given(st.integers(0, 10**6), st.booleans())
@settings(max_examples=30, deadline=None)
def test_standardising_is_monotone_and_stays_in_range(seed, ties):
    image = volume_like(seed, (1, 2, 12, 12))
    image = np.round(image / 150) * 150 if ties else image  # few distinct values: landmarks coincide
    out = standardise(image, Landmarks(tuple(np.sort(np.random.default_rng(seed).uniform(-1, 1, 11)))))
    order = np.argsort(image, axis=None)
    assert (np.diff(out.ravel()[order]) >= 0).all() and np.abs(out).max() <= 1


def test_landmarks_refuse_nonsense():
    with pytest.raises(DataError, match="not 11 increasing values"):
        Landmarks((1.0, 0.0))
    with pytest.raises(DataError, match="no contrast"):
        standard_scale([np.zeros((1, 1, 4, 4), np.float32)])
    with pytest.raises(DataError, match="no image"):
        standard_scale([])


# ---------------------------------------------------------------- the whole way

def test_table_describes_the_slices():
    slices = preprocess([case("p1"), case("p2", base_first=False)], CENTRE, split={"p1": "train", "p2": "test"})
    table = slices.table
    assert len(slices) == 2 * 2 * 4 and slices.size == 32  # the empty first and last slice are left out
    assert (table["spacing"] == 3.0).all() and (table["slice_mm"] == 10.0).all() and (table["source"] == "real").all()
    assert table.groupby("patient")["split"].first().to_dict() == {"p1": "train", "p2": "test"}
    ed = table[(table["phase"] == "ED")].groupby("patient")
    assert ed["index"].apply(list).to_dict() == {"p1": [1, 2, 3, 4], "p2": [1, 2, 3, 4]}
    np.testing.assert_allclose(ed.get_group("p1")["height"], [1, 2 / 3, 1 / 3, 0], atol=1e-12)
    np.testing.assert_allclose(ed.get_group("p2")["height"], [0, 1 / 3, 2 / 3, 1], atol=1e-12)
    assert list(ed.get_group("p1")["level"]) == ["basal", "basal", "mid", "apical"]


def test_level_is_the_third_of_the_height():
    assert [level(h) for h in (0.0, 0.3, 0.4, 0.6, 0.7, 1.0)] == ["apical"] * 2 + ["mid"] * 2 + ["basal"] * 2


def test_single_labelled_slice_is_in_the_middle():
    height = heights(case(slices=3))["ED"]
    assert np.isnan(height[[0, 2]]).all() and height[1] == 0.5


def test_area_of_every_label_survives():
    scan = case(spacing=(10.0, 1.1, 1.3))
    slices = preprocess([scan], CENTRE, split={"p1": "train"})
    for value in (1, 2, 3):
        stored = (scan.volumes["ED"].mask == value).sum() * 1.1 * 1.3
        kept = (slices.masks[slices.table["phase"] == "ED"] == value).sum() * 9.0
        assert kept == pytest.approx(stored, rel=0.06)


def test_phases_and_levels_can_be_selected():
    chosen = dataclasses.replace(CENTRE, phases=("ES",), levels=("mid", "basal"))
    table = preprocess([case()], chosen, split={"p1": "train"}).table
    assert set(table["phase"]) == {"ES"} and set(table["level"]) == {"mid", "basal"}
    full = preprocess([case()], CENTRE, split={"p1": "train"})
    part = full.where(phase="ES", level=["mid", "basal"])
    assert (part.images == preprocess([case()], chosen, split={"p1": "train"}).images).all()


def test_every_step_can_be_switched_and_traced():
    scale = fit_landmarks([case()], dataclasses.replace(CENTRE, standardise=True))
    everything = dataclasses.replace(CENTRE, bias_field=True, standardise=True)
    assert list(trace(case(), everything, landmarks=scale)) == ["scan", "bias field", "crop", "clip", "standardise",
                                                                 "normalise"]
    nothing = dataclasses.replace(CENTRE, clip=None, normalise="none")
    steps = trace(case(), nothing)
    assert list(steps) == ["scan", "crop"] and (steps["scan"][0] == case().volumes["ED"].image).all()
    for changed in ({"bias_field": True}, {"clip": None}, {"standardise": True}, {"normalise": "zscore"},
                    {"crop": "none"}):
        base = preprocess([case()], CENTRE, split={"p1": "train"}, landmarks=scale)
        other = preprocess([case()], dataclasses.replace(CENTRE, **changed), split={"p1": "train"}, landmarks=scale)
        assert np.abs(base.images - other.images).max() > 1e-3, changed


def test_no_mask_touches_an_image():
    scan = case()
    altered = dataclasses.replace(scan, volumes={
        phase: Volume(v.image, np.where(v.mask == 1, 2, 0).astype(np.uint8)) for phase, v in scan.volumes.items()})
    for step, image in trace(scan, CENTRE).items():
        assert (image == trace(altered, CENTRE)[step]).all(), step


def test_tissues_agree_with_masks():
    scan = case()
    with_tissues = dataclasses.replace(scan, volumes={
        phase: Volume(v.image, v.mask, np.where(v.mask > 0, v.mask, 6).astype(np.uint8))
        for phase, v in scan.volumes.items()})
    slices = preprocess([with_tissues], CENTRE, split={"p1": "train"})
    heart = slices.masks > 0
    assert (slices.tissues[heart] == slices.masks[heart]).all() and (slices.tissues[~heart] == 6).all()
    assert preprocess([with_tissues, case("p2")], CENTRE, split={"p1": "train", "p2": "train"}).tissues is None


def test_jobs_and_order_do_not_change_a_bit():
    cases = [case(f"p{i}", slices=5 + i, shape=(60 + 7 * i, 90 - 5 * i)) for i in range(4)]
    split = {c.patient: "train" for c in cases}
    options = dataclasses.replace(CENTRE, bias_field=True)
    one = preprocess(cases, options, split=split)
    two = preprocess(cases, dataclasses.replace(options, jobs=2), split=split)
    back = preprocess(cases[::-1], options, split=split)
    assert (one.images == two.images).all() and (one.masks == two.masks).all() and one.table.equals(two.table)
    for patient in split:
        assert (one.where(patient=patient).images == back.where(patient=patient).images).all()


@given(slices=st.integers(3, 7), height=st.integers(24, 70), width=st.integers(24, 70),
       row=st.floats(0.6, 2.5), column=st.floats(0.6, 2.5), size=st.sampled_from([16, 24, 33]),
       field=st.floats(40.0, 160.0), crop=st.sampled_from(["centre", "none"]),
       normalise=st.sampled_from(["minmax", "zscore"]))
@settings(max_examples=40, deadline=None)
def test_any_scan_gives_valid_slices(slices, height, width, row, column, size, field, crop, normalise):
    scan = case(spacing=(8.0, row, column), slices=slices, shape=(height, width))
    options = PreprocessSettings(size=size, field_of_view=field, crop=crop, normalise=normalise, jobs=1)
    out = preprocess([scan], options, split={"p1": "train"})
    assert out.images.shape[1:] == (1, size, size) and np.abs(out.images).max() <= 1
    assert set(np.unique(out.masks)) <= {0, 1, 2, 3} and out.masks.any(axis=(1, 2)).all()
    assert out.table["height"].between(0, 1).all() and set(out.table["level"]) <= set(LEVELS)


@given(row=st.integers(-12, 12), column=st.integers(-12, 12))
@settings(max_examples=20, deadline=None)
def test_moving_scan_and_window_together_changes_nothing(row, column):
    image, _ = rings(shape=(120, 120), centre=(60, 60))
    moved = np.roll(image, (row, column), axis=(1, 2))
    one = resample_image(image, (1.5, 1.5), Window((60, 60), 24, 72.0))
    two = resample_image(moved, (1.5, 1.5), Window((60 + row, 60 + column), 24, 72.0))
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-3)


# ---------------------------------------------------------------- reports and refusals

def test_crop_report_counts_what_is_cut_off():
    scan = case(centre=(39.5, 35.5))
    row = crop_report([scan], CENTRE).iloc[0]
    assert row["lost"] == 0 and row["margin_mm"] > 0 and (row["slices"], row["labelled"]) == (12, 8)
    assert row["margin_mm"] == pytest.approx(48 - 32, abs=1.5)  # the RV reaches 2 radii of 16 mm to the left
    narrow = dataclasses.replace(CENTRE, field_of_view=40.0)
    cut = crop_report([scan], narrow).iloc[0]
    mask = scan.volumes["ED"].mask
    inside = crop_window(scan, narrow).contains(mask.shape[1:], (1.5, 1.5))
    assert cut["lost"] == pytest.approx((mask[:, ~inside] > 0).sum() / (mask > 0).sum()) and cut["margin_mm"] < 0
    assert crop_report([scan], dataclasses.replace(CENTRE, field_of_view=240.0)).iloc[0]["padding"] > 0.5


@pytest.mark.parametrize("field, value", [
    ("size", 0), ("size", 64.0), ("size", True), ("field_of_view", -1.0), ("field_of_view", "192"), ("bias_field", 1),
    ("clip", (99.0, 1.0)), ("clip", (0.0, 101.0)), ("clip", 5), ("standardise", "yes"), ("normalise", "max"),
    ("crop", "label"), ("phases", ()), ("phases", ("ED", "MID")), ("phases", "ED"), ("levels", ("top",)),
    ("levels", ("mid", "mid")), ("jobs", 0)])
def test_settings_out_of_range_name_the_field(field, value):
    with pytest.raises(ParameterError, match=f"preprocess.{field}"):
        PreprocessSettings(**{field: value})


def test_settings_take_the_lists_of_yaml():
    assert PreprocessSettings(clip=[1.0, 99.0], phases=["ED"], levels=["mid"]).phases == ("ED",)


def test_what_is_learnt_must_be_given_and_come_from_training_patients():
    split = {"p1": "test", "p2": "train"}
    for changed in ({"crop": "detector"}, {"standardise": True}):
        with pytest.raises(ParameterError, match=f"preprocess.{next(iter(changed))}"):
            preprocess([case()], dataclasses.replace(CENTRE, **changed), split=split)
    with pytest.raises(SplitError, match="outside training"):
        preprocess([case()], CENTRE, split=split, landmarks=fit_landmarks([case()], CENTRE))


def test_patients_without_a_known_split_are_refused():
    with pytest.raises(SplitError, match="no split"):
        preprocess([case()], CENTRE, split={})
    with pytest.raises(SplitError, match="unknown"):
        preprocess([case()], CENTRE, split={"p1": "dev"})


def test_nothing_left_is_an_error():
    with pytest.raises(DataError, match="no labelled slice"):
        preprocess([case(slices=3)], dataclasses.replace(CENTRE, levels=("apical",)), split={"p1": "train"})
