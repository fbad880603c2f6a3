"""Spectrum, diversity, two-sample test, inception score, shapes, external networks, corruptions and the whole panel."""

import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy
from scipy.stats import wasserstein_distance

from cmri_lib.cohort.slices import concatenate
from cmri_lib.errors import DataError, SplitError
from cmri_lib.measures.anatomy.shapes import SHAPES, anatomy_of_samples, slice_dice, shape_statistics
from cmri_lib.measures.fidelity import corruptions as faults
from cmri_lib.measures.fidelity.distances import distances
from cmri_lib.measures.fidelity.diversity import diversity
from cmri_lib.measures.fidelity.spectrum import radial_spectrum, spectrum, spectrum_statistics, top_octave
from cmri_lib.measures.fidelity.two_sample import classified_right, inception_score, inception_statistics, two_sample
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.instruments.learned_features import Cached
from cmri_lib.measures.panel import measures, plain_values
from cmri_lib.measures.statistics.comparison import Embedding, compare, differences
from cmri_lib.reporting import metrics
from conftest import discs
from rows import by_metric

RNG = np.random.default_rng(0)


def described(values: np.ndarray, side: str, per_patient: int = 1) -> Embedding:
    return Embedding(values, np.array([f"{side}{i // per_patient}" for i in range(len(values))]))


def threshold(images: np.ndarray) -> np.ndarray:
    """A segmenter for bright discs: LV where bright, myocardium everywhere within two pixels."""
    bright = images[:, 0] > 0.3
    near = bright.copy()
    for axis in (1, 2):
        near |= np.roll(near, 2, axis) | np.roll(near, -2, axis)
    return np.where(bright, 1, np.where(near, 2, 0)).astype(np.uint8)


@pytest.fixture(scope="module")
def sets():
    return {"real": discs(12, 5, seed=1, split="test"), "made": discs(12, 5, seed=4, split="made"),
            "reference": discs(10, 5, seed=5, split="holdout"), "training": discs(14, 6, seed=2)}


# Spectrum

@pytest.mark.parametrize("cycles", [3, 9, 14])
def test_a_wave_lies_in_its_own_ring(cycles):
    wave = np.cos(2 * np.pi * cycles * np.arange(32) / 32)[None, None, None, :].repeat(32, 2).astype(np.float32)
    assert radial_spectrum(wave).argmax() + 1 == cycles


def test_white_noise_has_a_flat_spectrum_of_its_variance():
    noise = (0.3 * RNG.standard_normal((400, 1, 32, 32))).astype(np.float32)
    mean = np.log10((10**radial_spectrum(noise)).mean(0))
    np.testing.assert_allclose(mean[2:], np.log10(0.09), atol=0.03)


def test_band_excess_tells_blur_from_noise_and_points_to_zero(sets):
    found = {}
    for name, fault in (("blur", faults.blurred), ("noise", faults.noisy)):
        bad = fault(sets["made"], 1.0, np.random.default_rng(0))
        found[name] = by_metric(compare(sets["real"], bad, spectrum(), resamples=40, repeats=4))
    assert found["blur"]["band_excess"]["high"] < 0 < found["noise"]["band_excess"]["low"]
    assert found["blur"]["band_excess"]["better"] == "higher" and found["noise"]["band_excess"]["better"] == "lower"
    for rows in found.values():
        assert rows["spectrum_db"]["low"] > rows["spectrum_db"]["floor"]


@pytest.mark.parametrize(("cycles", "in_the_top_octave"), [(5, False), (14, True)])
def test_a_wave_counts_as_excess_only_in_the_top_octave(cycles, in_the_top_octave):
    images = np.random.default_rng(0).normal(0, 0.05, (12, 1, 32, 32))
    waved = images + 0.2 * np.cos(2 * np.pi * cycles * np.arange(32) / 32)
    plain, other = (Embedding(radial_spectrum(some.astype(np.float32)), np.arange(12)) for some in (images, waved))
    assert top_octave(plain.values.shape[1]) == slice(8, 16)
    once = np.ones(12)
    distance, excess = (statistic(once, once) for statistic in spectrum_statistics(plain, other))
    assert distance > 1 and (excess > 0.1 if in_the_top_octave else abs(excess) < 0.02)


def test_half_the_amplitude_is_six_decibels_less(sets):
    halved = faults.with_images(sets["real"], sets["real"].images / 2)
    row = compare(sets["real"], halved, spectrum(), resamples=5, repeats=2)
    assert row[0]["value"] == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert row[1]["value"] == pytest.approx(2 * np.log10(0.5), abs=1e-4)


