"""The factorial design is complete, its ruler tells good banks from bad ones, and pairs are found."""

from __future__ import annotations

import numpy as np
import pandas as pd
from conftest import discs

from cmri_lib.config.parameters import open_study
from cmri_lib.experiments import evaluator as ablation
from cmri_lib.measures.anatomy.adherence import adherence, adherence_bounds, adherence_gain
from cmri_lib.measures.anatomy.validity import Ranges, validity_of_samples
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.measures.statistics.comparison import compare
from cmri_lib.reporting.claims import differ
from cmri_lib.systems.conditional import FAMILIES, WAYS

SEGMENT = lambda images: np.select([images[:, 0] > 0.2, images[:, 0] > -0.55], [1, 2], 0).astype(np.uint8)  # noqa: E731


def test_the_design_is_factorial_and_every_family_has_its_untold_cell() -> None:
    study, _ = open_study("smoke", "phantom")
    design = pd.DataFrame([c[:3] for c in ablation.cells(study)], columns=["family", "content", "way"])
    told = design[design["content"] != "none"]
    assert set(told.groupby(["family", "content"]).size()) == {len(WAYS)} and not design.duplicated().any()
    assert list(design[design["content"] == "none"]["family"]) == list(FAMILIES)
    ids = [c[3].id for c in ablation.cells(study)]
    assert len(set(ids)) == len(ids) == len(design)
    assert len({c[3].start.id for c in ablation.cells(study) if c[0] == "flow"}) == 1, "one past for a family"


def test_adherence_gain_is_the_paired_difference_and_bounds_change_nothing() -> None:
    good = discs(6, 4, split="test")
    noise = np.random.default_rng(0).uniform(-1, 1, good.images.shape).astype(np.float32)
    bad = type(good)(noise, good.masks, good.table)
    gain = adherence_gain(good, bad, SEGMENT, "dice_LV", resamples=100)
    dice = [next(r for r in adherence(good, s, SEGMENT, resamples=100) if r["metric"] == "dice_LV") for s in (good, bad)]
    assert np.isclose(gain.value, dice[0]["value"] - dice[1]["value"]) and gain.low > 0
    assert adherence(good, bad, SEGMENT, resamples=100, bounds=adherence_bounds(good, SEGMENT)) == \
        adherence(good, bad, SEGMENT, resamples=100)


def test_valid_hearts_are_counted_in_what_the_segmenter_sees() -> None:
    real, training = discs(6, 4, split="test"), discs(6, 4, seed=1)
    seen = lambda images: np.concatenate([real.masks[:12], 0 * real.masks[12:]])  # noqa: E731
    measure = validity_of_samples(Ranges.of(training), seen)
    floor = {"heart_valid": Score(1, 1, 1, n=24)}
    row, = compare(real, real, measure, floor=floor, resamples=20)
    valid = validity_of_samples(Ranges.of(training), lambda images: real.masks).describe(real)[:12].sum() / 24
    assert row["metric"] == "heart_valid" and np.isclose(row["value"], valid) and 0 < valid <= 0.5


def test_pairs_are_found_where_both_words_agree() -> None:
    some = discs(4, 1).with_columns(disease=["DCM", "DCM", "NOR", "NOR"], vendor=["A", "B", "A", "B"])
    assert list(ablation.among(some, (("DCM", "B"), ("NOR", "A")))) == [False, True, True, False]
    assert not ablation.among(some, ()).any()


def test_a_difference_is_supported_beyond_the_bound_and_refuted_within() -> None:
    verdict = lambda low, high: differ("M4", "t", Score((low + high) / 2, low, high, n=9), "Dice", bound=0.1)["verdict"]  # noqa: E731
    assert verdict(0.2, 0.3) == verdict(-0.3, -0.2) == "supported"
    assert verdict(-0.05, 0.05) == "not supported"
    assert verdict(0.0, 0.3) == verdict(-0.3, 0.3) == verdict(0.05, 0.15) == "undecided"
