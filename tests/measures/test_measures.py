"""Feature spaces, Fréchet distance, KID and cost: closed forms first, then MONAI and torchmetrics."""

from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from monai.metrics import FIDMetric
from sklearn.metrics.pairwise import polynomial_kernel
from torch import nn
from torchmetrics.image.kid import KernelInceptionDistance

from cmri_lib.cohort.slices import concatenate
from cmri_lib.errors import DataError, SplitError
from cmri_lib.measures.cost import cost, log_time_ratio, memory_for_gradient, peak_memory, seconds_per_image
from cmri_lib.measures.fidelity.distances import KernelDistance, distances, frechet_from_moments, moments
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures, gabor_bank
from cmri_lib.measures.instruments.learned_features import Cached, degrade, train_features
from cmri_lib.measures.statistics.comparison import compare, floors, patient_partition
from cmri_lib.training import TrainSettings
from conftest import discs

SHORT = TrainSettings(steps=3, batch=4, warmup=1)


def correlated(rng: np.random.Generator, n: int, dimension: int, shift: float = 0.0) -> np.ndarray:
    mixing = np.random.default_rng(9).standard_normal((dimension, dimension)) / np.sqrt(dimension)
    return rng.standard_normal((n, dimension)) @ mixing + shift


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    return frechet_from_moments(moments(first), moments(second))


def kernel_distance(first: np.ndarray, second: np.ndarray, *groups: np.ndarray) -> float:
    return KernelDistance(first, second, *groups)(np.ones(len(first)), np.ones(len(second)))


# Fréchet distance

def test_frechet_of_diagonal_gaussians_is_the_closed_form():
    mean, first, second = np.array([1.0, -2.0, 0.5]), np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 0.0])
    expected = (mean**2).sum() + ((np.sqrt(first) - np.sqrt(second))**2).sum()
    got = frechet_from_moments((np.zeros(3), np.diag(first)), (mean, np.diag(second)))
    assert got == pytest.approx(expected, rel=1e-12)


def test_frechet_of_gaussians_of_one_shape_is_the_closed_form_in_any_axes():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((6, 6))
    covariance = root @ root.T
    # Σ₂ = 9 Σ₁ commutes with Σ₁: the trace term is (3 − 1)² tr Σ₁.
    got = frechet_from_moments((np.zeros(6), covariance), (np.ones(6), 9 * covariance))
    assert got == pytest.approx(6 + 4 * np.trace(covariance), rel=1e-10)


def test_frechet_of_large_samples_tends_to_the_closed_form():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((200_000, 3)), rng.standard_normal((200_000, 3)) * [1, 2, 3] + [1, 0, -1]
    assert frechet_distance(x, y) == pytest.approx(2 + 0 + 1 + 4, rel=0.01)


def test_frechet_agrees_with_monai():
    rng = np.random.default_rng(2)
    x, y = correlated(rng, 300, 16), correlated(rng, 250, 16, 0.3)
    other = float(FIDMetric()(torch.from_numpy(x), torch.from_numpy(y)))
    assert frechet_distance(x, y) == pytest.approx(other, rel=1e-6)


def test_moments_with_counts_are_those_of_the_repeated_rows():
    rng = np.random.default_rng(3)
    x, counts = correlated(rng, 40, 5), rng.integers(0, 4, 40)
    for ours, plain in zip(moments(x, counts), moments(np.repeat(x, counts, axis=0))):
        np.testing.assert_allclose(ours, plain, atol=1e-12)


def test_an_empty_set_is_refused():
    real = discs(4, 4)
    with pytest.raises(DataError, match="0 images"):
        compare(real, real.where(vendor="no such vendor"), distances(ClassicalFeatures()))


# KID

def test_kid_is_the_u_statistic_of_the_cubic_kernel():
    rng = np.random.default_rng(5)
    x, y = correlated(rng, 60, 8), correlated(rng, 60, 8, 0.4)

    def within(a):
        kernel = polynomial_kernel(a, degree=3, gamma=1 / 8, coef0=1)
        return (kernel.sum() - np.trace(kernel)) / (60 * 59)

    expected = within(x) + within(y) - 2 * polynomial_kernel(x, y, degree=3, gamma=1 / 8, coef0=1).mean()
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-10)


def test_kid_agrees_with_torchmetrics():
    rng = np.random.default_rng(6)
    x, y = correlated(rng, 80, 12).astype(np.float32), correlated(rng, 80, 12, 0.5).astype(np.float32)
    identity = nn.Identity().eval()
    identity.num_features = 12
    metric = KernelInceptionDistance(feature=identity, subsets=1, subset_size=80)
    metric.update(torch.from_numpy(x), real=True)
    metric.update(torch.from_numpy(y), real=False)
    assert kernel_distance(x.astype(float), y.astype(float)) == pytest.approx(float(metric.compute()[0]), rel=1e-4)