# Diversity, see also test_diversity.py

def test_collapsed_samples_are_less_diverse_than_patients(sets):
    collapsed = faults.memorised(sets["training"], 3)(sets["made"], 1.0, np.random.default_rng(0))
    row, = compare(sets["real"], collapsed, diversity(60), resamples=40, repeats=3)
    assert row["metric"] == "ms_ssim_pairs" and row["low"] > row["floor"] and row["high"] <= 1
    gap = differences(sets["real"], collapsed, sets["made"], diversity(60), resamples=40)["ms_ssim_pairs"]
    assert gap.low > 0


# Classifiers as judges

def test_two_sample_accuracy_of_gaussians_is_half_or_the_closed_form():
    rng = np.random.default_rng(1)
    x, same, apart = (described(rng.standard_normal((1500, 4)) + [s, 0, 0, 0], n)
                      for s, n in ((0, "x"), (0, "y"), (2, "z")))
    assert np.mean([r.mean() for r in classified_right(x, same)]) == pytest.approx(0.5, abs=0.03)
    # Two unit Gaussians 2 apart: Φ(1) = 0.841 is the best accuracy there is.
    assert np.mean([r.mean() for r in classified_right(x, apart)]) == pytest.approx(0.841, abs=0.02)


def test_few_patients_of_one_side_never_share_a_fold_all_together():
    rng = np.random.default_rng(0)
    for patients in range(20, 50):  # for some of these, a shuffle would put all three of the other side into one fold
        real = Embedding(rng.standard_normal((2 * patients, 2)), np.repeat([f"r{i:02d}" for i in range(patients)], 2))
        few = Embedding(rng.standard_normal((15, 2)) + 8, np.repeat(["s0", "s1", "s2"], 5))
        assert all(r.mean() > 0.95 for r in classified_right(real, few))


def test_two_sample_folds_keep_patients_together():
    # Patients are points far apart, each side's its own: a split by slice would tell them all by heart.
    rng = np.random.default_rng(2)
    centres = 10 * rng.standard_normal((40, 30))
    x, y = (described(np.repeat(c, 8, 0) + 0.1 * rng.standard_normal((160, 30)), n, 8)
            for c, n in ((centres[:20], "x"), (centres[20:], "y")))
    assert np.mean([r.mean() for r in classified_right(x, y)]) < 0.7


def test_two_sample_row_sees_noise(sets):
    noisy = faults.noisy(sets["made"], 0.6, np.random.default_rng(0))
    for measure, name in ((two_sample(ClassicalFeatures()), "c2st_classical"),
                          (two_sample(ClassicalFeatures(), with_spectrum=True), "c2st_classical_spectrum")):
        row, = compare(sets["real"], noisy, measure, resamples=40, repeats=4)
        assert row["metric"] == name and row["low"] > 0.6 and row["ceiling"] == 0.5 and 0.25 < row["floor"] < 0.75


def test_inception_score_has_its_bounds():
    def score(p):
        return inception_statistics(described(p, "r"), described(p, "s"))[0](np.ones(len(p)), np.ones(len(p)))

    assert score(np.eye(6)[np.arange(60) % 6]) == pytest.approx(6)
    assert score(np.full((50, 6), 1 / 6)) == pytest.approx(1)
    p = RNG.dirichlet(np.ones(5), 80)
    assert score(p) == pytest.approx(np.exp(np.mean([scipy_entropy(row, p.mean(0)) for row in p])))


def test_inception_score_learns_from_training_slices_only(sets):
    row, = compare(sets["real"], sets["made"], inception_score(ClassicalFeatures(), sets["training"]), resamples=20)
    assert 1 <= row["value"] <= row["ceiling"] == 6 and row["better"] == "higher"
    with pytest.raises(SplitError, match="inception"):
        inception_score(ClassicalFeatures(), sets["real"])


# Shapes

def test_transport_is_scipys_in_real_deviations_and_leaves_absent_structures_out():
    x, y = RNG.normal(5, 2, (80, len(SHAPES))), RNG.normal(6, 2, (50, len(SHAPES)))
    y[:10, 0] = np.nan
    *shape, missing = shape_statistics(described(x, "x"), described(y, "y"))
    u, v = np.ones(80, int), np.ones(50, int)
    assert shape[0](u, v) == pytest.approx(wasserstein_distance(x[:, 0], y[10:, 0]) / x[:, 0].std())
    assert missing(u, v) == pytest.approx(0.2)
    moved = shape_statistics(described(x, "x"), described(x + 3 * x.std(0), "y"))
    assert moved[2](u, u[:80]) == pytest.approx(3), "a shift of three deviations is a distance of three"


