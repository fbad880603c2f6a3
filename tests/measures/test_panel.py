"""Spectrum, diversity, two-sample test, inception score, shapes, external networks, corruptions and the whole panel."""

import numpy as np
import pytest
import torch
from monai.metrics import SSIMMetric
from monai.networks.nets import resnet18
from safetensors.torch import save_file
from scipy.stats import entropy as scipy_entropy
from scipy.stats import wasserstein_distance

from cmri_lib.cohort.slices import concatenate
from cmri_lib.errors import CheckpointError, DataError, SplitError
from cmri_lib.measures.anatomy.shapes import SHAPES, anatomy_of_samples, mean_dice, shape_statistics
from cmri_lib.measures.fidelity import corruptions as faults
from cmri_lib.measures.fidelity.distances import distances, kid_difference
from cmri_lib.measures.fidelity.diversity import (diversity, ms_ssim, paired_similarity, random_pairs, reconstruction_distance,
                                         scale_weights)
from cmri_lib.measures.fidelity.spectrum import radial_spectrum, spectrum
from cmri_lib.measures.fidelity.two_sample import inception_score, inception_statistics, told_right, two_sample
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.instruments.external_features import VARIABLE, ExternalFeatures, available_features
from cmri_lib.measures.instruments.learned_features import Remembered
from cmri_lib.measures.panel import HEADLINE, full_fidelity, measures, plain_values
from cmri_lib.measures.statistics.comparison import Described, compare, differences
from conftest import discs

RNG = np.random.default_rng(0)


def described(values: np.ndarray, side: str, per_patient: int = 1) -> Described:
    return Described(values, np.array([f"{side}{i // per_patient}" for i in range(len(values))]))


def by_metric(rows: list[dict]) -> dict[str, dict]:
    return {row["metric"]: row for row in rows}


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


def test_half_the_amplitude_is_six_decibels_less(sets):
    halved = faults.with_images(sets["real"], sets["real"].images / 2)
    row = compare(sets["real"], halved, spectrum(), resamples=5, repeats=2)
    assert row[0]["value"] == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert row[1]["value"] == pytest.approx(2 * np.log10(0.5), abs=1e-4)


# Diversity and paired likeness

def test_scale_weights_fit_their_images():
    assert [len(scale_weights(s)) for s in (32, 64, 128, 176)] == [2, 3, 4, 5]
    assert sum(scale_weights(64)) == pytest.approx(1)
    with pytest.raises(DataError, match="smaller than the window"):
        scale_weights(8)
    for size in (32, 64):
        images = RNG.uniform(-1, 1, (2, 1, size, size)).astype(np.float32)
        np.testing.assert_allclose(ms_ssim(images, images), 1, atol=1e-5)


def test_pairs_are_of_different_patients_and_distinct():
    patients = np.repeat(["a", "b", "c"], [4, 3, 2])
    first, second = random_pairs(patients, 1000)
    assert len(first) == 4 * 3 + 4 * 2 + 3 * 2 == len(set(zip(first, second)))
    assert (patients[first] != patients[second]).all()


def test_collapsed_samples_are_less_diverse_than_patients(sets):
    collapsed = faults.memorised(sets["training"], 3)(sets["made"], 1.0, np.random.default_rng(0))
    row, = compare(sets["real"], collapsed, diversity(60), resamples=40, repeats=3)
    assert row["metric"] == "ms_ssim_pairs" and row["low"] > row["floor"] and row["high"] <= 1
    gap = differences(sets["real"], collapsed, sets["made"], diversity(60), resamples=40)["ms_ssim_pairs"]
    assert gap.low > 0


def test_paired_likeness_is_the_closed_form_and_agrees_with_monai(sets):
    real = sets["real"]
    noisy = faults.noisy(real, 0.5, np.random.default_rng(0)).images
    rows = by_metric(paired_similarity(real, noisy, resamples=20))
    errors = ((real.images - noisy)**2).mean((1, 2, 3))
    assert rows["psnr_paired_db"]["value"] == pytest.approx((10 * np.log10(4 / errors)).mean(), abs=1e-3)
    # MONAI counts only windows that lie within the image, torchmetrics reflects the border: half of 32 × 32 pixels.
    padded = (np.pad(x, ((0, 0), (0, 0), (5, 5), (5, 5)), mode="reflect") for x in (real.images, noisy))
    ssim = SSIMMetric(spatial_dims=2, data_range=2.0)(*map(torch.from_numpy, padded)).mean()
    assert rows["ssim_paired"]["value"] == pytest.approx(float(ssim), abs=1e-4)
    assert rows["ssim_paired"]["floor"] < rows["ssim_paired"]["low"]
    with pytest.raises(DataError, match="reconstructed"):
        paired_similarity(real, noisy[:3])


def test_reconstruction_distance_is_nought_for_the_identity_and_grows_with_blur(sets):
    def value(strength):
        blur = lambda images: faults.blurred(sets["real"], strength, np.random.default_rng(0)).images
        row, = reconstruction_distance(sets["real"], blur, ClassicalFeatures(), resamples=10)
        return row["value"]

    values = [value(s) for s in (0.0, 0.5, 1.0)]
    assert values[0] == pytest.approx(0, abs=1e-6) and values[0] < values[1] < values[2]