def test_kid_is_unbiased_for_correlated_slices_only_when_pairs_within_a_patient_are_left_out():
    rng = np.random.default_rng(7)
    groups = [np.char.add(side, np.repeat(np.arange(10), 6).astype(str)) for side in "ab"]
    apart, textbook = [], []
    for _ in range(200):
        x, y = (np.repeat(correlated(rng, 10, 8), 6, axis=0) + 0.3 * rng.standard_normal((60, 8)) for _ in range(2))
        apart.append(kernel_distance(x, y, *groups))
        textbook.append(kernel_distance(x, y))
    error = np.std(apart) / np.sqrt(200)
    assert abs(np.mean(apart)) < 3 * error
    assert np.mean(textbook) > 5 * error


# Fidelity of slices

def test_rows_read_right_a_shifted_set_is_worse_than_the_floor():
    real, training = discs(10, 8, seed=1, split="test"), discs(20, 8, seed=2)
    blurred = discs(10, 8, seed=3, split="other")
    blurred = type(blurred)((blurred.images + np.roll(blurred.images, 1, -1)) / 2, blurred.masks, blurred.table)
    honest = discs(10, 8, seed=4, split="honest")
    options = {"reference_real": discs(10, 8, seed=5, split="holdout"), "training": training, "resamples": 40}
    rows = {name: compare(real, s, distances(ClassicalFeatures()), **options)
            for name, s in (("bad", blurred), ("good", honest))}
    for bad, good in zip(rows["bad"], rows["good"]):
        assert bad["metric"] in ("frechet_classical", "kid_classical") and bad["n"] == 80
        assert bad["low"] <= bad["value"] <= bad["high"]
        assert bad["low"] > bad["floor"], "blur is seen"
        assert good["low"] < good["floor"] < good["high"], "honest samples reach the floor"
        assert bad["ceiling"] < bad["low"], "copies would score like real patients"


def test_floor_never_puts_a_patient_on_both_sides():
    patients = np.repeat([f"p{i}" for i in range(11)], [3, 9, 4, 4, 7, 2, 5, 5, 6, 3, 8])
    for seed in range(20):
        first, second = patient_partition(patients, (20, 12), np.random.default_rng(seed))
        assert (len(first), len(second)) == (20, 12)
        assert not set(patients[first]) & set(patients[second])
    first, second = patient_partition(patients, (100, 100), np.random.default_rng(0))
    assert min(len(first), len(second)) > 15, "too few slices shrink both sides"
    few = np.repeat(list("abcd"), [10, 20, 15, 27])
    for seed in range(20):
        groups = patient_partition(few, (36, 36), np.random.default_rng(seed))
        assert [len(set(few[group])) for group in groups] == [2, 2], "of one patient nothing can be held out"
    often = np.repeat([f"p{i}" for i in range(12)], [18] * 6 + [80] * 6)  # some were scanned by every vendor
    for seed in range(20):
        _, second = patient_partition(often, (300, 78), np.random.default_rng(seed))
        counts = np.unique(often[second], return_counts=True)[1]
        assert len(second) == 78 and len(counts) >= 2 and (len(counts) == 2 or counts.max() < 78 / 2)


def test_overlap_of_real_sets_is_refused():
    real = discs(4, 4)
    with pytest.raises(SplitError, match="patients are in both"):
        floors(real, 8, distances(ClassicalFeatures()), reference_real=real)


# Feature spaces

def test_classical_features_ignore_brightness_in_energies_and_are_deterministic():
    images = discs(3, 4).images
    features = ClassicalFeatures()
    first = features(images)
    assert first.shape == (12, features.dimension) and first.dtype == np.float64
    np.testing.assert_array_equal(first, features(images))
    brighter = features(images + np.float32(0.25))
    np.testing.assert_allclose(brighter[:, :48], first[:, :48], atol=1e-2)
    # In each cell a shift of intensity adds 0.25 × 5 to mean and percentiles and nothing to the deviation.
    moved = (brighter - first)[:, 48:].reshape(12, 4, 4).mean((0, 2))
    np.testing.assert_allclose(moved, [1.25, 0, 1.25, 1.25], atol=1e-4)


def test_gabor_filters_answer_to_their_own_direction():
    bank = gabor_bank(32)
    np.testing.assert_allclose(bank[:, 0, 0], 0, atol=1e-7)
    stripes = np.cos(0.75 * np.pi * np.arange(32))[None, :].repeat(32, 0)
    answer = np.abs(np.fft.ifft2(np.fft.fft2(stripes) * bank)).mean((1, 2))
    assert answer.argmax() == 0, "stripes along x at the finest scale"


