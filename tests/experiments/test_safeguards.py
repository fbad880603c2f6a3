"""Safeguards against memorisation: what they do to slices, and that all of them guard the same ones."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import discs

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.config.study import open_study
from cmri_lib.experiments.privacy_audit import PrivacyAudit
from cmri_lib.experiments.safeguards import (AUGMENTED, BARE, COARSE, COPIES, DEDUPLICATED, FILTERED, MARGIN, NONE, Safeguards,
                                             augmented, coarse, deduplicated, heart_alone, safeguard_runs)
from cmri_lib.experiments.training import training_slices
from cmri_lib.measures.instruments.learned_features import Features
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.privacy.attack import PatientScores
from cmri_lib.reporting.primary_tests import ANATOMY, HEARTS
from cmri_lib.training import TrainSettings

STUDY, SLICES = open_study("smoke", "phantom"), discs(24, 6, 8)


def test_augmentation_keeps_the_slices_and_moves_image_and_mask_together() -> None:
    some, state = discs(2, 3, 32), torch.random.get_rng_state()
    more = augmented(some, 4, seed=1)
    assert len(more) == 5 * len(some) and (more.images[:len(some)] == some.images).all()
    assert torch.equal(torch.random.get_rng_state(), state), "a change of slices may not change what follows"
    assert (augmented(some, 4, seed=1).images == more.images).all() and (augmented(some, 4, seed=2).images != more.images).any()
    moved = more.take(np.arange(len(some), 2 * len(some)))
    assert (moved.masks != some.masks).any()
    for before, after in zip(some.take(np.arange(6)).images, moved.images):
        assert abs(before.mean() - after.mean()) < 0.15
    inside, outside = moved.images[moved.masks[:, None] == 1], moved.images[moved.masks[:, None] == 0]
    assert inside.mean() > outside.mean() + 0.2, "masks have not moved with their images"


def test_duplicates_go_and_others_stay() -> None:
    some = discs(6, 2, 24, seed=3)
    few = deduplicated(some)
    rng = np.random.default_rng(0)
    noise = 0.001 * rng.standard_normal(some.images.shape).astype(np.float32)
    again = Slices(np.clip(some.images + noise, -1, 1), some.masks, some.table.assign(scan="again"))
    twice = deduplicated(concatenate([some, again]))
    assert len(twice) == len(few) and (twice.images == few.images).all(), "a noisy copy is a duplicate"
    rows = few.images.reshape(len(few), -1)
    apart = np.linalg.norm(rows[:, None] - rows[None], axis=-1) + 1e9 * np.eye(len(rows))
    every = some.images.reshape(len(some), -1)
    others = np.where(some.patients[:, None] == some.patients[None], np.inf,
                      np.linalg.norm(every[:, None] - every[None], axis=-1))
    assert apart.min() >= others.min() * (1 - 1e-4)
    assert set(deduplicated(some.take(np.arange(1))).patients) == {some.patients[0]}


def test_coarse_slices_keep_what_is_coarse_and_lose_what_is_fine() -> None:
    some = discs(2, 2, 16)
    board = np.indices((16, 16)).sum(0) % 2 * 2.0 - 1
    for image, seen in ((np.full((16, 16), 0.3), 0.3), (board, 0.0)):
        images = np.broadcast_to(image, some.images.shape).astype(np.float32)
        np.testing.assert_allclose(coarse(Slices(images, some.masks, some.table)).images, seen, rtol=1e-6, atol=1e-6)
    assert (coarse(some).masks == some.masks).all()


def test_what_surrounds_the_heart_goes_and_the_heart_stays() -> None:
    masks = np.zeros((2, 16, 16), np.uint8)
    masks[0, 8, 8] = 2
    images = np.random.default_rng(0).uniform(-0.9, 1, (2, 1, 16, 16)).astype(np.float32)
    bare = heart_alone(Slices.from_arrays(images, masks, ["a", "b"], spacing=2.0, slice_mm=8.0))
    assert list(bare.patients) == ["a"], "a slice without a heart would be black"
    rows, columns = np.indices((16, 16))
    near = 2.0 * np.hypot(rows - 8, columns - 8) <= MARGIN
    assert (bare.images[0, 0][near] == images[0, 0][near]).all() and (bare.images[0, 0][~near] == -1).all()
    assert near.sum() == 29 and (bare.masks[0] == masks[0]).all()


def test_every_safeguard_guards_the_same_patients_from_the_same_weights() -> None:
    runs = safeguard_runs(STUDY, SLICES)
    seen = {name: training_slices(run, SLICES)[0] for name, run in runs.items()}
    settings = STUDY.params.privacy
    assert len(seen[NONE]) == settings.control.patients * settings.guarded.slices
    assert len(seen[AUGMENTED]) == (1 + COPIES) * len(seen[NONE]) and len(seen[COARSE]) == len(seen[NONE])
    assert 0 < len(seen[DEDUPLICATED]) <= len(seen[NONE])
    assert len(seen[BARE]) == seen[NONE].masks.any((1, 2)).sum()
    assert len({run.folder for run in runs.values()}) == len(runs) and len({run.patients for run in runs.values()}) == 1
    assert {run.settings(STUDY.params, STUDY.seed) for run in runs.values()} == {runs[NONE].settings(STUDY.params, STUDY.seed)}
    assert {run.stage for run in runs.values()} == {"privacy"}


@pytest.fixture
def guards() -> Safeguards:
    """Without a training: fakes take the place of what would ask for one."""
    return Safeguards(PrivacyAudit(STUDY, concatenate([SLICES, discs(3, 4, 8, seed=2, split="test")])))


@pytest.mark.parametrize(("losses", "step"), [((3, 1, 1), 20), ((1, 3, 3), 5), ((3, 1, 2), 10), ((), 20)])
def test_early_stopping_takes_the_last_of_the_best_weights_that_were_kept(
        guards: Safeguards, monkeypatch: pytest.MonkeyPatch, losses: tuple[float, ...], step: int) -> None:
    """Kept are those of steps 5, 10 and 20; losses are noted beside them, and lower ones at steps that were not kept."""
    guards.runs = {NONE: SimpleNamespace(settings=lambda params, seed: TrainSettings(steps=20, snapshots=2))}
    noted = [losses[0], 0.5, losses[1], 0.5, losses[2]] if losses else [np.nan] * 5
    log = pd.DataFrame({"step": [4, 7, 11, 15, 20], "validation_loss": noted})
    monkeypatch.setattr("cmri_lib.experiments.safeguards.training_log", lambda study, run: log)
    assert guards.stopped_at() == step


def test_filtering_keeps_the_first_sample_that_is_no_suspect(guards: Safeguards, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first condition the second draw is fine, of the next the first; where all are suspects, the furthest stays."""
    given = guards.evaluator.conditions = discs(3, 1, 8, seed=4)
    banks = [Slices(np.full_like(given.images, k / 4), given.masks, given.table) for k in range(4)]
    seeds: list[int] = []
    suspects = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1]], bool)
    distance = np.array([[0.1, 0.2, 0.9, 0.3], [0.3, 0.1, 0.9, 0.4], [0.1, 0.2, 0.4, 0.3]])

    def made(generator: object, conditions: Slices, name: str, seed: int) -> Slices:
        assert conditions is given
        seeds.append(seed)
        return banks[len(seeds)]

    def audited(bank: Slices, members: Slices, space: Features) -> SimpleNamespace:
        k = [bank is one for one in banks].index(True)
        assert members is guards.members and space.name == "pixel"
        return SimpleNamespace(distance=distance[:, k], suspects=suspects[:, k])

    monkeypatch.setattr("cmri_lib.experiments.safeguards.draw", made)
    monkeypatch.setattr(guards, "samples", lambda name: banks[0])
    monkeypatch.setattr(guards.audit, "copy_audit", audited)
    kept = guards._filtered(None)
    np.testing.assert_allclose(kept.images.mean((1, 2, 3)), [0.25, 0.0, 0.5])
    assert len(set(seeds)) == 3 and STUDY.seed not in seeds, "another draw is of other noise"