def test_larger_hearts_and_lost_hearts_are_seen(sets):
    measure = anatomy_of_samples(threshold)
    large = sets["made"].with_columns(spacing=4.5)
    rows = by_metric(compare(sets["real"], large, measure, resamples=40, repeats=4))
    assert rows["anatomy_w1_lv_cm2"]["low"] > rows["anatomy_w1_lv_cm2"]["floor"]
    assert rows["anatomy_w1_lv_cm2"]["axis"] == "anatomy" and rows["anatomy_lv_missing"]["value"] == 0
    images = sets["made"].images.copy()
    images[:15] = -1
    lost = by_metric(compare(sets["real"], faults.with_images(sets["made"], images), measure, resamples=40, repeats=4))
    assert lost["anatomy_lv_missing"]["value"] == 0.25


# Corruptions

def test_corruptions_of_strength_nought_change_nothing_and_keep_the_form(sets):
    made = sets["made"]
    for name, fault in faults.corruptions(sets["training"]).items():
        untouched = fault(made, 0.0, np.random.default_rng(0))
        np.testing.assert_allclose(untouched.images, made.images, atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(untouched.masks, made.masks, err_msg=name)
        spoilt = fault(made, 1.0, np.random.default_rng(0))
        assert len(spoilt) == len(made) and np.abs(spoilt.images).max() <= 1, name
        changed = (spoilt.images != made.images).any() or (spoilt.masks != made.masks).any()
        assert changed, name


def test_set_corruptions_do_what_they_say(sets):
    made, training, rng = sets["made"], sets["training"], np.random.default_rng(0)
    known = {image.tobytes() for image in training.images}
    copies = [image.tobytes() in known for image in faults.copied(training)(made, 0.5, rng).images]
    assert 0.3 < np.mean(copies) < 0.7
    few = faults.memorised(training, 3)(made, 1.0, rng)
    assert len({image.tobytes() for image in few.images}) == 3
    kept = {image.tobytes() for image in faults.few_patients(made, 1.0, rng).images}
    assert len(kept) == faults.PATIENTS_LEFT * 5


def patches(images: np.ndarray, side: int) -> np.ndarray:
    """(N, 16) the patches of a division in 4 × 4, by their bytes."""
    return np.array([[image[0, r:r + side, c:c + side].tobytes().hex() for r in range(0, 4 * side, side)
                      for c in range(0, 4 * side, side)] for image in images])


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
def test_torn_patches_change_places_and_none_is_lost(strength):
    noise = faults.with_images(discs(2, 3), RNG.uniform(-1, 1, (6, 1, 32, 32)))  # no two patches are alike
    before, after = (patches(s.images, 8) for s in (noise, faults.torn(noise, strength, np.random.default_rng(0))))
    np.testing.assert_array_equal(np.sort(before), np.sort(after))
    assert ((before != after).sum(1) == round(16 * strength)).all()
    assert len({tuple(row) for row in before != after}) == (1 if strength == 1 else 6), "each image is torn at other places"
    with pytest.raises(DataError, match="30² have no 4 × 4"):
        faults.torn(discs(1, 1, 30), strength, np.random.default_rng(0))


def test_shading_is_a_smooth_factor_of_half_its_strength_in_logarithms():
    grey = faults.with_images(discs(5, 4), np.full((20, 1, 32, 32), -0.9, np.float32))  # far from both ends of the range
    for strength in (0.4, 1.0):
        shaded = faults.shaded(grey, strength, np.random.default_rng(0))
        field = np.log((shaded.images + 1) / (grey.images + 1))[:, 0]
        np.testing.assert_allclose(field.std((1, 2)), strength / 2, rtol=1e-3)
        np.testing.assert_allclose(field.mean((1, 2)), 0, atol=1e-3)
        assert np.diff(field, axis=1).std() == pytest.approx(strength / 2 / (8 * 2**0.5), rel=0.15), "smooth over 8 pixels"
        assert np.median(np.abs(field).max((1, 2))) == pytest.approx(strength, rel=0.3), "about e^±1 at its extremes"


def test_deformed_images_bend_by_a_twentieth_of_the_side():
    size = 64
    ramp = np.broadcast_to(np.linspace(-1, 1, size)[:, None], (12, 1, size, size))  # shows where a pixel comes from
    slices = faults.with_images(discs(3, 4, size), ramp)
    inside = np.s_[:, 0, 16:-16, 16:-16]  # where no displacement leads beyond the border
    for strength in (0.5, 1.0):
        bent = faults.deformed(slices, strength, np.random.default_rng(0))
        moved = ((bent.images - slices.images) * (size - 1) / 2)[inside]
        assert moved.std() == pytest.approx(0.05 * strength * size, rel=0.2)
        # A field of deviation s that is smooth over w has the slope s / (w √2): here w is an eighth of the side.
        assert np.diff(moved, axis=1).std() == pytest.approx(0.05 * strength * 8 / 2**0.5, rel=0.15)
        np.testing.assert_array_equal(bent.masks, slices.masks)


def test_one_level_is_what_is_left_and_apical_and_basal_slices_give_way(sets):
    made = sets["made"]
    mid = (made.table["level"] == "mid").to_numpy()
    known = {image.tobytes() for image in made.images[mid]}
    for strength, least, most in ((1.0, 1, 1), (0.5, 0.3, 0.7)):
        left = faults.one_level(made, strength, np.random.default_rng(0))
        np.testing.assert_array_equal(left.images[mid], made.images[mid])
        assert least <= np.mean([image.tobytes() in known for image in left.images[~mid]]) <= most


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_shuffled_masks_are_exchanged_and_none_is_lost(strength):
    many = discs(40, 5)
    shuffled = faults.shuffled_masks(many, strength, np.random.default_rng(0))
    before, after = ([mask.tobytes() for mask in s.masks] for s in (many, shuffled))
    assert sorted(before) == sorted(after) and len(set(before)) == 200
    moved = np.mean([a != b for a, b in zip(before, after)])
    assert moved == pytest.approx(strength, abs=3 * (strength * (1 - strength) / 200) ** 0.5 + 0.02)
    np.testing.assert_array_equal(shuffled.images, many.images)


def test_sensitivity_finds_what_each_metric_can_see(sets):
    real = concatenate([sets["real"], sets["made"], sets["reference"]])
    features = Cached(ClassicalFeatures())
    functions, better = plain_values([distances(features), spectrum()])
    functions["dice"], better["dice"] = slice_dice(Cached(threshold)), "higher"
    chosen = {"blur": faults.blurred, "masks": faults.shuffled_masks}
    table = faults.sensitivity(real, functions, better, chosen, sizes=(60, 60), strength=1.0, repeats=2, partitions=8)
    table = table.set_index(["metric", "corruption"])
    for metric in ("frechet_classical", "kid_classical", "spectrum_db", "band_excess"):
        assert table.loc[(metric, "blur"), "response"] > 3 and table.loc[(metric, "blur"), "beyond"]
        assert table.loc[(metric, "masks"), "response"] == 0 and not table.loc[(metric, "masks"), "beyond"]
    assert table.loc[("dice", "masks"), "response"] > 3 and table.loc[("dice", "masks"), "beyond"]
    with pytest.raises(DataError, match="no direction"):
        faults.sensitivity(real, functions, {}, chosen)


# The panel

def test_panel_gives_every_row_once_with_all_it_needs(sets):
    space = Cached(ClassicalFeatures())
    chosen = measures([space], training=sets["training"], segment=threshold)
    options = {"reference_real": sets["reference"], "training": sets["training"], "resamples": 20, "repeats": 3}
    rows = [row for measure in chosen for row in compare(sets["real"], sets["made"], measure, **options)]
    names = [row["metric"] for row in rows]
    assert names == [m.name for measure in chosen for m in measure.metrics] and len(set(names)) == len(names)
    assert [name for name in names if not metrics.known(name)] == [], "give it a title in cmri_lib/reporting/metrics.py"
    assert {"kid_classical", "recall_classical", "c2st_classical", "ms_ssim_pairs", "anatomy_lv_missing"} <= set(names)
    for row in rows:
        assert row["n"] == 60 and row["better"] in ("lower", "higher"), row
        # The threshold sees no right ventricle, so what needs one has no value.
        assert row["low"] <= row["value"] <= row["high"] or "rv" in row["metric"], row
        assert np.isfinite([row["floor"], row["ceiling"]]).all() or "rv" in row["metric"], row


def test_kid_difference_is_antisymmetric_and_sees_blur(sets):
    bad = faults.blurred(sets["made"], 1.0, np.random.default_rng(0))
    measure = distances(ClassicalFeatures())
    forth, back = (differences(sets["real"], *pair, measure, resamples=60)["kid_classical"] for pair in
                   ((bad, sets["made"]), (sets["made"], bad)))
    assert forth.low > 0 and forth.value == pytest.approx(-back.value)
    assert forth.low == pytest.approx(-back.high)
