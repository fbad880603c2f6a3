"""Reading the ejection fraction from images: pairs against the formula, learning, units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmri_lib.cohort.cardiac_function import phenotype_table
from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.errors import DataError
from cmri_lib.generators.disease_shift import any_ef, nearest_to_uniform
from cmri_lib.measures.utility.ejection_regression import fit_regression, heart_pairs, reading_errors
from cmri_lib.training import TrainSettings


def beating(patients: int = 24, slices: int = 3, size: int = 16, seed: int = 0) -> Slices:
    """Bright discs that shrink from ED to ES, each patient's by a share of his or her own."""
    rng, parts = np.random.default_rng(seed), []
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    for p in range(patients):
        wide, share = rng.uniform(4.5, 6.5), rng.uniform(0.45, 0.95)
        for phase, radius in (("ED", wide), ("ES", wide * share)):
            mask = np.repeat((np.hypot(x, y) < radius)[None].astype(np.uint8), slices, 0)
            images = (2.0 * mask - 1)[:, None].astype(np.float32)
            table = pd.DataFrame({"patient": f"P{p:02d}", "scan": f"P{p:02d}", "phase": phase, "split": "train",
                                  "index": range(slices), "height": np.linspace(0, 1, slices), "level": "mid", "vendor": "A",
                                  "disease": "NOR", "centre": "1", "dataset": "discs", "source": "real",
                                  "spacing": 2.0, "slice_mm": 10.0 if phase == "ED" else 8.0})
            parts.append(Slices(images, mask, table))
    return concatenate(parts)


def test_pairs_hold_both_phases_their_lengths_and_the_function_of_the_whole_scan() -> None:
    cohort = beating(3)
    pairs = heart_pairs(cohort, 5)
    assert pairs.images.shape == (3, 10, 16, 16) and list(pairs.table["patient"]) == ["P00", "P01", "P02"]
    assert np.allclose(pairs.lengths, [[20, 16]] * 3), "three slices are two distances long"
    known = phenotype_table(cohort)[["lvef", "lvedv", "lvesv"]].to_numpy()
    assert np.allclose(pairs.targets, known, rtol=1e-6)
    assert (pairs.images[0, :5] == cohort.where(patient="P00", phase="ED").images[0, 0]).all()
    assert (pairs.images[0, 5:] == cohort.where(patient="P00", phase="ES").images[0, 0]).all()
    mixed = concatenate([cohort.where(patient=["P00"]), cohort.where(patient="P01", phase="ED")])
    assert list(heart_pairs(mixed, 5).table["patient"]) == ["P00"], "a scan without ES has no EF"
    with pytest.raises(DataError, match="both phases"):
        heart_pairs(cohort.where(phase="ES"), 5)


def test_a_network_reads_unseen_hearts_better_than_their_mean_does(tmp_path: Path) -> None:
    seen, unseen = heart_pairs(beating(40), 4), heart_pairs(beating(16, seed=1), 4)
    settings = TrainSettings(steps=150, batch=8, learning_rate=2e-3, ema=0.95)
    model = fit_regression(seen, seen, settings, tmp_path)
    errors = reading_errors(model, unseen)
    assert list(errors.columns) == ["patient", "scan", "index", "true", "predicted", "error"] and len(errors) == 48
    of = errors[errors["index"] == "lvef"]
    assert of["error"].abs().mean() < 0.5 * (of["true"] - of["true"].mean()).abs().mean()
    again = reading_errors(fit_regression(seen, seen, settings, tmp_path), unseen)
    pd.testing.assert_frame_equal(errors, again)
    with pytest.raises(DataError, match="spread"):
        fit_regression(seen, seen.take(np.array([0])), settings, tmp_path / "one")


def test_draws_are_uniform_or_as_the_cohort_is() -> None:
    values = np.array([20.0, 60.0, 61.0, 62.0, 63.0])
    chosen = nearest_to_uniform(values, 100, 0, 10, 70)
    assert 45 <= (chosen == 0).sum() <= 55, "one scan in five stands for the lower half of the range"
    cohort = beating(5)
    drawn = any_ef(cohort, 50, 0).table.drop_duplicates("scan")
    assert len(drawn) == 50 and set(drawn["drawn_from"]) == set(cohort.patients)