def test_degradation_of_strength_nought_changes_nothing():
    images = torch.rand(64, 1, 16, 16)
    damaged, strength = degrade(images)
    untouched = (strength == 0).all(1)
    assert 0 < untouched.sum() < 40 and strength.min() >= 0 and strength.max() <= 1
    torch.testing.assert_close(damaged[untouched], images[untouched])
    assert (damaged[~untouched] - images[~untouched]).abs().amax((1, 2, 3)).min() > 0


def test_extractor_is_repeatable_named_by_its_weights_and_whitened(tmp_path):
    training = discs(10, 8)
    first = train_features(training, SHORT, tmp_path / "a")
    again = train_features(training, SHORT, tmp_path / "b")
    other = train_features(training, TrainSettings(steps=4, batch=4, warmup=1), tmp_path / "c")
    assert first.fingerprint == again.fingerprint != other.fingerprint
    features = first(training.images)
    assert features.shape == (80, 64) and features.dtype == np.float64
    np.testing.assert_array_equal(features, again(training.images))
    assert not first.encoder.training and not any(p.requires_grad for p in first.encoder.parameters())
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-6)
    assert np.linalg.eigvalsh(np.cov(features.T)).max() < 1.01
    # What an image gets must not depend on the images beside it.
    np.testing.assert_allclose(first(training.images[:1]), features[:1], atol=1e-3)


@pytest.mark.parametrize("change", [{"split": "test"}, {"source": "U10 OT-FM"}])
def test_extractor_refuses_all_but_real_training_patients(tmp_path, change):
    bad = concatenate([discs(3, 4), discs(1, 4, seed=1).with_columns(**change)])
    with pytest.raises(SplitError, match="feature extractor"):
        train_features(bad, SHORT, tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_image_is_described_once():
    calls = []
    remembered = Cached(lambda images: calls.append(len(images)) or images.mean((1, 2, 3)))
    images = discs(2, 3).images
    np.testing.assert_array_equal(remembered(images[:4]), images[:4].mean((1, 2, 3)))
    np.testing.assert_array_equal(remembered(images[::-1].copy()), images[::-1].mean((1, 2, 3)))
    assert calls == [4, 2]
    space = Cached(ClassicalFeatures())
    assert (space.name, space.dimension) == (ClassicalFeatures().name, ClassicalFeatures().dimension)


# Cost

def test_cost_counts():
    network = nn.Linear(3, 2)
    drawn = []
    rows = {r["metric"]: r for r in cost(drawn.append, network, images=5, evaluations=20, images_seen=800, images_before=300,
                                         training_seconds=1.5, repeats=2)}
    assert drawn == [5, 5, 5], "one call to warm up, two measured"
    assert rows["parameters"]["value"] == 8 and rows["nfe"]["value"] == 20 and rows["images_seen"]["value"] == 800
    assert rows["images_before"]["value"] == 300
    assert rows["training_seconds"]["value"] == 1.5 and rows["seconds_per_image"]["n"] == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there the GPU's allocator is asked")
def test_peak_memory_is_at_least_what_the_process_holds_and_of_its_order():
    held = psutil.Process().memory_info().rss / 2**30
    assert 0.95 * held < peak_memory(torch.device("cpu")) < 20 * held


def test_memory_for_a_gradient_is_that_of_the_activations_each_once() -> None:
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    images = torch.randn(32, 8)
    # The images, for the first layer's gradient, and what ReLU gives: kept by ReLU and by the second layer. No weights.
    found = memory_for_gradient(lambda: network(images).sum(), network)
    assert found * 2**20 == 4 * 32 * (8 + 16)
    with torch.no_grad():
        assert memory_for_gradient(lambda: network(images[:1]).sum(), network) * 2**20 == 4 * 32 * 8 + 4 * 16


def test_seconds_per_image_are_the_median_of_unequal_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, takes = [0.0], iter([1000.0, 4.0, 40.0, 12.0])

    def sample(images: int) -> None:
        clock[0] += next(takes)

    monkeypatch.setattr("cmri_lib.measures.cost.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    score = seconds_per_image(sample, images=4, repeats=3)
    assert (score.value, score.low, score.high, score.n) == (3.0, 1.0, 10.0, 3), "the first call, which warms up, apart"


def test_ratio_of_times_is_that_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("cmri_lib.measures.cost.time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def worker(seconds):
        def work(images: int) -> None:
            clock[0] += images * seconds
        return work

    score = log_time_ratio(worker(0.004), worker(0.001), images=2, repeats=5, times=10)
    assert score.value == pytest.approx(np.log10(40)) and score.low == pytest.approx(score.high) and score.n == 5
