"""Copies are found where they are planted, in whatever disguise, and not where there are none."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clouds import First, cloud
from scipy import ndimage

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.errors import DataError, ParameterError, SplitError
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.privacy.attack import PatientScores, Sides, auc, score_of
from cmri_lib.privacy.controls import (DISGUISES, EXACT, Controls, blind_scores, null_sides, planted_copies, separation)
from cmri_lib.privacy.copies import CopyAudit, Described, cluster_scores
from cmri_lib.privacy.copy_detector import CopySpace, CopyTraining, Disguise, contrastive_loss, train_copy_detector
from cmri_lib.privacy.nearest_neighbours import Pixels
from cmri_lib.training import TrainSettings
from conftest import discs


RNG = np.random.default_rng(0)


def normal(count):
    return np.clip(0.2 * RNG.normal(size=(count, 2)), -1, 1)


TRAINING, HOLDOUT = cloud(normal(400), "t", 4), cloud(normal(400), "h", 4, "holdout")
HONEST = cloud(normal(300), "s", split="test")
OTHERS = cloud(normal(400), "o", 4, "validation")
COPIED = cloud(First()(TRAINING.images)[:300] + 0.0002 * RNG.normal(size=(300, 2)), "c", split="test")
HONEST_AUDIT, COPIED_AUDIT = (CopyAudit(s, TRAINING, HOLDOUT, OTHERS, First(), resamples=200)
                              for s in (HONEST, COPIED))


def test_nearest_with_strangers_is_brute_force():
    a = Described(RNG.normal(size=(30, 3)), np.repeat(np.arange(10), 3))
    distance, index = a.nearest(a, strangers=True)
    between = np.linalg.norm(a.rows[:, None] - a.rows[None], axis=2)
    between[a.patients[:, None] == a.patients[None]] = np.inf
    np.testing.assert_array_equal(index, between.argmin(1))
    np.testing.assert_allclose(distance, between.min(1))
    assert (a.nearest(a)[0] == 0).all()


@pytest.mark.parametrize("name", ["near_copies", "near_copy_excess", "swapped_share", "authenticity",
                                  "neighbour_ratio", "privacy_loss",
                                  "data_copying", "concentration"])
def test_honest_samples_score_the_floor_and_copies_the_ceiling(name):
    honest, copied = (getattr(audit, name)() for audit in (HONEST_AUDIT, COPIED_AUDIT))
    assert abs(honest.value - honest.floor) < {"near_copies": 0.01, "concentration": 0.02, "data_copying": 2.5}.get(name, 0.1)
    assert honest.low <= honest.value <= honest.high
    if name == "data_copying":
        assert copied.high < -5
    elif name == "concentration":
        assert copied.value == pytest.approx(4 / 300)  # each training patient is copied four times
    else:
        # Beside one copy of a tight cloud lie others: hardly any pair is at distance 0 of each other.
        assert abs(copied.value - copied.ceiling) < 0.12, copied


def test_the_threshold_is_below_all_but_the_rate_of_strangers():
    for rate in (0.0, 0.01, 0.1):
        audit = CopyAudit(HONEST, TRAINING, HOLDOUT, OTHERS, First(), rate=rate, resamples=10)
        assert (audit.null < audit.threshold).mean() == pytest.approx(rate, abs=1e-9)


def test_few_copies_among_many_samples_are_told_from_none():
    few = concatenate([HONEST.take(range(264)), COPIED.take(range(0, 288, 8))])  # 12 %
    audit = CopyAudit(few, TRAINING, HOLDOUT, OTHERS, First(), resamples=200)
    rate = audit.near_copies()
    assert rate.low > audit.rate and rate.value == pytest.approx(0.12, abs=0.03)
    assert set(audit.closest(30)["sample"]) <= set(range(264, 300))
    assert audit.closest(3)["p"].max() <= 2 / 401
    one = CopyAudit(concatenate([HONEST, COPIED.take([7])]), TRAINING, HOLDOUT, OTHERS, First(), resamples=10)
    assert one.suspects[300] and one.closest(1).iloc[0]["training"] == 7


def test_swapping_takes_away_what_the_sizes_of_the_sides_do():
    """Training is eight times as large as the hold-out, so that most samples lie nearest to it: the share is still one half."""
    plain, swapped, covered = [], [], []
    for seed in range(20):
        few = cloud(normal(48), f"h{seed}-", 4, "holdout")
        audit = CopyAudit(cloud(normal(100), f"s{seed}-", split="test"), TRAINING, few, OTHERS, First(),
                          resamples=100)
        plain.append((audit.distance < audit.samples.nearest(audit.holdout)[0]).mean())
        share = audit.swapped_share()
        swapped.append(share.value)
        covered.append(share.low < 0.5 < share.high)
    assert np.mean(plain) > 0.8 and np.mean(swapped) == pytest.approx(0.5, abs=0.05) and np.mean(covered) > 0.8


def test_samples_near_everybody_are_no_copies():
    """Samples in the dense middle of both sides are near copies by the threshold, but of strangers as well."""
    rates, excesses = [], []
    for seed in range(15):
        training, strangers = cloud(normal(200), f"a{seed}-", 4), cloud(normal(200), f"b{seed}-", 4,
                                                                        "holdout")
        middle = cloud(0.05 * RNG.normal(size=(100, 2)), f"m{seed}-", split="test")
        audit = CopyAudit(middle, training, strangers, OTHERS, First(), rate=0.2, resamples=5)
        rates.append(audit.near_copies().value)
        excesses.append(audit.near_copy_excess().value)
    assert np.mean(rates) > 0.3 and abs(np.mean(excesses)) < 0.1


def test_a_cluster_around_one_patient_is_seen():
    around = cloud(np.repeat(First()(TRAINING.images)[:1], 60, 0) + 1e-4 * RNG.normal(size=(60, 2)), "k",
                   split="test")
    found = CopyAudit(concatenate([HONEST, around]), TRAINING, HOLDOUT, OTHERS, First(),
                      resamples=50).concentration()
    assert found.value >= 60 / 360 and found.low > found.floor
    scores = cluster_scores(COPIED, Sides(TRAINING.take(range(300)), HOLDOUT), First())
    assert auc(scores.members, scores.nonmembers) > 0.9
    null = score_of(cluster_scores(HONEST, Sides(TRAINING, HOLDOUT), First()), resamples=200)
    assert null.low < 0.5 < null.high
    assert scores.members.sum() * 4 + scores.nonmembers.sum() * 4 == pytest.approx(300)


def test_what_cannot_be_audited_is_refused():
    with pytest.raises(SplitError):
        CopyAudit(HONEST, TRAINING, TRAINING, OTHERS, First())
    with pytest.raises(SplitError):
        CopyAudit(HONEST, TRAINING, HOLDOUT, HOLDOUT, First())
    with pytest.raises(DataError, match="one patient"):
        CopyAudit(HONEST, TRAINING, HOLDOUT.take(range(4)), OTHERS, First())
    with pytest.raises(ParameterError, match="choose among"):
        planted_copies(TRAINING, "moustache", 3)


# --- the detector
def test_the_contrastive_loss_is_that_of_its_formula():
    first, second = (F.normalize(torch.randn(5, 3), dim=1) for _ in range(2))
    both, total = torch.cat([first, second]), 0.0
    for i in range(10):
        partner = (i + 5) % 10
        logits = (both @ both[i] / 0.2).exp()
        total -= torch.log(logits[partner] / (logits.sum() - logits[i])) / 10
    assert float(contrastive_loss(first, second, 0.2)) == pytest.approx(float(total), rel=1e-5)


def test_a_disguise_of_nothing_changes_nothing_and_others_are_drawn_for_each_image():
    images = torch.from_numpy(discs(1, 4).images)
    still = Disguise(0, 0, 0, 0, 0, 0)
    torch.manual_seed(3)
    same = still(images)
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = ((same - images) * (blurred - images)).sum((1, 2, 3)) / (blurred - images).square().sum((1, 2, 3))
    torch.testing.assert_close(same, torch.lerp(images, blurred, share.view(-1, 1, 1, 1)), atol=1e-4, rtol=0)
    twice = Disguise()(images[:1].repeat(6, 1, 1, 1))
    assert len({tuple(x.flatten()[:50].tolist()) for x in twice}) == 6 and twice.abs().max() <= 1


def test_planted_copies_are_disguised_as_they_say():
    training = discs(6, 4)
    for disguise in DISGUISES:
        copies = planted_copies(training, disguise, 6, seed=1)
        assert copies.images.shape == (6, 1, 32, 32) and np.abs(copies.images).max() <= 1
        assert len(set(copies.patients)) == 6 and not set(copies.patients) & set(training.patients)
    exact = planted_copies(training, EXACT, 6, seed=1)
    _, index = Described(Pixels()(exact.images), exact.patients).nearest(
        Described(Pixels()(training.images), training.patients))
    assert len(set(training.patients[index])) == 6, "a patient was copied twice before another once"
    moved = planted_copies(training, "shift of (3, 2) pixels", 6, seed=1)  # 1.5 and 1 pixels of 32
    np.testing.assert_allclose(moved.images[:, :, 2:, 1:],
                               (exact.images[:, :, 1:-1, :-1] + exact.images[:, :, :-2, :-1]) / 2,
                               atol=1e-4)
    np.testing.assert_array_equal(planted_copies(training, "mirrored", 6, seed=1).images,
                                  exact.images[..., ::-1])


def ramp(by_row, by_column, size=32):
    """(1, 1, size, size) with slopes per pixel, 0 in the middle: bilinear interpolation moves it without error."""
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    return torch.from_numpy(by_row * rows + by_column * columns)[None, None]


@pytest.mark.parametrize(("disguise", "degrees"), [("rotation by 3°", 3), ("rotation by 10°", 10)])
def test_rotations_turn_as_those_of_numpy_do(disguise, degrees):
    """np.rot90 takes the slope along columns (0, 1) to (−1, 0) along rows; the way there is by sine and cosine."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turned = DISGUISES[disguise](ramp(0.01, 0.02))
    expected = ramp(0.01 * cosine - 0.02 * sine, 0.02 * cosine + 0.01 * sine)
    np.testing.assert_allclose(turned[..., 6:-6, 6:-6], expected[..., 6:-6, 6:-6], atol=1e-6)
    np.testing.assert_allclose(np.rot90(ramp(0.01, 0.02)[0, 0]), ramp(-0.02, 0.01)[0, 0])


