"""The bounded kernel distance against closed forms and an independent implementation; the spaces it looks through."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import discs
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import NearestNeighbors

from cmri_lib.errors import DataError, SplitError
from cmri_lib.measures.fidelity.corruptions import torn
from cmri_lib.measures.fidelity.distances import (KernelDistance, bounded_distance, cubic_kernel, median_distance,
                                                  radial_kernel)
from cmri_lib.measures.fidelity.textbook import textbook, textbook_statistics
from cmri_lib.measures.instruments.certainty import HeartCertainty
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.instruments.principal_features import (PrincipalFeatures, anatomy_features, bottleneck,
                                                              component_features, reduced)
from cmri_lib.measures.instruments.segmenter import Segmenter
from cmri_lib.measures.statistics.comparison import Embedding
from cmri_lib.networks.segmentation import SegmentationUNet

RNG = np.random.default_rng(0)


def ones(*sets: np.ndarray) -> list[np.ndarray]:
    return [np.ones(len(s)) for s in sets]


def test_the_kernel_is_the_mean_of_three_gaussians() -> None:
    x, y = RNG.normal(size=(20, 5)), RNG.normal(1, 2, (30, 5))
    expected = np.mean([rbf_kernel(x, y, 1 / (2 * (s * 1.7) ** 2)) for s in (1, 2, 4)], axis=0)
    np.testing.assert_allclose(radial_kernel(x, y, 1.7), expected, rtol=1e-10)
    assert (radial_kernel(x, 1e6 * y, 1.7) == 0).all() and np.allclose(np.diag(radial_kernel(x, x, 1.7)), 1)


def test_the_scale_is_the_median_over_pairs_of_different_patients() -> None:
    x, patients = RNG.normal(size=(30, 4)), np.repeat(list("abcde"), 6)
    pairs = [np.linalg.norm(x[i] - x[j]) for i in range(30) for j in range(i) if patients[i] != patients[j]]
    assert median_distance(x, patients) == pytest.approx(np.median(pairs), rel=1e-10)
    for bad in (np.repeat("a", 30), patients):
        with pytest.raises(DataError, match="do not differ"):
            median_distance(x if bad is not patients else 0 * x, bad)


def test_the_distance_of_gaussians_is_the_closed_form() -> None:
    """E k(x, y) of a Gaussian kernel between N(a, I) and N(b, I) in D dimensions is
    (σ²/(σ² + 2))^{D/2} exp(−|a − b|² / 2(σ² + 2))."""
    scale, shift, dimension = 0.7, 1.5, 2

    def expected(distance: float) -> float:
        squares = (scale * np.array([1, 2, 4])) ** 2
        return float(np.mean((squares / (squares + 2)) ** (dimension / 2) * np.exp(-distance**2 / (2 * (squares + 2)))))

    truth = 2 * expected(0) - 2 * expected(shift)
    found = []
    for _ in range(40):
        x, y = RNG.normal(size=(150, dimension)), RNG.normal(size=(150, dimension)) + [shift, 0]
        found.append(KernelDistance(x, y, kernel=lambda a, b: radial_kernel(a, b, scale))(*ones(x, y)))
    assert np.mean(found) == pytest.approx(truth, abs=4 * np.std(found) / np.sqrt(40)) and truth > 0.1


def test_pairs_within_a_patient_are_left_out_and_equal_sets_are_at_nought() -> None:
    found = []
    for _ in range(60):  # patients far apart, slices of one close together: the textbook form would be biased
        x, y = (np.repeat(RNG.normal(size=(10, 3)), 5, 0) + 0.1 * RNG.normal(size=(50, 3)) for _ in range(2))
        groups = np.repeat([f"x{i}" for i in range(10)], 5), np.repeat([f"y{i}" for i in range(10)], 5)
        found.append([KernelDistance(x, y, *names, lambda a, b: radial_kernel(a, b, 2.0))(*ones(x, y))
                      for names in (groups, (None, None))])
    ours, plain = np.transpose(found)
    assert abs(ours.mean()) < 3 * ours.std() / np.sqrt(60) and plain.mean() > 5 * plain.std() / np.sqrt(60)


def test_an_outlier_weighs_no_more_than_any_other_sample() -> None:
    x, y = RNG.normal(size=(100, 4)), RNG.normal(size=(100, 4))
    far = y.copy()
    far[0] = 1e4
    before, after = (KernelDistance(x, s, kernel=lambda a, b: radial_kernel(a, b, 2.0))(*ones(x, s)) for s in (y, far))
    assert abs(after - before) < 0.05
    assert abs(KernelDistance(x, far, kernel=cubic_kernel)(*ones(x, far))) > 1e6, "what the cubic kernel makes of it"


def test_the_measure_takes_its_scale_from_training() -> None:
    training, real = discs(8, 3), discs(8, 3, seed=1, split="test")
    measure, features = bounded_distance(ClassicalFeatures(), training), ClassicalFeatures()
    scale = median_distance(features(training.images), training.patients)
    shuffled = torn(real, 1.0, np.random.default_rng(0))
    x, y = measure.of(real=real, shuffled=shuffled)
    expected = KernelDistance(x.values, y.values, x.patients, y.patients, lambda a, b: radial_kernel(a, b, scale))
    assert measure.values(x, y) == {"mmd_classical": pytest.approx(expected(*ones(x.values, y.values)))}
    with pytest.raises(SplitError, match="scale"):
        bounded_distance(ClassicalFeatures(), real)


def test_principal_features_are_those_of_scikit_learn() -> None:
    training, real = discs(10, 4), discs(4, 4, seed=1, split="test")
    space = PrincipalFeatures("some", reduced, training, components=7)
    pca = PCA(7, svd_solver="full").fit(reduced(training.images))
    np.testing.assert_allclose(np.abs(space(real.images)), np.abs(pca.transform(reduced(real.images))), atol=1e-6)
    assert space.dimension == 7 and component_features(training).dimension == 39, "no more than the slices span"
    with pytest.raises(SplitError):
        PrincipalFeatures("some", reduced, real)


def test_the_bottleneck_keeps_its_layout() -> None:
    segmenter = Segmenter(SegmentationUNet(4, (8, 16, 24, 32)), 0)
    images = discs(2, 2, size=64).images
    found = bottleneck(segmenter, images).reshape(4, 32, 4, 4)
    x, maps = images, []
    segmenter.network.down[-1].register_forward_hook(lambda module, inputs, output: maps.append(output.numpy()))
    segmenter(x)  # the whole network passes through the same map
    np.testing.assert_allclose(found, maps[0].reshape(4, 32, 4, 2, 4, 2).mean((3, 5)), atol=1e-5)
    assert anatomy_features(segmenter, discs(4, 2, size=64)).name == "anatomy"


def test_certainty_is_the_mean_probability_inside_the_heart() -> None:
    segmenter, images = Segmenter(SegmentationUNet(4, (8, 16)), 0), discs(3, 2).images
    probability = torch.softmax(segmenter.network(torch.from_numpy(images)), 1).numpy()
    inside = probability.argmax(1) > 0
    expected = [p.max(0)[at].mean() if at.any() else 0 for p, at in zip(probability, inside)]
    np.testing.assert_allclose(HeartCertainty(segmenter)(images), expected, atol=1e-6)
    with torch.no_grad():
        segmenter.network.head.bias[0] = 1e3  # nothing but background
    assert not HeartCertainty(segmenter)(images).any()


def textbook_prdc(real: np.ndarray, fake: np.ndarray, k: int) -> list[float]:
    """Kynkäänniemi et al. 2019 and Naeem et al. 2020 with scikit-learn's neighbours."""
    reach = [NearestNeighbors(n_neighbors=k + 1).fit(s).kneighbors(s)[0][:, k] for s in (real, fake)]
    apart = np.linalg.norm(real[:, None] - fake[None], axis=2)
    inside = apart < reach[0][:, None]
    return [inside.any(0).mean(), (apart < reach[1][None]).any(1).mean(), inside.sum() / k / len(fake), inside.any(1).mean()]


def test_textbook_forms_ignore_patients() -> None:
    real, fake = RNG.normal(size=(60, 6)), RNG.normal(0.4, 0.8, (50, 6))
    sets = [Embedding(s, np.repeat(["a", "b"], len(s) // 2)) for s in (real, fake)]  # two patients: our own form would fail
    kid, *support = (s(*ones(real, fake)) for s in textbook_statistics(*sets))
    k = [cubic_kernel(a, b) for a, b in ((real, real), (fake, fake), (real, fake))]
    for square in k[:2]:
        np.fill_diagonal(square, 0)
    expected = k[0].sum() / (60 * 59) + k[1].sum() / (50 * 49) - 2 * k[2].mean()
    assert kid == pytest.approx(expected, rel=1e-10)
    np.testing.assert_allclose(support, textbook_prdc(real, fake, 5), rtol=1e-8)
    names = [m.name for m in textbook(ClassicalFeatures()).metrics]
    assert names == [f"{name}_textbook_classical"
                     for name in ("kid", "precision", "recall", "density", "coverage")]