# Classifiers as judges

def test_two_sample_accuracy_of_gaussians_is_half_or_the_closed_form():
    rng = np.random.default_rng(1)
    x, same, apart = (described(rng.standard_normal((1500, 4)) + [s, 0, 0, 0], n)
                      for s, n in ((0, "x"), (0, "y"), (2, "z")))
    assert np.mean([r.mean() for r in told_right(x, same)]) == pytest.approx(0.5, abs=0.03)
    # Two unit Gaussians 2 apart: Φ(1) = 0.841 is the best accuracy there is.
    assert np.mean([r.mean() for r in told_right(x, apart)]) == pytest.approx(0.841, abs=0.02)


def test_few_patients_of_one_side_never_share_a_fold_all_together():
    rng = np.random.default_rng(0)
    for patients in range(20, 50):  # for some of these, a shuffle would put all three of the other side into one fold
        real = Described(rng.standard_normal((2 * patients, 2)), np.repeat([f"r{i:02d}" for i in range(patients)], 2))
        few = Described(rng.standard_normal((15, 2)) + 8, np.repeat(["s0", "s1", "s2"], 5))
        assert all(r.mean() > 0.95 for r in told_right(real, few))


def test_two_sample_folds_keep_patients_together():
    # Patients are points far apart, each side's its own: a split by slice would tell them all by heart.
    rng = np.random.default_rng(2)
    centres = 10 * rng.standard_normal((40, 30))
    x, y = (described(np.repeat(c, 8, 0) + 0.1 * rng.standard_normal((160, 30)), n, 8)
            for c, n in ((centres[:20], "x"), (centres[20:], "y")))
    assert np.mean([r.mean() for r in told_right(x, y)]) < 0.7


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


# Weights from elsewhere

def test_external_weights_are_loaded_under_either_naming_and_refused_if_foreign(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = resnet18(spatial_dims=2, n_input_channels=3, conv1_t_stride=2, shortcut_type="B", bias_downsample=False,
                       feed_forward=False)
    plain = {k: v.contiguous() for k, v in network.state_dict().items()}
    place = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    by_position = {"backbone." + ".".join([place[k.split(".")[0]], *k.split(".")[1:]]): v for k, v in plain.items()}
    images, file = discs(2, 2).images, tmp_path / "imagenet_resnet18.safetensors"
    outputs = []
    for state in ({**plain, "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}, by_position):
        save_file(state, file)
        outputs.append(ExternalFeatures(file)(images))
    assert outputs[0].shape == (4, 512) and outputs[0].dtype == np.float64
    np.testing.assert_array_equal(*outputs)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert [f.name for f in available_features()] == ["imagenet_resnet18"]
    save_file({k: v for k, v in plain.items() if k != "conv1.weight"}, file)
    with pytest.raises(CheckpointError, match="conv1.weight"):
        available_features()
    monkeypatch.delenv(VARIABLE)
    assert available_features() == []
    with pytest.raises(CheckpointError, match="no such folder"):
        available_features(tmp_path / "absent")


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
    shuffled = faults.shuffled_masks(made, 1.0, rng)
    np.testing.assert_array_equal(shuffled.images, made.images)


def test_sensitivity_finds_what_each_metric_can_see(sets):
    real = concatenate([sets["real"], sets["made"], sets["reference"]])
    features = Remembered(ClassicalFeatures())
    functions, better = plain_values([distances(features), spectrum()])
    functions["dice"], better["dice"] = mean_dice(Remembered(threshold)), "higher"
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
    space = Remembered(ClassicalFeatures())
    rows = full_fidelity(sets["real"], sets["made"], [space], segment=threshold, reference_real=sets["reference"],
                         training=sets["training"], resamples=20, repeats=3)
    names = [row["metric"] for row in rows]
    expected = [m.name for measure in measures([space], training=sets["training"], segment=threshold)
                for m in measure.metrics]
    assert names == expected and len(set(names)) == len(names)
    assert {name.replace("study", "classical") for name in HEADLINE} <= set(names)
    for row in rows:
        assert row["n"] == 60 and row["better"] in ("lower", "higher"), row
        # The threshold sees no right ventricle, so what needs one has no value.
        assert row["low"] <= row["value"] <= row["high"] or "rv" in row["metric"], row
        assert np.isfinite([row["floor"], row["ceiling"]]).all() or "rv" in row["metric"], row


def test_kid_difference_is_antisymmetric_and_sees_blur(sets):
    bad = faults.blurred(sets["made"], 1.0, np.random.default_rng(0))
    forth, back = (kid_difference(sets["real"], *pair, ClassicalFeatures(), resamples=60)
                   for pair in ((bad, sets["made"]), (sets["made"], bad)))
    assert forth.low > 0 and forth.value == pytest.approx(-back.value)
    assert forth.low == pytest.approx(-back.high)