def test_shifts_go_down_and_right_by_pixels_of_64():
    for disguise, down, right in (("shift of 1 pixel", 0.5, 0), ("shift of (3, 2) pixels", 1.5, 1)):
        moved = DISGUISES[disguise](ramp(0.01, 0.02))
        np.testing.assert_allclose(moved[..., 3:-3, 3:-3], (ramp(0.01, 0.02) - 0.01 * down - 0.02 * right)[..., 3:-3, 3:-3],
                                   atol=1e-6)


def test_gamma_noise_and_blur_are_those_of_their_names():
    images = torch.from_numpy(discs(2, 4, 64).images)
    np.testing.assert_allclose(DISGUISES["gamma 1.4"](images), 2 * ((images + 1) / 2) ** 1.4 - 1, atol=1e-6)
    np.testing.assert_allclose(DISGUISES["blur of 3 pixels"](images),
                               ndimage.uniform_filter(images.numpy(), (1, 1, 3, 3), mode="nearest"), atol=1e-5)
    noise = DISGUISES["noise of 0.05"](images) - images
    assert float(noise.std()) == pytest.approx(0.05, rel=0.05) and abs(float(noise.mean())) < 1e-3
    assert np.corrcoef(noise[:, 0].flatten(1))[0, 1] < 0.1, "every image has noise of its own"


