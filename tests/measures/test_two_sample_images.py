"""Real or synthetic? The two-sample test by a convolutional network on images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cmri_lib.cohort.slices import Slices
from cmri_lib.measures.fidelity import image_classifier as judge
from cmri_lib.measures.fidelity.two_sample import IMAGE_FOLDS, classified_right, linear, two_sample_of_images
from cmri_lib.measures.statistics.comparison import Embedding, compare
from cmri_lib.training import TrainSettings

SETTINGS = TrainSettings(steps=80, batch=16, learning_rate=5.0e-3)
SIDE, EACH = 24, 4
PIXELS = np.add.outer(np.arange(SIDE), np.arange(SIDE))


def textures(patients: int, seed: int) -> np.ndarray:
    """(N, 1, H, W): smooth random textures under a little noise, `EACH` of every patient."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((2, patients * EACH, SIDE, SIDE))
    return (0.8 * gaussian_filter(noise[0], (0, 1.5, 1.5)) + 0.1 * noise[1]).clip(-1, 1)[:, None].astype(np.float32)


def slices(images: np.ndarray, side: str, each: int = EACH) -> Slices:
    return Slices.from_arrays(images.astype(np.float32), patient=[f"{side}{i // each}" for i in range(len(images))],
                              source=side)


def described(images: np.ndarray, side: str = "", each: int = EACH) -> Embedding:
    return Embedding(images.astype(np.float32), np.array([f"{side}{i // each}" for i in range(len(images))]))


def accuracy(real: Embedding, synthetic: Embedding, learn=judge.image_classifier(SETTINGS)) -> float:
    return float(np.mean([right.mean() for right in classified_right(real, synthetic, learn, IMAGE_FOLDS)]))


def test_halves_of_one_set_are_not_told_apart() -> None:
    row, = compare(slices(textures(16, 0), "r"), slices(textures(16, 1), "s"), two_sample_of_images(SETTINGS), resamples=100,
                   repeats=1)
    assert row["metric"] == "c2st_image" and row["better"] == "lower" and row["ceiling"] == 0.5
    # Errors of cross-validation by patient lean downwards, see `two_sample`: below one half nothing is told apart either.
    assert row["low"] < 0.5 and row["value"] < 0.6 and row["high"] > 0.4 and 0.25 < row["floor"] < 0.65


@pytest.mark.parametrize("fault", [lambda x: (x + 0.3).clip(-1, 1), lambda x: gaussian_filter(x, (0, 0, 0.6, 0.6)),
                                   lambda x: (x + 0.1 * (-1.0) ** PIXELS).clip(-1, 1)], ids=["shift", "blur", "checkerboard"])
def test_faults_are_seen(fault) -> None:
    assert accuracy(described(textures(10, 0), "r"), described(fault(textures(10, 1)), "s")) > 0.9


def test_the_sign_of_correlation_is_seen_where_every_pixel_has_the_same_distribution() -> None:
    noise = np.random.default_rng(0).standard_normal((2, 40, 1, SIDE, SIDE))
    alike, opposed = (0.2 * (part + sign * np.roll(part, 1, -1)) for part, sign in zip(noise, (1, -1)))
    pair = described(alike, "r"), described(opposed, "s")
    assert accuracy(*pair) > 0.95
    flat = [Embedding(e.values.reshape(len(e.values), -1), e.patients) for e in pair]
    assert accuracy(*flat, linear) < 0.7, "a linear classifier of pixels is blind to it"


def waves(patients: int, seed: int) -> list[np.ndarray]:
    """For either side: every patient has one wave of its own, unlike in the two, in all of its `EACH` slices."""
    rng = np.random.default_rng(seed)
    vectors = rng.permutation([(a, b) for a in range(0, 6) for b in range(0, 6) if a + b > 1])[:2 * patients]
    y, x = np.mgrid[:SIDE, :SIDE]
    angles = rng.uniform(0, 2 * np.pi, (2, patients, EACH, 1, 1))
    phases = 2 * np.pi * (vectors[:, 0, None, None] * y + vectors[:, 1, None, None] * x) / SIDE
    pattern = np.cos(phases.reshape(2, patients, 1, SIDE, SIDE) + angles)
    return list((0.6 * pattern).reshape(2, patients * EACH, 1, SIDE, SIDE))


def test_what_is_known_of_a_patient_does_not_help() -> None:
    real, synthetic = waves(9, 0)
    long = judge.image_classifier(TrainSettings(150, 16, learning_rate=1.0e-2))
    by_patient = accuracy(described(real), described(synthetic), long)
    by_slice = accuracy(described(real, "r", 1), described(synthetic, "s", 1), long)
    assert by_slice > 0.8, "the patients' patterns can be learnt by heart"
    assert by_patient < 0.65, "but not those of patients that are held out on both sides"


def test_order_and_the_global_random_state_play_no_part() -> None:
    real, synthetic = described(textures(6, 0), "r"), described(0.9 * textures(6, 1), "s")
    learn = judge.image_classifier(TrainSettings(20, 8, learning_rate=5.0e-3))
    orders = [np.random.default_rng(k).permutation(len(real.values)) for k in (0, 1)]
    state = torch.get_rng_state()
    first = classified_right(real, synthetic, learn, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    again = classified_right(real.take(orders[0]), synthetic.take(orders[1]), learn, 3)
    assert all(np.array_equal(a[order], b) for a, b, order in zip(first, again, orders))


def test_another_seed_learns_otherwise() -> None:
    images, truth = textures(4, 0), np.arange(4 * EACH) % 2
    answers = [judge.image_classifier(TrainSettings(5, 4, seed=seed))(images, truth)(images) for seed in range(4)]
    assert len({tuple(a) for a in answers}) > 1 and set(np.concatenate(answers)) <= {0, 1}


def test_jitter_moves_whole_pixels_only() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(-1, 1, 16).expand(8, 1, 16, 16) * 1.0
    moved = judge.jitter(ramp)
    gaps = moved[..., 1:] - moved[..., :-1]
    inner = gaps[..., 2:-2].abs()
    assert moved.shape == ramp.shape and (gaps > 0).any() and (gaps < 0).any(), "some are mirrored"
    assert (inner.amax(-1) - inner.amin(-1)).max() < 1e-5, "a ramp stays a ramp"
