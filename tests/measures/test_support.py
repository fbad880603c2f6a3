"""Precision, recall, density, coverage: known answers, brute force, the reference implementation where installed."""

import numpy as np
import pytest
from prdc import compute_prdc

from cmri_lib.errors import DataError
from cmri_lib.measures.fidelity.support import pairwise_distances, radii, support, support_statistics
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.statistics.comparison import Embedding, compare, differences
from conftest import discs

NAMES = ("precision", "recall", "density", "coverage")


def own_patients(values: np.ndarray, side: str) -> Embedding:
    return Embedding(values, np.array([f"{side}{i}" for i in range(len(values))]))


def four(real: np.ndarray, fake: np.ndarray, k: int = 5) -> dict[str, float]:
    statistics = support_statistics(own_patients(real, "r"), own_patients(fake, "f"), k)
    return {n: s(np.ones(len(real), int), np.ones(len(fake), int)) for n, s in zip(NAMES, statistics)}


def brute_force(real: np.ndarray, fake: np.ndarray, k: int) -> dict[str, float]:
    def radius(points, i):
        return sorted(np.linalg.norm(points[i] - p) for j, p in enumerate(points) if j != i)[k - 1]

    real_radius = [radius(real, i) for i in range(len(real))]
    fake_radius = [radius(fake, i) for i in range(len(fake))]
    inside = [[np.linalg.norm(f - r) <= d for r, d in zip(real, real_radius)] for f in fake]
    return {"precision": np.mean([any(row) for row in inside]),
            "recall": np.mean([any(np.linalg.norm(r - f) <= d for f, d in zip(fake, fake_radius)) for r in real]),
            "density": np.sum(inside) / (k * len(fake)), "coverage": np.mean(np.any(inside, axis=0))}


def clouds(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((60, 4)), rng.standard_normal((45, 4)) * 0.8 + 0.3


@pytest.mark.parametrize("k", [1, 3, 5])
def test_agrees_with_brute_force(k):
    real, fake = clouds()
    assert four(real, fake, k) == pytest.approx(brute_force(real, fake, k), abs=1e-12)


def test_agrees_with_the_reference_implementation():
    real, fake = clouds(1)
    assert four(real, fake) == pytest.approx(compute_prdc(real, fake, nearest_k=5), abs=1e-6)


def test_identical_sets_cover_each_other_and_disjoint_ones_do_not():
    real, _ = clouds(2)
    same = four(real, real.copy())
    assert same["precision"] == same["recall"] == same["coverage"] == 1
    # Each ball holds its centre and its k neighbours: (k + 1) / k.
    assert same["density"] == pytest.approx(6 / 5)
    assert four(real, real + 1000) == dict.fromkeys(NAMES, 0.0)


def test_collapse_costs_recall_and_coverage_not_precision():
    real, _ = clouds(3)
    collapsed = four(real, np.repeat(real[:1], 40, 0) + 1e-3 * np.random.default_rng(0).standard_normal((40, 4)))
    assert collapsed["precision"] == 1 and collapsed["recall"] < 0.1 and collapsed["coverage"] < 0.35


def test_neighbours_are_sought_among_other_patients():
    values = np.array([[0.0], [0.1], [5.0], [5.2], [9.0]])
    patients = np.array(["a", "a", "b", "b", "c"])
    np.testing.assert_allclose(radii(values, patients, 1), [5.0, 4.9, 4.0, 3.8, 3.8])
    with pytest.raises(DataError, match="of other patients"):
        radii(values, np.array(["a"] * 5), 1)


def test_counts_act_like_repeated_slices_within_fixed_balls():
    rng, (real, fake) = np.random.default_rng(4), clouds(4)
    u, v = rng.integers(0, 3, 60), rng.integers(0, 3, 45)
    statistics = dict(zip(NAMES, support_statistics(own_patients(real, "r"), own_patients(fake, "f"))))
    inside = pairwise_distances(real, fake) <= radii(real, np.arange(60))[:, None]
    assert statistics["precision"](u, v) == pytest.approx(np.repeat(inside.any(0), v).mean())
    assert statistics["coverage"](u, v) == pytest.approx(np.repeat(inside.any(1), u).mean())
    repeated = np.repeat(np.repeat(inside, u, 0), v, 1)
    assert statistics["density"](u, v) == pytest.approx(repeated.mean() * 60 / 5)


def test_rows_have_floor_and_ceiling_and_differences_are_paired():
    real, honest = discs(10, 6, seed=1, split="test"), discs(10, 6, seed=4, split="honest")
    torn = type(honest)(np.ascontiguousarray(honest.images[..., ::-1]), honest.masks, honest.table)
    measure = support(ClassicalFeatures())
    rows = compare(real, honest, measure, reference_real=discs(10, 6, seed=5, split="holdout"),
                   training=discs(12, 6, seed=2), resamples=40, repeats=4)
    assert [r["metric"] for r in rows] == [f"{n}_classical" for n in NAMES]
    for row in rows:
        assert row["n"] == 60 and row["better"] == "higher" and row["low"] <= row["value"] <= row["high"]
        assert row["floor"] > 0.3 and row["ceiling"] > 0.3, "hold-out and training patients are like the real ones"
    apart = differences(real, honest, torn, measure, resamples=40)
    assert apart["coverage_classical"].low > 0, "mirrored hearts cover less"
    same = differences(real, honest, honest, measure, resamples=20)["recall_classical"]
    assert same.value == same.low == same.high == 0