def test_the_slight_disguise_is_a_little_of_each():
    """On a ramp: turned by 3°, shifted by a pixel of 64 down and right, bent by 1.2, with noise of 0.03."""
    cosine, sine = np.cos(np.deg2rad(3)), np.sin(np.deg2rad(3))
    slopes = 0.01 * cosine - 0.02 * sine, 0.02 * cosine + 0.01 * sine
    moved = (ramp(*slopes, 64) - 0.01 - 0.02)[..., 8:-8, 8:-8]
    left = DISGUISES["all but the mirror, slight"](ramp(0.01, 0.02, 64))[..., 8:-8, 8:-8] - 2 * ((moved + 1) / 2) ** 1.2 + 1
    assert float(left.std()) == pytest.approx(0.03, rel=0.05) and abs(float(left.mean())) < 3e-3


def patterns(count, prefix, seed, split="train"):
    """Smooth random images, each of a patient of its own: what tells them apart has no direction."""
    coarse = torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    images = torch.tanh(F.interpolate(coarse, size=32, mode="bicubic")).numpy()
    return Slices.from_arrays(images, patient=[f"{prefix}{i}" for i in range(count)], value_range=(-1, 1),
                              split=split)


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> CopySpace:
    settings = TrainSettings(steps=40, batch=16, optimiser="muon", learning_rate=8e-3, ema=0.9, log_every=40)
    return train_copy_detector(patterns(96, "t", 1), settings, tmp_path_factory.mktemp("copy"))


