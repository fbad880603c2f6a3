"""C_T of Meehan et al., cell by cell, against SciPy's Mann–Whitney test."""

from __future__ import annotations

import numpy as np
import pytest
from clouds import First, cloud
from scipy.stats import mannwhitneyu, norm

from cmri_lib.cohort.slices import Slices
from cmri_lib.privacy.copies import FEWEST, CopyAudit

#: Four corners of the plane, so far apart that they are the cells of any clustering into four.
CORNERS = np.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]])
#: Slices about each corner. The third has too few of the hold-out, the fourth too few samples.
STRANGERS, SAMPLES = (40, 12, FEWEST - 1, 30), (15, 50, 25, FEWEST - 1)
#: How wide samples scatter about training slices in each corner: copies, honest ones, copies that do not count, far ones.
WIDE = (0.002, 0.03, 0.002, 0.1)


def corners(counts: tuple[int, ...], spread: float, prefix: str, seed: int, split: str = "train") -> Slices:
    rng = np.random.default_rng(seed)
    at = np.repeat(CORNERS, counts, axis=0)
    return cloud(at + spread * rng.standard_normal(at.shape), prefix, split=split)


def audit(samples: Slices) -> CopyAudit:
    return CopyAudit(samples, TRAINING, HOLDOUT, OTHERS, First(), resamples=2)


def z_score(samples: np.ndarray, strangers: np.ndarray) -> float:
    """Above 0 where samples lie further away: the normal deviate behind SciPy's one-sided p-value."""
    test = mannwhitneyu(samples, strangers, alternative="greater", method="asymptotic", use_continuity=False)
    return float(norm.isf(test.pvalue))


def to_training(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - First()(TRAINING.images)[None], axis=2).min(1)


TRAINING, OTHERS = corners((60, 60, 60, 60), 0.05, "t", 0), corners((20, 20, 20, 20), 0.05, "o", 1, "validation")
HOLDOUT = corners(STRANGERS, 0.05, "h", 2, "holdout")


@pytest.fixture(scope="module")
def samples() -> Slices:
    """In each corner about training slices of that corner, `WIDE` apart from them."""
    rng, placed = np.random.default_rng(3), First()(TRAINING.images)
    points = [placed[60 * k:60 * k + 60][rng.integers(0, 60, count)] + wide * rng.standard_normal((count, 2))
              for k, (count, wide) in enumerate(zip(SAMPLES, WIDE))]
    return cloud(np.concatenate(points), "s", split="test")


def by_corner(values: np.ndarray, counts: tuple[int, ...]) -> list[np.ndarray]:
    return np.split(values, np.cumsum(counts)[:-1])


def test_c_t_of_several_cells_is_the_mean_of_their_z_scores_weighed_by_hold_out_slices(samples: Slices) -> None:
    distances = [by_corner(to_training(First()(some.images)), counts) for some, counts in
                 ((samples, SAMPLES), (HOLDOUT, STRANGERS))]
    copied, honest, *_ = (z_score(mine, theirs) for mine, theirs in zip(*distances))
    assert copied < -4 < abs(honest) < 2, "cells that differ: a mean over all slices would be another number"
    assert audit(samples).data_copying().value == pytest.approx((40 * copied + 12 * honest) / 52, rel=1e-9)


def test_where_no_cell_has_enough_slices_of_both_there_is_no_c_t() -> None:
    few = corners((FEWEST - 1,) * 4, 0.05, "s", 4, "test")
    assert np.isnan(audit(few).data_copying().value)


def test_c_t_of_one_cell_is_a_mann_whitney_z_of_all_slices(samples: Slices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmri_lib.privacy.copies.CELLS", 1)
    expected = z_score(*(to_training(First()(some.images)) for some in (samples, HOLDOUT)))
    assert audit(samples).data_copying().value == pytest.approx(expected, rel=1e-9)


def test_copies_in_one_cell_are_seen_beside_far_samples_in_another() -> None:
    """Of all slices together samples lie further away than strangers do: as one cell, they would hide the copies."""
    placed, rng = First()(TRAINING.images), np.random.default_rng(5)
    copies, far = placed[:40], np.repeat(placed[60:120], 3, axis=0) + 0.1 * rng.standard_normal((180, 2))
    found = audit(cloud(np.concatenate([copies, far]), "s", split="test"))
    assert z_score(found.distance, found.null) > 3
    assert found.data_copying().value < -4