def test_differences_are_guarded_minus_unguarded(guards: Safeguards, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {AUGMENTED: 0.3, FILTERED: 0.4, NONE: 0.8}
    names = np.arange(20).astype(str), np.arange(20, 40).astype(str)
    told = {AUGMENTED: np.zeros(20), NONE: np.ones(20)}  # the attack finds out nothing of the one, of the other all
    copies = {name: SimpleNamespace(swapped_share=lambda v=v: Score(v, v - 0.1, v + 0.1, 9),
                                    near_copy_excess=lambda v=v: Score(v / 2, 0, 1, 9)) for name, v in value.items()}
    for what, fake in {"copies": copies.__getitem__, "samples": lambda name: name, "student": lambda name: name,
                       "attack": lambda name: PatientScores(told[name], np.zeros(20), *names, ("s",))}.items():
        monkeypatch.setattr(guards, what, fake)
    apart = lambda one, other, *rest: Score(value[one] - value[other], 0, 0, 9)  # noqa: E731
    monkeypatch.setattr(guards.evaluator, "difference", apart)
    monkeypatch.setattr("cmri_lib.experiments.safeguards.tstr_difference",
                        lambda test, *students, **options: apart(*students))
    found = {metric: score.value for metric, score in guards.differences(AUGMENTED).items()}
    assert found == pytest.approx({"swapped_share_copy": -0.5, "near_copy_excess_copy": -0.25, "attack_auc_loss": -0.5,
                                   ANATOMY: -0.5, HEARTS: -0.5, "downstream_dice": -0.5})
    filtered = guards.differences(FILTERED)
    assert "attack_auc_loss" not in filtered, "the weights are the same"
    assert filtered["swapped_share_copy"].value == pytest.approx(-0.4)
