"""Safeguards against memorisation: what they do to slices, and that all of them guard the same ones."""

from __future__ import annotations

import numpy as np
import torch
from conftest import discs

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.config.study import open_study
from cmri_lib.experiments.safeguards import (AUGMENTED, COARSE, COPIES, DEDUPLICATED, NONE, augmented, coarse, deduplicated,
                                             safeguard_runs)
from cmri_lib.experiments.training import training_slices

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


def test_every_safeguard_guards_the_same_patients_from_the_same_weights() -> None:
    runs = safeguard_runs(STUDY, SLICES)
    seen = {name: training_slices(run, SLICES)[0] for name, run in runs.items()}
    settings = STUDY.params.privacy
    assert len(seen[NONE]) == settings.control.patients * settings.guarded.slices
    assert len(seen[AUGMENTED]) == (1 + COPIES) * len(seen[NONE]) and len(seen[COARSE]) == len(seen[NONE])
    assert 0 < len(seen[DEDUPLICATED]) <= len(seen[NONE])
    assert len({run.folder for run in runs.values()}) == len(runs) and len({run.patients for run in runs.values()}) == 1
    assert {run.settings(STUDY.params, STUDY.seed) for run in runs.values()} == {runs[NONE].settings(STUDY.params, STUDY.seed)}
    assert {run.stage for run in runs.values()} == {"privacy"}