def test_the_detector_sees_through_a_mirror_where_pixels_do_not(detector):
    training, holdout, others = patterns(96, "t", 1), patterns(96, "h", 2, "holdout"), patterns(48, "o", 3,
                                                                                                "test")
    for disguise, least in (("mirrored", 0.95), ("shift of (3, 2) pixels", 0.2)):
        copies = planted_copies(training, disguise, 96)
        audits = {space.name: CopyAudit(copies, training, holdout, others, space, resamples=10)
                  for space in (detector, Pixels())}
        assert audits["copy"].suspects.mean() > least, disguise
        assert disguise != "mirrored" or audits["pixel"].suspects.mean() < 0.1
    np.testing.assert_allclose(detector(training.images),
                               detector(np.ascontiguousarray(training.images[..., ::-1])), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(detector(training.images), axis=1), 1, atol=1e-5)
    with pytest.raises(SplitError):
        train_copy_detector(holdout, TrainSettings(steps=1), "nowhere")
    assert isinstance(detector.model, CopyTraining) and not any(p.requires_grad
                                                                for p in detector.model.parameters())


def test_honest_samples_are_like_strangers_in_a_space_that_has_learnt_training_by_heart(detector):
    """The detector has seen training alone; samples and strangers are new to it alike, and so no copies are found."""
    training, holdout, others = patterns(96, "t", 1), patterns(96, "h", 2, "holdout"), patterns(96, "o", 3,
                                                                                                "test")
    honest = patterns(96, "s", 4, "validation")
    audit = CopyAudit(honest, training, holdout, others, detector, resamples=200)
    share, excess = audit.swapped_share(), audit.near_copy_excess()
    assert share.low < 0.5 < share.high and excess.low <= 0 <= excess.high and abs(excess.value) < 0.06
    assert audit.learnt and not [row for row in audit.rows() if row["metric"].startswith("privacy_loss")]


# --- controls
def test_the_blind_baseline_finds_a_domain_shift_and_nothing_else():
    alike = score_of(blind_scores(Sides(discs(30, 2, seed=1), discs(30, 2, seed=2, split="holdout")),
                                  Pixels()), resamples=200)
    assert alike.low < 0.5 < alike.high
    other = discs(30, 2, seed=2, split="holdout")
    other = Slices(np.clip(other.images * 0.8 + 0.1, -1, 1).astype(np.float32), other.masks, other.table)
    assert score_of(blind_scores(Sides(discs(30, 2, seed=1), other), Pixels()), resamples=50).low > 0.8


def test_the_null_is_of_two_halves():
    sides = null_sides(HOLDOUT, 3)
    assert len(set(sides.members.patients)) == len(set(sides.nonmembers.patients)) == 50
    assert set(sides.members.patients) | set(sides.nonmembers.patients) == set(HOLDOUT.patients)


def score(value, low, high):
    return Score(value, low, high, 20)


def test_an_audit_that_misses_a_control_is_broken():
    good = {"positive": {"loss": score(0.98, 0.9, 1), "sima": score(0.6, 0.4, 0.8)},
            "null": {"loss": score(0.52, 0.3, 0.7)},
            "blind": score(0.5, 0.4, 0.6), "copies": {EXACT: 1.0, "mirrored": 0.92}}
    sound = Controls(**good)
    assert sound.verdict() == "sound" and sound.strongest == "loss" and sound.power("loss") and not sound.power("sima")
    for change, words in (({"positive": {"loss": score(0.7, 0.6, 0.8)}}, "AUC of 0.70 on the overfitted"),
                          ({"positive": {}}, "no positive control"),
                          ({"null": {"loss": score(0.8, 0.6, 0.9)}}, "tells hold-out patients apart"),
                          ({"blind": score(0.7, 0.6, 0.8)}, "without any generator"),
                          ({"blind": score(0.5, np.nan, np.nan)}, "too few patients"),
                          ({"null": {"loss": score(0.5, np.nan, np.nan)}}, "too few patients"),
                          ({"copies": {EXACT: 0.9}}, "exact, 90% were found"),
                          ({"copies": {"mirrored": 0.85}}, "mirrored, 85% were found, less than 90%")):
        verdict = Controls(**{**good, **change}).verdict()
        assert verdict.startswith("broken") and words in verdict
    assert not sound.power("unknown")


def test_of_attacks_without_error_the_strongest_sets_members_furthest_apart():
    def scores(members, others):
        return PatientScores(np.array(members), np.array(others), np.arange(len(members)), np.arange(len(others)), ("s",))

    assert separation(scores([3.0, 5.0], [0.0, 2.0])) == 3  # means 4 and 1, deviations of 1
    assert separation(scores([3.0, 3.0], [1.0, 1.0])) == np.inf and separation(scores([1.0], [1.0])) == 0
    tied = {"positive": {"loss": score(1, 0.7, 1), "sima": score(1, 0.7, 1), "pia": score(0.99, 0.7, 1)}, "null": {},
            "blind": score(0.5, 0.4, 0.6)}
    assert Controls(**tied, apart={"loss": 2.0, "sima": 3.0, "pia": 9.0}).strongest == "sima"
